"""Media for language models that have cross-attention in their own layers (BLIP, arXiv:2201.12086).

Nothing enters the text; every token attends to the most recent medium before it.

Shape legend: B rows, T tokens, K keys of a row, E media width, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from sensorium.core.batch import Features, MediaBatch
from sensorium.core.errors import ConfigError
from sensorium.core.parts import FusionConfig
from sensorium.nn.cross_media import CrossMedia, MediaContext, lay_media


class CrossAttentionConfig(FusionConfig):
    """Has no sizes of its own."""

    kind: Literal["cross_attention"] = "cross_attention"

    @classmethod
    def tiny(cls) -> CrossAttentionConfig:
        return cls()

    @property
    def fills_slots(self) -> bool:
        return False

    @property
    def reaches_back(self) -> bool:
        return True

    def build(self, d_model: int, num_layers: int, d_media: int) -> CrossAttention:
        """The module.

        Raises:
            ConfigError: the media are not as wide as the layers read.
        """
        if d_media != d_model:
            raise ConfigError(
                f"media of width {d_media} for cross-attention over width {d_model}",
                where="model.backbone.arch.encoder_hidden_size",
            )
        return CrossAttention(d_media)


class CrossAttention(nn.Module):
    """Has no parameters: the language model's own layers do the work."""

    def __init__(self, d_media: int) -> None:
        super().__init__()
        self.d_media = d_media

    def enter(
        self, embeds_BTD: Tensor, features: Mapping[str, Features], slots: Mapping[str, Tensor]
    ) -> Tensor:
        """The token sequence stays as it is."""
        return embeds_BTD

    def context(
        self, features: Mapping[str, Features], media: Mapping[str, MediaBatch], rows: int
    ) -> MediaContext | None:
        """The media tokens of each row; None where there are none at all."""
        if not features:
            return None
        return lay_media(features, media, next(iter(features.values())).values_ND.new_zeros(rows, 1, self.d_media))

    def inserter(
        self, context: MediaContext | None, media_index_BT: Tensor, slots: Mapping[str, Tensor]
    ) -> CrossMedia | None:
        """What the backbone hands to its layers."""
        if context is None:
            return None
        return CrossMedia(context.media_BKE, context.seen_by(media_index_BT))
