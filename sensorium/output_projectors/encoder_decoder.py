"""MiniGPT-5's way from generative vokens to a condition (arXiv:2310.02239).

Source: github.com/eric-ai-lab/MiniGPT-5, model.py (`fc`, `llm_to_t2i_mapping`, `t2i_decoder_prompt`) and
minigpt4/models/mini_gpt5.py. Beside GILL's mapper: a two-layer MLP with GELU in front, the width of the condition
throughout, torch's default of 8 heads, queries that are the condition's own width, and no map behind. It reads the
states that predict the vokens, without their input embeddings. Guidance leads away from what zeros become; in
training one item in ten is zeros, and its target that of an empty caption.

Shape legend: B items, K signal tokens, D LLM width, L condition tokens, C condition width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sensorium.core.errors import ConfigError
from sensorium.core.hands import ConditionShape, OutputProjectorConfig
from sensorium.nn.encoder_decoder import EncoderDecoder, StackShape


class EncoderDecoderConfig(OutputProjectorConfig):
    """Defaults are MiniGPT-5's."""

    kind: Literal["encoder_decoder"] = "encoder_decoder"
    layers: int = 4
    """Of encoder and decoder each."""
    heads: int = 8
    mlp_factor: int = 4
    """Width of the feed-forward layers, in widths of the condition."""

    @classmethod
    def tiny(cls) -> EncoderDecoderConfig:
        return cls(layers=1, heads=2, mlp_factor=2)

    @property
    def reads_before(self) -> bool:
        return True

    @property
    def has_negative(self) -> bool:
        return True

    def build(self, d_model: int, signals: int, condition: ConditionShape) -> MlpEncoderDecoder:
        if condition.width % self.heads:
            raise ConfigError(f"{self.heads} heads in a condition of width {condition.width}", expected="a divisor",
                              where="output projector encoder_decoder", fix="change heads")  # fmt: skip
        return MlpEncoderDecoder(self, d_model, signals, condition)


class MlpEncoderDecoder(nn.Module):
    """(B, K, D) -> (B, L, C)."""

    def __init__(
        self, config: EncoderDecoderConfig, d_model: int, signals: int, condition: ConditionShape
    ) -> None:
        super().__init__()
        width = condition.width
        self.d_model, self.signals = d_model, signals
        self.enter = nn.Sequential(nn.Linear(d_model, width), nn.GELU(), nn.Linear(width, width))
        self.mapping = EncoderDecoder(StackShape(width, config.layers, config.heads, width * config.mlp_factor))
        self.queries_LC = nn.Parameter(torch.randn(condition.length, width))

    def forward(self, hidden_BKD: Tensor) -> Tensor:
        queries_BLC = self.queries_LC.expand(len(hidden_BKD), -1, -1)
        return self.mapping(self.enter(hidden_BKD), queries_BLC)

    def negative(self, count: int) -> Tensor:
        """What to lead away from, (B, L, C) for `count` items: what zeros become."""
        return self(self.queries_LC.new_zeros(1, self.signals, self.d_model)).expand(count, -1, -1)
