"""Retrieval heads of FROMAGe (arXiv:2301.13823) and GILL (arXiv:2305.17216): states and pictures in one space.

Source: github.com/kohjingyu/fromage, fromage/models.py (`text_hidden_fcs.0.0`, `visual_fc`, `logit_scale`) and
github.com/kohjingyu/gill, gill/models.py (`ret_text_hidden_fcs.0.model`, the same two others): a linear map with bias
each, of the last state at the first signal token and of CLIP's pooled feature, then unit length; scores times the
exponential of a learned number. The released models were trained without dropout. The loss is `softmax_contrast`, the
index `sensorium.generators.retrieval_index`.

Shape legend: B items, K signal tokens, D LLM width, M pictures, N texts, V width of their features, C width of the space.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.errors import ConfigError
from sensorium.core.hands import ConditionShape, OutputProjectorConfig


class RetrievalConfig(OutputProjectorConfig):
    """The condition is one vector of unit length."""

    kind: Literal["retrieval"] = "retrieval"
    image_width: int = 1024
    """Of the encoder's pooled features; CLIP L/14: 1024."""
    summary: bool = False
    """Whether pictures are compared by what the lane's projector sums them up to, of the LLM's width, which it learnt from
    more than requests; the originals compare the encoder's pooled features."""
    scale: float = math.log(1 / 0.07)
    """Logarithm of what cosines are multiplied by, at the beginning."""
    before: bool = False
    """Whether the state that foretells the token is read, which the token itself does not change; the originals read
    the one at it."""

    @property
    def reads_before(self) -> bool:
        return self.before

    @classmethod
    def tiny(cls) -> RetrievalConfig:
        return cls(image_width=12)

    def build(self, d_model: int, signals: int, condition: ConditionShape) -> RetrievalHead:
        if condition.length != 1:
            raise ConfigError(f"a condition of {condition.length} tokens", expected="one vector",
                              where="output projector retrieval", fix="set the condition's length to 1")  # fmt: skip
        return RetrievalHead(self, d_model, condition.width)


class RetrievalHead(nn.Module):
    """(B, K, D) -> (B, 1, C), from the first token."""

    def __init__(self, config: RetrievalConfig, d_model: int, width: int) -> None:
        super().__init__()
        self.text = nn.Linear(d_model, width)
        self.image = nn.Linear(config.image_width, width)
        self.logit_scale = nn.Parameter(torch.tensor(config.scale))

    def forward(self, hidden_BKD: Tensor) -> Tensor:
        return F.normalize(self.text(hidden_BKD[:, :1]), dim=-1)

    def pictures(self, features_MV: Tensor) -> Tensor:
        """The vector of each picture, (M, C), of unit length."""
        return F.normalize(self.image(features_MV), dim=-1)

    def scores(self, pictures_MC: Tensor, texts_NC: Tensor) -> Tensor:
        """Scaled cosines of every picture with every text, (M, N), of vectors of unit length."""
        return pictures_MC @ texts_NC.T * self.logit_scale.exp()
