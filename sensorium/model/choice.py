"""The decision between two ways to make a medium, learnt from examples.

Source: GILL (arXiv:2305.17216), section 3.4; github.com/kohjingyu/gill, TrainDecisionClassifier.ipynb: a linear map of the last
state at the first signal token, [IMG0], without its embedding, behind dropout of one half while it learns.

Shape legend: N media, K signal tokens, D LLM width.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from sensorium.core.config import Config

WAYS = 2


class ChoiceConfig(Config):
    """Defaults are GILL's."""

    dropout: float = Field(default=0.5, ge=0.0, lt=1.0)
    falls_back: bool = True
    """Whether the first way is taken for what is decided for the other where nothing was made ready for that, such as an index. False:
    the medium is missing then, and its error says what to do."""

    def build(self, d_model: int) -> Choice:
        return Choice(self, d_model)


class Choice(nn.Module):
    """(N, K, D) -> scores of the first way and of the other, (N, 2)."""

    def __init__(self, config: ChoiceConfig, d_model: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(d_model, WAYS)

    def forward(self, hidden_NKD: Tensor) -> Tensor:
        return self.out(self.dropout(hidden_NKD[:, 0]))
