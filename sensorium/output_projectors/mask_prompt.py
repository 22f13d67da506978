"""LISA's way from a [SEG] token to the prompt of a mask decoder (arXiv:2308.00692).

Source: github.com/dvlab-research/LISA, model/LISA.py (`text_hidden_fcs.0`): a linear map of the LLM's width, ReLU, a
linear map to SAM's 256; dropout is 0. It reads the last state that predicts [SEG], and each token is the one sparse
prompt of a mask of its own.

Shape legend: B items, K signal tokens, D LLM width, C width of a prompt.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from sensorium.core.errors import ConfigError
from sensorium.core.hands import ConditionShape, OutputProjectorConfig


class MaskPromptConfig(OutputProjectorConfig):
    """A prompt for each token."""

    kind: Literal["mask_prompt"] = "mask_prompt"

    @classmethod
    def tiny(cls) -> MaskPromptConfig:
        return cls()

    @property
    def reads_before(self) -> bool:
        return True

    def build(self, d_model: int, signals: int, condition: ConditionShape) -> MaskPrompt:
        if signals != condition.length:
            raise ConfigError(f"{signals} signal tokens for {condition.length} prompts", expected="as many",
                              where="output projector mask_prompt", fix="change the number of signal tokens")  # fmt: skip
        return MaskPrompt(d_model, condition.width)


class MaskPrompt(nn.Module):
    """(B, K, D) -> (B, K, C)."""

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(d_model, d_model), nn.ReLU(), nn.Linear(d_model, width))

    def forward(self, hidden_BKD: Tensor) -> Tensor:
        return self.layers(hidden_BKD)
