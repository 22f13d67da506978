"""Regression heads: each state becomes the next embedding of a picture (Emu, arXiv:2307.05222; Emu2, arXiv:2312.13286).

Source: github.com/baaivision/Emu, models/modeling_llama.py (`stu_regress_head`: D to D, in the LLM's own space) and
Emu2/emu/lm.py (`project_down`: D to the encoder's 1792); one linear map without bias each. What it reads are the states at
the token that begins the picture and at all its embeddings but the last. How the embeddings come one after another:
`sensorium.nn.continuous`.

Shape legend: B items, K embeddings, D LLM width, C their width.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from sensorium.core.errors import ConfigError
from sensorium.core.hands import ConditionShape, OutputProjectorConfig


class RegressionConfig(OutputProjectorConfig):
    """As many embeddings as the condition has tokens, of its width."""

    kind: Literal["regression"] = "regression"
    bias: bool = False

    @classmethod
    def tiny(cls) -> RegressionConfig:
        return cls()

    @property
    def reads_before(self) -> bool:
        return True

    def build(self, d_model: int, signals: int, condition: ConditionShape) -> RegressionHead:
        if signals != condition.length:
            raise ConfigError(f"{signals} signal tokens for {condition.length} condition tokens", expected="as many",
                              where="output projector regression", fix="change the number of signal tokens")  # fmt: skip
        return RegressionHead(d_model, condition.width, self.bias)


class RegressionHead(nn.Module):
    """(B, K, D) -> (B, K, C); any leading dimensions will do."""

    def __init__(self, d_model: int, width: int, bias: bool) -> None:
        super().__init__()
        self.out = nn.Linear(d_model, width, bias=bias)

    def forward(self, hidden_BKD: Tensor) -> Tensor:
        return self.out(hidden_BKD)
