"""Second weights of an LLM's linear layers, for some of its tokens: a fusion holds them, the
backbone runs them in place of its own.

Shape legend: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class TokenExperts:
    """The experts, and which tokens are theirs."""

    layers: nn.ModuleList
    """One for each decoder layer; its linear layers lie at the same paths as the LLM's."""
    mask_BT: Tensor
    """True at the experts' tokens."""


@dataclass(frozen=True, slots=True)
class LayerWork:
    """Work inside each decoder layer: experts, and something behind self-attention."""

    experts: TokenExperts | None
    attended: Callable[[int, Tensor], Tensor]
    """(layer index, hidden_BTD behind the residual of self-attention) -> what to add."""


def linear_paths(layer: nn.Module) -> list[str]:
    """Where the linear layers of a decoder layer, or of its experts, are."""
    return [path for path, module in layer.named_modules() if isinstance(module, nn.Linear)]
