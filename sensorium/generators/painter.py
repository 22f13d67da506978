"""Draws picture codes one after another, in reading order, behind a condition: a small decoder-only transformer of our own.

After arXiv:2012.09841 (an autoregressive transformer over the codes of a VQ tokenizer, its condition written in front) and
arXiv:2207.12598 (classifier-free guidance: now and then the condition is left out in training, and drawing leads away from
what is drawn without one).

Shape legend: B items, L condition tokens, C their width, N codes of a picture, K codes of the codebook, T tokens seen at
once, D width, H heads, E width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Grid
from sensorium.core.errors import GenerationError
from sensorium.core.hands import ConditionShape

Past = tuple[Tensor, Tensor]
"""Keys and values of one layer, (B, H, T, E)."""


@dataclass(frozen=True, slots=True)
class PainterShape:
    """Sizes."""

    codes: int
    grid: Grid
    condition: ConditionShape
    width: int
    layers: int
    heads: int


@dataclass(frozen=True, slots=True)
class Strokes:
    """How codes are drawn by chance."""

    guidance: float = 1.0
    """Weight of the condition against none; 1: drawn with the condition alone."""
    temperature: float = 1.0
    """What scores are divided by; 0: always the likeliest code."""
    top_p: float = 1.0
    """Only the likeliest codes that together have this probability."""


class Painter(nn.Module):
    """Codes of a picture, given a condition."""

    def __init__(self, shape: PainterShape) -> None:
        super().__init__()
        self.shape = shape
        width, length = shape.width, shape.condition.length
        # What an LLM makes of two texts differs by a tenth of what both share: each number is measured against its own
        # mean and deviation over texts, which a norm over one condition's numbers would not do.
        self.standard = nn.BatchNorm1d(length * shape.condition.width)
        self.enter = nn.Linear(shape.condition.width, width)
        self.nothing_LD = nn.Parameter(torch.randn(length, width) * 0.02)
        """Stands where there is no condition."""
        self.lengthwise_LD = nn.Parameter(torch.randn(length, width) * 0.02)
        self.code = nn.Embedding(shape.codes, width)
        self.row_hD = nn.Parameter(torch.randn(shape.grid.h, width) * 0.02)
        self.column_wD = nn.Parameter(torch.randn(shape.grid.w, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, shape.heads) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, shape.codes, bias=False)
        nn.init.normal_(self.code.weight, std=0.02)
        for name, weight in self.named_parameters():
            if name.endswith(("mixed.weight", "down.weight")):
                # What is added to the stream shrinks with the number of additions.
                nn.init.normal_(weight, std=0.02 / (2 * shape.layers) ** 0.5)

    def prefix(self, condition_BLC: Tensor, left_out_B: Tensor | None = None, noise: float = 0.0) -> Tensor:
        """What stands in front of the codes, (B, L, D).

        Args:
            left_out_B: true where nothing is to be known of the condition.
            noise: deviation of what is added to the condition, of its own over texts = 1.
        """
        standard_BX = self._standard(condition_BLC.flatten(1))
        if noise:
            standard_BX = standard_BX + torch.randn_like(standard_BX) * noise
        known_BLD = self.enter(standard_BX.view_as(condition_BLC))
        if left_out_B is not None:
            known_BLD = torch.where(left_out_B[:, None, None], self.nothing_LD, known_BLD)
        return known_BLD + self.lengthwise_LD

    def _standard(self, condition_BX: Tensor) -> Tensor:
        """A single condition has no mean to be measured against but that of those before it."""
        if self.training and len(condition_BX) > 1:
            return self.standard(condition_BX)
        norm = self.standard
        return F.batch_norm(condition_BX, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)

    def forward(self, ids_BN: Tensor, prefix_BLD: Tensor) -> Tensor:
        """Scores (B, N, K) of every code, each foretold from the prefix and the codes before it."""
        x_BTD = torch.cat([prefix_BLD, self.code(ids_BN[:, :-1]) + self._places()[:-1]], dim=1)
        for block in self.blocks:
            x_BTD, _ = block(x_BTD, None)
        return self.out(self.norm(x_BTD[:, prefix_BLD.shape[1] - 1 :]))

    def loss(self, ids_BN: Tensor, condition_BLC: Tensor, left_out_B: Tensor | None = None, noise: float = 0.0) -> Tensor:
        """Cross-entropy of each picture's codes, (B,), the mean over its codes, in nats."""
        scores_BNK = self(ids_BN, self.prefix(condition_BLC, left_out_B, noise))
        return F.cross_entropy(scores_BNK.flatten(0, 1), ids_BN.flatten(), reduction="none").view(ids_BN.shape).mean(1)

    @torch.no_grad()
    def draw(
        self, prefix_BLD: Tensor, away_BLD: Tensor | None, strokes: Strokes, chances_BN: Tensor,
        after: Callable[[int], None],
    ) -> Tensor:  # fmt: skip
        """ids_BN.

        Args:
            away_BLD: the prefix that is led away from; None: there is none.
            chances_BN: a number in 0..1 for each code: what chance decides.
            after: told how many codes are drawn, after each.

        Raises:
            GenerationError: scores are no numbers; the message names the code.
        """
        items, places_ND = len(prefix_BLD), self._places()
        x_BTD = prefix_BLD if away_BLD is None else torch.cat([prefix_BLD, away_BLD])
        pasts: list[Past | None] = [None] * len(self.blocks)
        drawn: list[Tensor] = []
        for place in range(self.shape.grid.tokens):
            for i, block in enumerate(self.blocks):
                x_BTD, pasts[i] = block(x_BTD, pasts[i])
            scores_BK = self.out(self.norm(x_BTD[:, -1])).float()
            if away_BLD is not None:
                with_BK, without_BK = scores_BK.log_softmax(-1).split(items)
                scores_BK = without_BK + strokes.guidance * (with_BK - without_BK)
            if bool(scores_BK.isnan().any()):
                raise GenerationError(f"code {place + 1} of {self.shape.grid.tokens} has scores that are no numbers", where="generator drawer",
                                      fix="its weights are damaged: copy them again, or train it anew")  # fmt: skip
            drawn.append(choose(scores_BK, strokes, chances_BN[:, place]))
            after(place + 1)
            x_BTD = (self.code(drawn[-1]) + places_ND[place])[:, None]
            x_BTD = x_BTD if away_BLD is None else x_BTD.repeat(2, 1, 1)
        return torch.stack(drawn, dim=1)

    def _places(self) -> Tensor:
        """(N, D), in reading order."""
        return (self.row_hD[:, None] + self.column_wD[None]).flatten(0, 1)


def choose(scores_BK: Tensor, strokes: Strokes, chance_B: Tensor) -> Tensor:
    """A code for each item, (B,): the first, from the likeliest on, at which the probabilities so far exceed chance."""
    if strokes.temperature == 0:
        return scores_BK.argmax(-1)
    sorted_BK, order_BK = (scores_BK / strokes.temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    before_BK = sorted_BK.cumsum(-1) - sorted_BK
    kept_BK = sorted_BK * (before_BK < strokes.top_p)
    reached_BK = kept_BK.cumsum(-1)
    wanted_B1 = (chance_B.to(reached_BK) * reached_BK[:, -1])[:, None]
    last_B = (kept_BK > 0).sum(-1) - 1
    number_B = torch.minimum((reached_BK <= wanted_B1).sum(-1), last_B)
    return order_BK.gather(-1, number_B[:, None])[:, 0]


class Block(nn.Module):
    """Causal self-attention and a feed-forward part, each behind a norm and added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.mixed = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x_BTD: Tensor, past: Past | None) -> tuple[Tensor, Past]:
        """What goes on, and the keys and values of all tokens so far; behind a past, one token at a time."""
        q_BHTE, k_BHTE, v_BHTE = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.first(x_BTD)).chunk(3, -1)
        )
        if past is not None:
            k_BHTE, v_BHTE = torch.cat([past[0], k_BHTE], dim=2), torch.cat([past[1], v_BHTE], dim=2)
        mixed_BHTE = F.scaled_dot_product_attention(q_BHTE, k_BHTE, v_BHTE, is_causal=past is None)
        x_BTD = x_BTD + self.mixed(mixed_BHTE.transpose(1, 2).flatten(2))
        return x_BTD + self.down(F.gelu(self.up(self.second(x_BTD)))), (k_BHTE, v_BHTE)
