"""Feature-level fusion: gated cross-attention blocks before decoder layers.

Flamingo (arXiv:2204.14198) and IDEFICS. Gates start at zero, so that before any training
the model is the plain language model, exactly. A token attends to the most recent medium
before it; tokens before any medium get nothing.

Shape legend: B rows, T tokens, D LLM width, K keys of a row (padded), E media width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Features, MediaBatch
from sensorium.core.parts import FusionConfig
from sensorium.nn.activations import activation
from sensorium.nn.attention import Attention
from sensorium.nn.cross_media import MediaContext, lay_media
from sensorium.nn.norms import NormName, norm


class GatedCrossAttentionConfig(FusionConfig):
    """Defaults are OpenFlamingo's block: 8 heads of 64, GELU feed-forward, scalar gates."""

    kind: Literal["gated_cross_attention"] = "gated_cross_attention"
    every: int = 1
    """A block before layers first, first + every, ..."""
    first: int = Field(default=0, ge=0)
    """IDEFICS begins at layer 0; OpenFlamingo at the last of the first `every` layers."""
    heads: int = 8
    head_dim: int = 64
    mlp_width: int | None = None
    """None: four times the LLM's width."""
    feed_forward: Literal["gelu", "squared_relu", "swiglu"] = "gelu"
    norm: NormName = "layer"
    norm_eps: float = 1e-5
    norm_heads: bool = False
    norm_media: bool = False
    gate: Literal["scalar", "vector"] = "scalar"

    @classmethod
    def tiny(cls) -> GatedCrossAttentionConfig:
        return cls(heads=2, head_dim=8, mlp_width=32)

    @property
    def fills_slots(self) -> bool:
        return False

    def num_blocks(self, num_layers: int) -> int:
        return num_layers // self.every

    def build(self, d_model: int, num_layers: int, d_media: int) -> GatedCrossAttention:
        return GatedCrossAttention(self, d_model, num_layers, d_media)


class GatedCrossAttention(nn.Module):
    """The blocks, and the bookkeeping of which token sees which medium."""

    def __init__(
        self, config: GatedCrossAttentionConfig, d_model: int, num_layers: int, d_media: int
    ) -> None:
        super().__init__()
        self.config = config
        self.d_media = d_media
        self.blocks = nn.ModuleList(
            GatedBlock(config, d_model, d_media) for _ in range(config.num_blocks(num_layers))
        )

    def enter(
        self, embeds_BTD: Tensor, features: Mapping[str, Features], slots: Mapping[str, Tensor]
    ) -> Tensor:
        """The token sequence stays as it is."""
        return embeds_BTD

    def context(
        self, features: Mapping[str, Features], media: Mapping[str, MediaBatch], rows: int
    ) -> MediaContext:
        """Lay the media tokens of each row side by side.

        Text without media passes the blocks too, or a sample's answer would depend on
        whether a neighbour in its batch has a picture.
        """
        gate = next(self.parameters())
        return lay_media(features, media, gate.new_zeros(rows, 1, self.d_media))

    def inserter(
        self, context: MediaContext, media_index_BT: Tensor, slots: Mapping[str, Tensor]
    ) -> Callable[[int, Tensor], Tensor]:
        """The function the backbone calls before each layer."""
        sees_BTK = context.seen_by(media_index_BT)
        gate_BT1 = sees_BTK.any(dim=-1, keepdim=True)
        # A token that sees nothing attends to everything and is then zeroed by the gate,
        # because a softmax over no keys is not a number.
        mask_B1TK = (sees_BTK | ~gate_BT1)[:, None]

        def insert(layer: int, hidden_BTD: Tensor) -> Tensor:
            index, rest = divmod(layer - self.config.first, self.config.every)
            if rest or not 0 <= index < len(self.blocks):
                return hidden_BTD
            return self.blocks[index](hidden_BTD, context.media_BKE, mask_B1TK, gate_BT1)

        return insert


class GatedBlock(nn.Module):
    """x + tanh(a) Attn(norm x, media); then x + tanh(b) FF(norm x)."""

    def __init__(self, config: GatedCrossAttentionConfig, d_model: int, d_media: int) -> None:
        super().__init__()
        mlp_width = config.mlp_width or 4 * d_model
        self.attention_norm = norm(config.norm, d_model, config.norm_eps)
        self.media_norm = nn.LayerNorm(d_media) if config.norm_media else nn.Identity()
        self.attention = Attention(
            d_model, d_media, num_heads=config.heads, head_dim=config.head_dim
        )
        if config.norm_heads:
            self.attention.q_norm = norm(config.norm, config.head_dim, config.norm_eps)  # pyright: ignore[reportAttributeAccessIssue]
            self.attention.k_norm = norm(config.norm, config.head_dim, config.norm_eps)  # pyright: ignore[reportAttributeAccessIssue]
        self.mlp_norm = norm(config.norm, d_model, config.norm_eps)
        gated = config.feed_forward == "swiglu"
        self.mlp_gate = nn.Linear(d_model, mlp_width, bias=False) if gated else None
        self.mlp_up = nn.Linear(d_model, mlp_width, bias=False)
        self.mlp_down = nn.Linear(mlp_width, d_model, bias=False)
        self.act = activation("squared_relu" if config.feed_forward == "squared_relu" else "gelu")
        size = d_model if config.gate == "vector" else 1
        self.attention_gate = nn.Parameter(torch.zeros(size))
        self.mlp_gate_scale = nn.Parameter(torch.zeros(size))

    def forward(
        self, x_BTD: Tensor, media_BKE: Tensor, mask_B1TK: Tensor, gate_BT1: Tensor
    ) -> Tensor:
        seen_BTD = self.attention(
            self.attention_norm(x_BTD), self.media_norm(media_BKE), mask_B1TK
        ).masked_fill(~gate_BT1, 0.0)
        x_BTD = x_BTD + torch.tanh(self.attention_gate) * seen_BTD
        h_BTD = self.mlp_norm(x_BTD)
        if self.mlp_gate is not None:
            inner = F.silu(self.mlp_gate(h_BTD)) * self.mlp_up(h_BTD)
        else:
            inner = self.act(self.mlp_up(h_BTD))
        return x_BTD + torch.tanh(self.mlp_gate_scale) * self.mlp_down(inner)
