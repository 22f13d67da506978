"""Visual tokens as weighted averages of the LLM's own word embeddings.

Source: AlignVLM (arXiv:2502.01341). A projected token scores every candidate word by its
scaled cosine with the word's embedding; the softmax of the scores weighs the embeddings. What
reaches the LLM lies among words it knows how to read, so little data teaches it to.

Shape legend: N visual tokens, D width, C candidate words, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Features
from sensorium.core.config import Config
from sensorium.core.errors import ConfigError

UNUSED = -1


class LookupConfig(Config):
    """Room for `words` candidates; the vocabulary objective chooses them from its captions."""

    words: int = 8192
    scale: float = 50.0
    """Cosines are multiplied by it: the larger, the fewer words share a token."""


class VocabularyLookup(nn.Module):
    """Projected features -> averages of word embeddings; without candidates, the identity."""

    ids_C: Tensor

    def __init__(self, config: LookupConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("ids_C", torch.full((config.words,), UNUSED, dtype=torch.long))

    def choose(self, ids_C: Tensor) -> None:
        """Make these token ids the candidates.

        Raises:
            ConfigError: there are more than the config has room for.
        """
        if len(ids_C) > self.config.words:
            raise ConfigError(
                f"{len(ids_C)} candidate words",
                expected=f"at most {self.config.words}",
                where="lookup.words",
                fix="raise lookup.words",
            )
        self.ids_C.fill_(UNUSED)
        self.ids_C[: len(ids_C)] = ids_C.to(self.ids_C.device)

    def forward(self, features: Features, embedding_VD: Tensor) -> Features:
        """(N, D) tokens in any length -> (N, D) tokens among the words."""
        used_C = self.ids_C[self.ids_C != UNUSED]
        if not len(used_C):
            return features
        words_CD = embedding_VD[used_C].to(features.values_ND.dtype)
        scores_NC = word_scores(features.values_ND, words_CD, self.config.scale)
        return Features(scores_NC.softmax(dim=-1) @ words_CD, features.grids)


def word_scores(tokens_ND: Tensor, words_CD: Tensor, scale: float) -> Tensor:
    """Scaled cosines, (N, C)."""
    return scale * F.normalize(tokens_ND, dim=-1, eps=1e-6) @ F.normalize(words_CD, dim=-1).T
