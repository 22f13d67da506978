"""The half of BLIP-2's first stage that the language model never sees: a text half for the
Q-Former, and heads over queries and words.

Source: BLIP-2 (arXiv:2301.12597), section 3.2; github.com/salesforce/LAVIS, blip2_qformer.py.

Shape legend: M pictures or captions, L features, Q queries, S words, T = Q + S, D width, E width of the
common space, V vocabulary.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.input_projectors.qformer import QFormer, QFormerConfig
from sensorium.nn.query_former import TextFeedForward, TextPath


class TextHalf(nn.Module):
    """Embeddings of words, and a feed-forward layer for them in every layer of a Q-Former."""

    def __init__(self, former: QFormerConfig, words: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, former.width)
        self.places = nn.Embedding(former.max_words, former.width)
        self.layers = nn.ModuleList(TextFeedForward(former) for _ in range(former.layers))
        for table in (self.words, self.places):
            nn.init.normal_(table.weight, std=0.02)

    def path(self) -> TextPath:
        return TextPath(self.words, self.places, cast(list[TextFeedForward], list(self.layers)))


class WordHead(nn.Module):
    """States -> scores of words, by the embeddings of the words themselves (BERT's head)."""

    def __init__(self, width: int, words: int, norm_eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=norm_eps)
        self.bias = nn.Parameter(torch.zeros(words))

    def forward(self, text_MSD: Tensor, words_VD: Tensor) -> Tensor:
        """(M, S, D) -> (M, S, V)."""
        return F.linear(self.norm(F.gelu(self.dense(text_MSD))), words_VD, self.bias)


class QueryText(nn.Module):
    """A text half, where the Q-Former has none of its own, and the heads of three losses."""

    def __init__(self, former: QFormerConfig, words: int, width: int, temperature: float) -> None:
        super().__init__()
        self.text = TextHalf(former, words) if former.words is None else None
        self.image_out = nn.Linear(former.width, width)
        self.text_out = nn.Linear(former.width, width)
        self.match = nn.Linear(former.width, 2)
        self.writer = WordHead(former.width, words, former.norm_eps)
        self.temperature = nn.Parameter(torch.tensor(temperature))

    def path(self, former: QFormer) -> TextPath:
        """How the Q-Former reads: its own way, or the one that is lent to it."""
        own = former.text_path()
        return own if self.text is None and own is not None else cast(TextHalf, self.text).path()

    def image_features(self, query_MQD: Tensor) -> Tensor:
        """Queries that have seen a picture and no text -> unit vectors, (M, Q, E)."""
        return F.normalize(self.image_out(query_MQD).float(), dim=-1)

    def text_features(self, former: QFormer, ids_MS: Tensor, real_MS: Tensor) -> Tensor:
        """Captions read without queries -> unit vectors of their first tokens, (M, E)."""
        hidden_MSD = former.states(None, ids_MS, self.path(former), real_MS[:, None, None])
        return F.normalize(self.text_out(hidden_MSD[:, 0]).float(), dim=-1)

    def matches(self, former: QFormer, image_MLD: Tensor, ids_MS: Tensor, real_MS: Tensor) -> Tensor:
        """Scores of not belonging and of belonging together, (M, 2): the mean over the queries,
        which see the whole caption."""
        queries = former.config.rows
        seen_MT = F.pad(real_MS, (queries, 0), value=True)
        hidden_MTD = former.states(image_MLD, ids_MS, self.path(former), seen_MT[:, None, None])
        return self.match(hidden_MTD[:, :queries]).mean(dim=1)

    def written(
        self, former: QFormer, image_MLD: Tensor, ids_MS: Tensor, real_MS: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Queries that have seen the picture alone, (M, Q, D), and the scores of each next word, (M,
        S, V), by words that see all queries and the words before them."""
        queries, path = former.config.rows, self.path(former)
        mask = writing_mask(queries, real_MS)
        hidden_MTD = former.states(image_MLD, ids_MS, path, mask)
        logits_MSV = self.writer(hidden_MTD[:, queries:], path.words.weight)
        return hidden_MTD[:, :queries], logits_MSV


def writing_mask(queries: int, real_MS: Tensor) -> Tensor:
    """(M, 1, T, T), True where attention is allowed. For two queries and two words:

        1 1 . .
        1 1 . .
        1 1 1 .
        1 1 1 1
    """
    length = real_MS.shape[1]
    causal_SS = torch.ones(length, length, dtype=torch.bool, device=real_MS.device).tril()
    words_MSS = causal_SS & real_MS[:, None]
    text_MST = F.pad(words_MSS, (queries, 0), value=True)
    query_T = torch.arange(queries + length, device=real_MS.device) < queries
    query_MQT = query_T.expand(len(real_MS), queries, -1)
    return torch.cat([query_MQT, text_MST], dim=1)[:, None]
