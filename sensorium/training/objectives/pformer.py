"""The P-Former: sentence -> the soft prompt that makes a frozen LLM say it; a teacher of projectors.

Source: P-Former / DLP (arXiv:2307.07063); github.com/yiren-jian/BLIText, pformer_opt.py.

Shape legend: M sentences, S tokens, Q prompts, W width of BERT, D width of the LLM.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor, nn

from sensorium.core.config import Config


class PFormerConfig(Config):
    """Defaults are BERT-base's, as the original has it."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    mlp_width: int = 3072
    words: int = 30522
    max_words: int = 512
    longest: int = Field(default=32, ge=3)
    """Tokens of a sentence, its marks included; what is longer is cut."""


class PFormer(nn.Module):
    """BERT's state at its first token -> Q vectors of the LLM's width."""

    def __init__(self, config: PFormerConfig, queries: int, d_model: int) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.queries = queries
        sizes = BertConfig(
            vocab_size=config.words, hidden_size=config.width, num_hidden_layers=config.layers,
            num_attention_heads=config.heads, intermediate_size=config.mlp_width,
            max_position_embeddings=config.max_words,
        )  # fmt: skip
        self.encoder: Any = BertModel(sizes, add_pooling_layer=False)
        self.spread = nn.Linear(config.width, queries * config.width)
        self.pool = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, d_model)

    def first(self, ids_MS: Tensor, real_MS: Tensor) -> Tensor:
        """State of each sentence's first token, (M, W)."""
        return self.encoder(input_ids=ids_MS, attention_mask=real_MS.long()).last_hidden_state[:, 0]

    def prompts(self, first_MW: Tensor) -> Tensor:
        """(M, W) -> (M, Q, D)."""
        spread_MQW = self.spread(first_MW).unflatten(-1, (self.queries, -1))
        return self.out(self.pool(spread_MQW).tanh())

    def forward(self, ids_MS: Tensor, real_MS: Tensor) -> Tensor:
        """(M, S) -> (M, Q, D)."""
        return self.prompts(self.first(ids_MS, real_MS))
