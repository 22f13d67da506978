"""Tokens that are written by a row of their own, apart from the one that is read.

Where embedding and head are one matrix, a token that is to be written more often is read as another one, too, and the states at it and behind it
change. What is added here to the token's score leaves everything that is read as it was: only how likely the token is written moves.

Shape legend: J tokens with such a row, D LLM width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.errors import ConfigError
from sensorium.core.parts import BackboneConfig


def check_written(tokens: tuple[int, ...], backbone: BackboneConfig) -> None:
    """Whether these are different tokens of an LLM that writes.

    Raises:
        ConfigError: they are not, or it does not.
    """
    where, words = "model.written", backbone.vocab_size
    if not tokens:
        return
    if backbone.text_frame is not None:
        raise ConfigError("rows for writing of a backbone that writes no text", expected="a language model", where=where, fix="leave it out")
    if not all(-words <= token < words for token in tokens) or len({token % words for token in tokens}) < len(tokens):
        raise ConfigError(f"rows for writing of tokens {list(tokens)}", where=where,
                          expected=f"each token once, by its number in a vocabulary of {words}, or from its end where negative")  # fmt: skip


def refuse_written(tokens: tuple[int, ...], where: str) -> None:
    """Refuse to write a model with such rows in a layout that is not ours.

    Raises:
        ConfigError: there are some.
    """
    if tokens:
        raise ConfigError("a model in which tokens are written by rows of their own", expected="a model without `written`: other layouts have no place for it",
                          where=where, fix="load it with sensorium.load, or export it with --to sensorium")  # fmt: skip


class Written(nn.Module):
    """What is added to the scores of some tokens, a linear function of the state; nothing at first."""

    ids_J: Tensor

    def __init__(self, tokens: tuple[int, ...], words: int, d_model: int) -> None:
        super().__init__()
        self.tokens = tuple(token % words for token in tokens)
        self.weight = nn.Parameter(torch.zeros(len(tokens), d_model))
        self.register_buffer("ids_J", torch.tensor(self.tokens), persistent=False)

    def forward(self, hidden: Tensor, logits: Tensor) -> Tensor:
        """(..., D) and (..., V) -> (..., V)."""
        more = F.linear(hidden.to(self.weight.dtype), self.weight).to(logits.dtype)
        return logits.index_add(-1, self.ids_J, more)

    def of(self, tokens: Sequence[int]) -> Tensor:
        """The rows of these tokens, zeros of those that have none; (tokens, D)."""
        rows = dict(zip(self.tokens, self.weight, strict=True))
        return torch.stack([rows.get(token, torch.zeros_like(self.weight[0])) for token in tokens])

    def folded(self, weight_VD: Tensor, scale: float) -> Tensor:
        """A head that makes the same scores by itself: a copy.

        Args:
            scale: of the scores that the head makes.
        """
        return weight_VD.index_add(0, self.ids_J, (self.weight / scale).to(weight_VD.dtype))
