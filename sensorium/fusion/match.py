"""Pictures and texts that are compared by one vector each, and then read together (BLIP,
arXiv:2201.12086): the first for speed, the second to be sure.

Shape legend: M pictures, N texts, J width of the space that both share, B rows, T tokens, E width of
a picture's tokens.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Features
from sensorium.core.parts import FusionConfig
from sensorium.fusion.cross_attention import CrossAttention, CrossAttentionConfig


class MatchConfig(FusionConfig):
    """The default is BLIP's width of the shared space."""

    kind: Literal["match"] = "match"
    joint: int = 256

    @classmethod
    def tiny(cls) -> MatchConfig:
        return cls(joint=16)

    @property
    def fills_slots(self) -> bool:
        return False

    @property
    def reaches_back(self) -> bool:
        return True

    def build(self, d_model: int, num_layers: int, d_media: int) -> Match:
        """The module.

        Raises:
            ConfigError: the media are not as wide as the layers read.
        """
        CrossAttentionConfig().build(d_model, num_layers, d_media)
        return Match(d_media, self.joint)


class Match(CrossAttention):
    """Hands pictures to the text's layers, and maps their first token into the shared space."""

    def __init__(self, d_media: int, joint: int) -> None:
        super().__init__(d_media)
        self.vision_proj = nn.Linear(d_media, joint)
        self.logit_bias = None

    def pictures(self, features: Features) -> Tensor:
        """The vector of each picture, (M, J)."""
        lengths = torch.tensor(features.lengths, device=features.values_ND.device)
        return self.vision_proj(features.values_ND[lengths.cumsum(0) - lengths])

    def scores(self, pictures_MJ: Tensor, texts_NJ: Tensor) -> Tensor:
        """Cosines of every picture with every text, (M, N)."""
        return F.normalize(pictures_MJ, dim=-1) @ F.normalize(texts_NJ, dim=-1).T
