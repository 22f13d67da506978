"""Pictures and texts that stay apart and are compared: CLIP (arXiv:2103.00020), SigLIP
(arXiv:2303.15343).

Nothing enters the text; the module holds the numbers that turn cosines into scores.

Shape legend: M pictures, N texts, J width of the space that both share, B rows, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Features, MediaBatch
from sensorium.core.errors import ConfigError
from sensorium.core.parts import FusionConfig


class ApartConfig(FusionConfig):
    """The defaults are CLIP's."""

    kind: Literal["apart"] = "apart"
    scale: float = 2.6592
    """Logarithm of the factor on cosines before any training; that of 1 / 0.07, rounded as the released
    configs have it."""
    bias: float | None = None
    """What is added to scaled cosines before any training; None: nothing, ever."""

    @classmethod
    def tiny(cls) -> ApartConfig:
        return cls()

    @property
    def fills_slots(self) -> bool:
        return False

    def build(self, d_model: int, num_layers: int, d_media: int) -> Apart:
        """The module.

        Raises:
            ConfigError: pictures and texts are embedded in spaces of different width.
        """
        if d_media != d_model:
            raise ConfigError(
                f"pictures of width {d_media} beside texts of width {d_model}",
                expected="one width",
                fix="set project: true on the projector",
            )
        return Apart(self)


class Apart(nn.Module):
    """Scores of pictures and texts."""

    def __init__(self, config: ApartConfig) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(config.scale))
        self.logit_bias = None if config.bias is None else nn.Parameter(torch.tensor(config.bias))

    def pictures(self, features: Features) -> Tensor:
        """The vector of each picture, (M, J)."""
        return features.values_ND

    def scores(self, pictures_MJ: Tensor, texts_NJ: Tensor) -> Tensor:
        """Scaled cosines of every picture with every text, (M, N)."""
        cosines_MN = F.normalize(pictures_MJ, dim=-1) @ F.normalize(texts_NJ, dim=-1).T
        scaled_MN = cosines_MN * self.logit_scale.exp()
        return scaled_MN if self.logit_bias is None else scaled_MN + self.logit_bias

    def enter(
        self, embeds_BTD: Tensor, features: Mapping[str, Features], slots: Mapping[str, Tensor]
    ) -> Tensor:
        """The token sequence stays as it is."""
        return embeds_BTD

    def context(
        self, features: Mapping[str, Features], media: Mapping[str, MediaBatch], rows: int
    ) -> None:
        """Nothing is kept for later layers."""

    def inserter(self, context: None, media_index_BT: Tensor, slots: Mapping[str, Tensor]) -> None:
        """Nothing runs between layers."""
