"""Regression heads: each state becomes the next embedding of a picture (Emu, arXiv:2307.05222; Emu2, arXiv:2312.13286).

Source: github.com/baaivision/Emu, models/modeling_llama.py (`stu_regress_head`: D to D, in the LLM's own space) and
Emu2/emu/emu.py (`project_down`: D to the encoder's 1792); one linear map without bias each. What it reads are the states at
the token that begins the picture and at all its embeddings but the last. How the embeddings come one after another:
`sensorium.nn.continuous`.

Shape legend: B items, K embeddings, D LLM width, C their width.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from sensorium.core.errors import ConfigError
from sensorium.core.hands import ConditionShape, OutputProjectorConfig, Space


class RegressionConfig(OutputProjectorConfig):
    """As many embeddings as the condition has tokens, of its width, between the two signal tokens."""

    kind: Literal["regression"] = "regression"
    bias: bool = False
    space: Space = "llm"
    """`llm`: Emu's; `encoder`: Emu2's, whose input projector has a map to the LLM's width at its end."""

    @classmethod
    def tiny(cls) -> RegressionConfig:
        return cls()

    @property
    def feeds_back(self) -> Space:
        return self.space

    def build(self, d_model: int, signals: int, condition: ConditionShape) -> RegressionHead:
        if signals != 2:
            raise ConfigError(f"{signals} signal tokens", expected="two: what begins a picture and what ends it",
                              where="output projector regression", fix="name such as [IMG] and [/IMG]")  # fmt: skip
        if self.space == "llm" and condition.width != d_model:
            raise ConfigError(f"embeddings of width {condition.width} in an LLM of width {d_model}", expected=f"{d_model}",
                              where="output projector regression", fix="set the generator's width, or space: encoder")  # fmt: skip
        return RegressionHead(d_model, condition.width, self.bias)


class RegressionHead(nn.Module):
    """(B, K, D) -> (B, K, C); any leading dimensions will do."""

    def __init__(self, d_model: int, width: int, bias: bool) -> None:
        super().__init__()
        self.out = nn.Linear(d_model, width, bias=bias)

    def forward(self, hidden_BKD: Tensor) -> Tensor:
        return self.out(hidden_BKD)
