"""Multi-head attention from queries to any keys, over torch's fused kernel.

Shape legend: B items, Q queries, K keys, D width, H heads, E width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Attention whose keys may have another width than its queries."""

    def __init__(
        self,
        d_query: int,
        d_key: int,
        *,
        num_heads: int,
        head_dim: int,
        bias: bool = False,
        norm_heads: bool = False,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = head_dim
        inner = num_heads * head_dim
        self.q = nn.Linear(d_query, inner, bias=bias)
        self.k = nn.Linear(d_key, inner, bias=bias)
        self.v = nn.Linear(d_key, inner, bias=bias)
        self.out = nn.Linear(inner, d_query, bias=bias)
        self.q_norm = nn.LayerNorm(head_dim) if norm_heads else None
        self.k_norm = nn.LayerNorm(head_dim) if norm_heads else None

    def forward(
        self,
        query_BQD: Tensor,
        key_BKD: Tensor,
        mask: Tensor | None = None,
        *,
        values: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            mask: boolean (B or 1, 1, Q, K), True where attention is allowed.
            values: (B, K, D) where they are not the keys, which may carry positions.
        """
        q_BHQE = self._split(self.q(query_BQD))
        k_BHKE = self._split(self.k(key_BKD))
        v_BHKE = self._split(self.v(key_BKD if values is None else values))
        if self.q_norm is not None and self.k_norm is not None:
            q_BHQE, k_BHKE = self.q_norm(q_BHQE), self.k_norm(k_BHKE)
        mixed_BHQE = F.scaled_dot_product_attention(q_BHQE, k_BHKE, v_BHKE, attn_mask=mask)
        return self.out(mixed_BHQE.transpose(1, 2).flatten(2))

    def _split(self, x_BND: Tensor) -> Tensor:
        return x_BND.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)


def segment_mask(segments_BT: Tensor, branches_BT: Tensor | None = None) -> Tensor:
    """Causal attention within segments: (B, 1, T, T), True where allowed.

    For segments [1, 1, 2, 0]:

        1 . . .
        1 1 . .
        . . 1 .
        . . . 1     padding sees itself, so that no row of a softmax is empty

    A branch other than 0 is seen only from within it: for branches [0, 1, 1, 2] of one segment,

        1 . . .
        1 1 . .
        1 1 1 .
        1 . . 1
    """
    same_BTT = segments_BT[:, :, None] == segments_BT[:, None, :]
    length = segments_BT.shape[1]
    causal_TT = torch.ones(length, length, dtype=torch.bool, device=segments_BT.device).tril()
    allowed_BTT = same_BTT & causal_TT
    if branches_BT is not None:
        key_B1T = branches_BT[:, None, :]
        allowed_BTT &= (key_B1T == 0) | (key_B1T == branches_BT[:, :, None])
    return allowed_BTT[:, None]
