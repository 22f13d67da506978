"""GILL's mapper (arXiv:2305.17216), which NExT-GPT (arXiv:2309.05519) has once for each medium, and MGIE (arXiv:2309.17102) for edits.

Source: github.com/kohjingyu/gill, gill/layers.py (`TextFcLayer`, modes `gill_mapper` and `linear`); github.com/NExT-GPT/NExT-GPT,
code/model/layers.py (mode `transformer`, the same) and nextgpt/model/multimodal_projector/projector.py (version 1.5: the
same, but that the queries begin at zero). What goes in is hidden state plus input embedding in the first mode alone.
NExT-GPT's own `linear` mode returns nothing and so was never used. github.com/apple/ml-mgie, mgie_llava.py (`EditMapper`): the states that predict the
tokens, plus the tokens' embeddings; guidance leads away from what zeros plus embeddings become.

Shape legend: B items, K signal tokens, D LLM width, E width inside, L condition tokens, C condition width.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sensorium.core.errors import ConfigError
from sensorium.core.hands import ConditionShape, OutputProjectorConfig
from sensorium.nn.encoder_decoder import EncoderDecoder, StackShape
from sensorium.nn.standard import StandardStates


class MapperConfig(OutputProjectorConfig):
    """Defaults are those of GILL and NExT-GPT."""

    kind: Literal["mapper"] = "mapper"
    mode: Literal["transformer", "linear"] = "transformer"
    """`linear`: one linear map of each token; of more tokens than the condition has, the first ones; of fewer,
    each becomes an equal share of the condition."""
    width: int = 512
    layers: int = 4
    heads: int = 4
    mlp_width: int = 2048
    query_std: float = Field(default=1.0, ge=0.0)
    """Deviation of the queries at the beginning; 0 in NExT-GPT 1.5."""
    before: bool = False
    """It reads the states that predict the tokens (MGIE), not those at them."""
    guided: bool = False
    """What it makes of zeros is led away from (MGIE)."""
    standard: bool = False
    """Of `linear`: states are measured against their mean and deviation over texts first (`nn/standard.py`)."""
    noise: float = Field(default=0.0, ge=0.0)
    """Of `standard`, while it learns: texts are few, and their states exact."""

    @classmethod
    def tiny(cls) -> MapperConfig:
        return cls(width=16, layers=1, heads=2, mlp_width=32)

    @property
    def adds_embeddings(self) -> bool:
        return self.mode == "transformer"

    @property
    def reads_before(self) -> bool:
        return self.before

    @property
    def has_negative(self) -> bool:
        return self.guided

    def build(self, d_model: int, signals: int, condition: ConditionShape) -> Mapper | LinearMapper:
        if self.mode == "linear":
            if condition.length > signals and condition.length * condition.width % signals:
                raise ConfigError(
                    f"{signals} signal tokens for a condition of {condition.length} x {condition.width}",
                    expected="a divisor of its size", where="output projector mapper", fix="change the number of signal tokens, or mode",
                )  # fmt: skip
            standard = StandardStates(signals, d_model, self.noise) if self.standard else nn.Identity()
            return LinearMapper(d_model, signals, condition, standard)
        if self.width % self.heads:
            raise ConfigError(f"{self.heads} heads in a width of {self.width}", expected="a divisor",
                              where="output projector mapper", fix="change heads")  # fmt: skip
        return Mapper(self, d_model, condition)


class Mapper(nn.Module):
    """(B, K, D) -> (B, L, C): learned queries read the tokens through a small encoder-decoder."""

    def __init__(self, config: MapperConfig, d_model: int, condition: ConditionShape) -> None:
        super().__init__()
        self.enter = nn.Linear(d_model, config.width)
        self.mapping = EncoderDecoder(StackShape(config.width, config.layers, config.heads, config.mlp_width))
        self.queries_LE = nn.Parameter(torch.randn(condition.length, config.width) * config.query_std)
        self.out = nn.Linear(config.width, condition.width)

    def forward(self, hidden_BKD: Tensor) -> Tensor:
        queries_BLE = self.queries_LE.expand(len(hidden_BKD), -1, -1)
        return self.out(self.mapping(self.enter(hidden_BKD), queries_BLE))


class LinearMapper(nn.Module):
    """(B, K, D) -> (B, L, C), each token by itself."""

    def __init__(self, d_model: int, signals: int, condition: ConditionShape, standard: nn.Module) -> None:
        super().__init__()
        self.condition = condition
        self.standard = standard
        # Values that one token becomes.
        share = condition.length * condition.width // signals if condition.length > signals else condition.width
        self.out = nn.Linear(d_model, share)

    def forward(self, hidden_BKD: Tensor) -> Tensor:
        length, width = self.condition.length, self.condition.width
        return self.out(self.standard(hidden_BKD)[:, :length]).reshape(len(hidden_BKD), length, width)
