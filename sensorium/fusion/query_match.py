"""Pictures of several vectors and texts of one that are compared, and then read together (BLIP-2,
arXiv:2301.12597, section 3.2).

All weights are the Q-Former's (`backbones/query_tower.py`), which also makes the vectors.

Shape legend: M pictures, Q queries, N texts, J width of the space that both share.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from sensorium.core.errors import ConfigError
from sensorium.core.parts import FusionConfig
from sensorium.fusion.cross_attention import CrossAttention
from sensorium.nn.contrastive import image_text_scores


class QueryMatchConfig(FusionConfig):
    """Has no sizes of its own."""

    kind: Literal["query_match"] = "query_match"

    @classmethod
    def tiny(cls) -> QueryMatchConfig:
        return cls()

    @property
    def fills_slots(self) -> bool:
        return False

    @property
    def reaches_back(self) -> bool:
        return True

    def build(self, d_model: int, num_layers: int, d_media: int) -> QueryMatch:
        """The module.

        Raises:
            ConfigError: the media are not as wide as the Q-Former reads.
        """
        if d_media != d_model:
            raise ConfigError(f"media of width {d_media} for a Q-Former over width {d_model}",
                              where="model.backbone.d_picture")  # fmt: skip
        return QueryMatch(d_media)


class QueryMatch(CrossAttention):
    """Hands pictures to the Q-Former, and compares; it has no parameters."""

    logit_bias = None

    def scores(self, pictures_MQJ: Tensor, texts_NJ: Tensor) -> Tensor:
        """Cosines of every picture, by the query that fits best, with every text, (M, N)."""
        return image_text_scores(F.normalize(pictures_MQJ, dim=-1), F.normalize(texts_NJ, dim=-1))
