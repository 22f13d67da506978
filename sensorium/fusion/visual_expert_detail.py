"""A visual expert, and a second, finer look at each picture that every decoder layer attends to.

CogAgent's cross module (arXiv:2312.08914; github.com/THUDM/CogVLM, utils/models/cogagent_model.py):
behind the self-attention of each layer all tokens attend, through narrow heads, to the features that
a lane's `detail` encoder gives. A token sees the most recent picture; those in front of the first see
the first.

Shape legend: B rows, T tokens, D LLM width, K keys of a row (padded), E width of the features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from sensorium.core.batch import Features, MediaBatch
from sensorium.core.naming import of_detail
from sensorium.fusion.splice import splice
from sensorium.fusion.visual_expert import VisualExpert, VisualExpertConfig
from sensorium.nn.attention import Attention
from sensorium.nn.cross_media import MediaContext, lay_media
from sensorium.nn.token_experts import LayerWork


class VisualExpertDetailConfig(VisualExpertConfig):
    """Defaults are CogAgent's: as many heads as Vicuna-7B, 32 wide."""

    kind: Literal["visual_expert_detail"] = "visual_expert_detail"  # pyright: ignore[reportIncompatibleVariableOverride]
    heads: int = 32
    head_dim: int = 32
    norm_eps: float = 1e-5

    @classmethod
    def tiny(cls) -> VisualExpertDetailConfig:
        return cls(heads=2, head_dim=8)

    @property
    def reaches_back(self) -> bool:
        return True

    def build(self, d_model: int, num_layers: int, d_media: int) -> VisualExpertDetail:
        return VisualExpertDetail(self, d_model, num_layers, d_media)


class VisualExpertDetail(VisualExpert):
    """The experts, and a block of cross-attention for each decoder layer."""

    def __init__(
        self, config: VisualExpertDetailConfig, d_model: int, num_layers: int, d_media: int
    ) -> None:
        super().__init__(config)
        self.cross = nn.ModuleList(DetailBlock(config, d_model, d_media) for _ in range(num_layers))

    def enter(
        self, embeds_BTD: Tensor, features: Mapping[str, Features], slots: Mapping[str, Tensor]
    ) -> Tensor:
        """The embeddings with each kind's features in its slots; details have none."""
        for kind, slots_BT in slots.items():
            embeds_BTD = splice(embeds_BTD, features[kind].values_ND, slots_BT, kind)
        return embeds_BTD

    def context(
        self, features: Mapping[str, Features], media: Mapping[str, MediaBatch], rows: int
    ) -> MediaContext | None:
        """The details of each row side by side; None without pictures."""
        if not media:
            return None
        details = {kind: features[of_detail(kind)] for kind in media}
        some = next(iter(details.values())).values_ND
        return lay_media(details, media, some.new_zeros(rows, 1, some.shape[-1]))

    def inserter(
        self, context: MediaContext | None, media_index_BT: Tensor, slots: Mapping[str, Tensor]
    ) -> LayerWork | None:
        """The experts and their tokens, and what each layer adds behind its attention."""
        experts = self.experts(media_index_BT, slots)
        if context is None:
            return None
        sees_BTK = context.seen_by(media_index_BT)
        sees_BT1 = sees_BTK.any(dim=-1, keepdim=True)
        # A token that sees nothing attends to everything, and what it gets is zeroed.
        mask_B1TK = (sees_BTK | ~sees_BT1)[:, None]

        def attended(layer: int, hidden_BTD: Tensor) -> Tensor:
            added_BTD = self.cross[layer](hidden_BTD, context.media_BKE, mask_B1TK)
            return added_BTD.masked_fill(~sees_BT1, 0.0)

        return LayerWork(experts, attended)


class DetailBlock(nn.Module):
    """Norm, then attention to the details; what it gives is added by the caller."""

    def __init__(self, config: VisualExpertDetailConfig, d_model: int, d_media: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(d_model, eps=config.norm_eps)
        self.attention = Attention(d_model, d_media, num_heads=config.heads, head_dim=config.head_dim)

    def forward(self, x_BTD: Tensor, media_BKE: Tensor, mask_B1TK: Tensor) -> Tensor:
        return self.attention(self.norm(x_BTD), media_BKE.to(x_BTD.dtype), mask_B1TK)
