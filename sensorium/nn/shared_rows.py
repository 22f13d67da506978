"""States that several samples have in common, worked out once and handed to each of them.

Shape legend: N tokens of all samples, K those whose states are worked out, C numbers of a token's state, H heads, E width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Shared:
    """Which tokens have whose states."""

    kept_K: Tensor
    """Places of the tokens whose states are worked out, in order."""
    of_N: Tensor
    """Which of these states each token has."""
    order_N: Tensor
    """The tokens in the order of `of_N`, for sums over those that have one state."""
    first_K: Tensor
    """Where each state's tokens begin in it."""

    @classmethod
    def of(cls, owner_N: Tensor) -> Shared:
        """From the place of the token whose states each token has, its own where it has its own."""
        own_N = owner_N == torch.arange(len(owner_N))
        kept_K = own_N.nonzero()[:, 0]
        of_N = (own_N.cumsum(0) - 1)[owner_N]
        counts_K = torch.bincount(of_N, minlength=len(kept_K))
        return cls(kept_K, of_N, of_N.argsort(stable=True), counts_K.cumsum(0) - counts_K)

    def spread(self, x_1KC: Tensor) -> Tensor:
        """(1, K, ...) -> (1, N, ...); gradients of tokens that have one state are summed."""
        return _Spread.apply(x_1KC, self)  # pyright: ignore[reportReturnType]

    def pick(self, x_1NC: Tensor) -> Tensor:
        """(1, N, ...) -> (1, K, ...)."""
        return _Pick.apply(x_1NC, self)  # pyright: ignore[reportReturnType]

    def spread_heads(self, x_1HKE: Tensor) -> Tensor:
        """(1, H, K, E) -> (1, H, N, E)."""
        return self.spread(x_1HKE.transpose(1, 2)).transpose(1, 2)


class _Spread(torch.autograd.Function):
    """A gather whose way back adds whole rows; autograd's own takes them one by one."""

    @staticmethod
    def forward(ctx: Any, x_1KC: Tensor, shared: Shared) -> Tensor:
        ctx.shared = shared
        return x_1KC.index_select(1, shared.of_N)

    @staticmethod
    def backward(ctx: Any, grad_1NC: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        flat_NC = grad_1NC[0].flatten(1)
        found_KC = F.embedding_bag(ctx.shared.order_N, flat_NC, ctx.shared.first_K, mode="sum")
        return found_KC.unflatten(1, grad_1NC.shape[2:])[None], None


class _Pick(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_1NC: Tensor, shared: Shared) -> Tensor:
        ctx.shared = shared
        return x_1NC.index_select(1, shared.kept_K)

    @staticmethod
    def backward(ctx: Any, grad_1KC: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        full_1NC = grad_1KC.new_zeros(1, len(ctx.shared.of_N), *grad_1KC.shape[2:])
        return full_1NC.index_copy_(1, ctx.shared.kept_K, grad_1KC), None
