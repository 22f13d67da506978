"""What VQGAN (arXiv:2012.09841) adds to distances: pictures should pass for given ones, before a network that learns to tell.

Source: github.com/CompVis/taming-transformers, taming/modules/losses/vqperceptual.py. Both sides learn from the same step's pictures and
the other side as it was, as in github.com/FoundationVision/LlamaGen, tokenizer/tokenizer_image/vq_train.py.

Shape legend: B pictures, C colours, H/W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from sensorium.core.config import Config
from sensorium.core.errors import ConfigError
from sensorium.nn.patch_discriminator import PatchDiscriminator, smallest_px
from sensorium.training.objectives.owned import own_seed

LEAST, MOST = 1e-4, 1e4
"""Added to the divisor of the adaptive weight; the largest one."""


class AdversarialConfig(Config):
    """Defaults are VQGAN's, except the step, which depends on a run's length."""

    weight: float = Field(default=0.8, gt=0)
    start_step: int = Field(default=1000, ge=0)
    """Steps by distances alone, before either side has learnt from the other."""
    layers: int = Field(default=3, ge=1)
    width: int = Field(default=64, ge=1)
    """Of the discriminator: see `PatchDiscriminator`."""
    adaptive: bool = True
    """The weight is multiplied by how much stronger distances pull at the tokenizer's last layer."""
    lr: float | None = Field(default=None, gt=0)
    """The discriminator's; None: the tokenizer's. Both follow the same schedule."""
    betas: tuple[float, float] = (0.5, 0.9)
    """Of the discriminator's Adam, without weight decay."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What both sides learn by; their gradients do not meet."""

    term: Tensor
    """Weighed, for the tokenizer."""
    hinge: Tensor
    """The discriminator's loss: 1 where it cannot tell, 0 where it can."""
    adaptive: Tensor
    """By what `weight` was multiplied."""


class Adversary:
    """The discriminator and its optimiser; it lives as long as training."""

    def __init__(self, config: AdversarialConfig, *, size_px: int, lr: float, seed: int, device: str) -> None:
        """Draw its first weights apart from all other random numbers, so that a run is the same until it begins.

        Raises:
            ConfigError: pictures of this size leave no patch to judge.
        """
        if size_px < (least := smallest_px(config.layers)):
            raise ConfigError(f"{config.layers} layers of a discriminator leave nothing of {size_px} pixels", expected=f"{least} pixels or more",
                              where="adversarial.layers", fix="choose fewer layers")  # fmt: skip
        self.config = config
        with own_seed(seed):
            self.module = PatchDiscriminator(config.layers, config.width)
        self.module.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        groups = [{"params": list(self.module.parameters()), "peak": config.lr or lr}]
        self.optimiser = torch.optim.Adam(groups, lr=config.lr or lr, betas=config.betas)  # pyright: ignore[reportArgumentType]

    def judge(self, made_BCHW: Tensor, wanted_BCHW: Tensor, distance: Tensor, last: Tensor) -> Judged:
        """Losses of both sides, to be added for one backward pass.

        Args:
            made_BCHW: values of pictures given back, with gradients; `wanted_BCHW`: of the pictures.
            distance: between them, weighed, without the codebook's loss.
            last: weights of the layer that made them.
        """
        held = {name: value.detach() for name, value in self.module.named_parameters()}
        passed = -functional_call(self.module, held, (made_BCHW,)).mean()
        weight = adaptive_weight(distance, passed, last) if self.config.adaptive else passed.new_ones(())
        return Judged(self.config.weight * weight * passed, hinge_loss(self.module(wanted_BCHW), self.module(made_BCHW.detach())), weight)


def hinge_loss(wanted: Tensor, made: Tensor) -> Tensor:
    """Logits of given pictures should be above 1, of made ones below -1; the mean of both."""
    return 0.5 * (F.relu(1 - wanted).mean() + F.relu(1 + made).mean())


def adaptive_weight(distance: Tensor, passed: Tensor, last: Tensor) -> Tensor:
    """How much longer the gradient of `distance` is than that of `passed` at the weights `last`; has no gradient itself."""
    of_distance, of_passed = (torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (distance, passed))
    return (of_distance / (of_passed + LEAST)).clamp(0, MOST)
