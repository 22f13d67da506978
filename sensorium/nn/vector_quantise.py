"""Vector quantisation: each latent vector becomes the nearest entry of a codebook that is learnt with it.

Sources: arXiv:1711.00937 (straight-through, loss; EMA in its appendix A.1), arXiv:1906.00446 (EMA of both sums and counts),
arXiv:2005.00341 (random restarts of unused codes), arXiv:2110.04627 (vectors and codes of length one).

The loss is `|sg(z) - e|^2 + beta |z - sg(e)|^2`, sg being stop-gradient, as means over all elements. With a moving average
the codebook learns without a gradient, and only the second term stays.

Shape legend: N vectors, K codes, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.config import Config

SMOOTHING = 1e-5
"""Added to each code's count, so that one that was never chosen does not divide by nothing."""


class QuantiseConfig(Config):
    """How a codebook is chosen from and how it learns."""

    codes: int = Field(default=512, ge=1)
    width: int = Field(default=16, ge=1)
    learns: Literal["ema", "loss"] = "ema"
    """`ema`: each code follows the mean of the vectors that chose it; `loss`: by the gradient."""
    decay: float = Field(default=0.99, ge=0, lt=1)
    """Of the moving averages, a step."""
    beta: float = Field(default=0.25, ge=0)
    """Weight of the term that holds vectors near their codes."""
    unit: bool = False
    """True: vectors and codes are brought to length one before they are compared."""
    revive_below: float = Field(default=0.2, ge=0, lt=1)
    """A code that is chosen less often than this share of an even use is dead, and becomes a vector of the batch; 0: never."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """What quantising gives."""

    values_ND: Tensor
    """The chosen codes; their gradient goes to the vectors unchanged."""
    ids_N: Tensor
    loss: Tensor


@dataclass(frozen=True, slots=True)
class CodeUse:
    """How well a codebook is used."""

    used: float
    """Share of the codes that were chosen at all."""
    perplexity: float
    """exp of the entropy, in nats: as many codes chosen equally often would be as hard to guess."""


def code_use(ids: Tensor, codes: int) -> CodeUse:
    """Use of a codebook of so many entries by ids of any shape, at least one."""
    counts_K = torch.bincount(ids.flatten(), minlength=codes).double()
    share_K = counts_K / counts_K.sum()
    entropy = -torch.special.xlogy(share_K, share_K).sum()
    return CodeUse(float((counts_K > 0).double().mean()), math.exp(float(entropy)))


def nearest_codes(z_ND: Tensor, codebook_KD: Tensor) -> Tensor:
    """Index of the nearest code by squared distance; of equal ones the first.

    |z|^2 is the same for all codes of a vector and is left out.
    """
    distance_NK = torch.addmm(codebook_KD.square().sum(1), z_ND, codebook_KD.T, alpha=-2)
    return distance_NK.argmin(dim=1)


class VectorQuantise(nn.Module):
    """A codebook. In training, with `learns: ema`, each call moves it."""

    codebook_KD: Tensor
    seen_K: Tensor
    sum_KD: Tensor
    begun: Tensor

    def __init__(self, config: QuantiseConfig) -> None:
        super().__init__()
        self.config = config
        start_KD = torch.randn(config.codes, config.width)
        if config.learns == "loss":
            self.codebook_KD = nn.Parameter(start_KD)
        else:
            self.register_buffer("codebook_KD", start_KD)
        self.register_buffer("seen_K", torch.zeros(config.codes))
        self.register_buffer("sum_KD", torch.zeros(config.codes, config.width))
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))

    def codes_KD(self) -> Tensor:
        """The codes that are compared and handed on."""
        return F.normalize(self.codebook_KD, dim=-1) if self.config.unit else self.codebook_KD

    def lookup(self, ids: Tensor) -> Tensor:
        """Codes (..., D) of ids of any shape."""
        return F.embedding(ids, self.codes_KD())

    def nearest(self, z_ND: Tensor) -> Tensor:
        """ids_N of the nearest codes; learns nothing."""
        return nearest_codes(self._compared(z_ND), self.codes_KD())

    def forward(self, z_ND: Tensor) -> Quantised:
        """Quantise; in training the codebook begins with vectors of the first batch, learns, and revives dead codes."""
        z_ND = self._compared(z_ND)
        if self.training and not self.begun:
            self._begin(z_ND.detach())
        ids_N = nearest_codes(z_ND.detach(), self.codes_KD().detach())
        chosen_ND = self.lookup(ids_N)
        loss = self.config.beta * F.mse_loss(z_ND, chosen_ND.detach())
        if self.config.learns == "loss":
            loss = loss + F.mse_loss(chosen_ND, z_ND.detach())
        # Written as a sum whose second part has no gradient: the codes' values, the vectors' gradient.
        values_ND = z_ND + (chosen_ND - z_ND).detach()
        if self.training:
            self._follow(z_ND.detach(), ids_N)
        return Quantised(values_ND, ids_N, loss)

    def _compared(self, z_ND: Tensor) -> Tensor:
        return F.normalize(z_ND, dim=-1) if self.config.unit else z_ND

    @torch.no_grad()
    def _begin(self, z_ND: Tensor) -> None:
        self._replace(torch.ones_like(self.seen_K, dtype=torch.bool), z_ND, len(z_ND) / self.config.codes)
        self.begun.fill_(True)

    @torch.no_grad()
    def _follow(self, z_ND: Tensor, ids_N: Tensor) -> None:
        """Move the averages, with them the codebook where it learns so, and revive what nobody chooses."""
        config, keep = self.config, self.config.decay
        count_K = torch.bincount(ids_N, minlength=config.codes).to(self.seen_K)
        self.seen_K.mul_(keep).add_(count_K, alpha=1 - keep)
        total_KD = torch.zeros_like(self.sum_KD).index_add_(0, ids_N, z_ND.to(self.sum_KD))
        self.sum_KD.mul_(keep).add_(total_KD, alpha=1 - keep)
        if config.learns == "ema":
            # Smoothed counts keep their sum, so that all codes shrink alike.
            whole = self.seen_K.sum()
            smooth_K = (self.seen_K + SMOOTHING) / (whole + config.codes * SMOOTHING) * whole
            self.codebook_KD.copy_(self.sum_KD / smooth_K[:, None])
        even = float(self.seen_K.mean())
        dead_K = self.seen_K < config.revive_below * even
        if bool(dead_K.any()):
            self._replace(dead_K, z_ND, even)

    def _replace(self, which_K: Tensor, z_ND: Tensor, seen: float) -> None:
        """Make these codes vectors of the batch, each another one while there are enough, chosen as often as `seen`."""
        wanted = int(which_K.sum())
        order = torch.randperm(len(z_ND), device=z_ND.device)
        picked = order.repeat(math.ceil(wanted / len(order)))[:wanted]
        new_KD = z_ND[picked].to(self.codebook_KD)
        self.codebook_KD.data[which_K] = new_KD
        self.seen_K[which_K] = seen
        self.sum_KD[which_K] = new_KD * seen
