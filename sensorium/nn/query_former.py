"""A BERT of post-norm layers over learned queries that look at features, and perhaps over words beside them:
the Q-Former (BLIP-2, arXiv:2301.12597; InstructBLIP, arXiv:2305.06500) without what lies in front and behind.

Queries and words attend to each other, only queries see the features, and each kind has feed-forward
layers of its own.

Shape legend: M items, L features, Q queries, E extra ones, S words of a text, T = Q + S, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.nn.attention import Attention


class FormerShape(Protocol):
    """Sizes, as `input_projectors.qformer.QFormerConfig` explains them."""

    @property
    def queries(self) -> int: ...
    @property
    def extra(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def mlp_width(self) -> int: ...
    @property
    def cross_every(self) -> int: ...
    @property
    def norm_eps(self) -> float: ...
    @property
    def words(self) -> int | None: ...
    @property
    def max_words(self) -> int: ...


@dataclass(frozen=True, slots=True)
class TextPath:
    """What reading words takes beside the layers that words and queries share."""

    words: nn.Embedding
    places: nn.Embedding
    layers: Sequence[TextFeedForward]
    """One for each layer."""


class QueryFormer(nn.Module):
    """Queries, layers, and with a vocabulary the embeddings of words."""

    def __init__(self, shape: FormerShape, d_in: int) -> None:
        super().__init__()
        self.rows = shape.queries + shape.extra
        # N(0, 0.02) as in the original; zeros would make all queries alike for ever.
        self.queries_QD = nn.Parameter(torch.randn(shape.queries, shape.width) * 0.02)
        self.extra = ExtraQueries(shape) if shape.extra else None
        self.norm = nn.LayerNorm(shape.width, eps=shape.norm_eps)
        self.layers = nn.ModuleList(
            QFormerLayer(shape, d_in if i % shape.cross_every == 0 else None)
            for i in range(shape.layers)
        )
        self.words = None
        if shape.words is not None:
            self.words = nn.Embedding(shape.words, shape.width)
            self.places = nn.Embedding(shape.max_words, shape.width)

    def text_path(self) -> TextPath | None:
        """Its own way to read, where it has one."""
        if self.words is None:
            return None
        layers = [text for layer in self.layers if (text := cast(QFormerLayer, layer).text)]
        return TextPath(self.words, self.places, layers)

    def states(
        self,
        image_MLD: Tensor | None,
        ids_MS: Tensor | None = None,
        path: TextPath | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states of the queries and, behind them, of a text.

        Args:
            image_MLD: what the queries look at; None: the text is read without queries.
            ids_MS: token ids of the text, read along `path`.
            mask: boolean (M or 1, 1, T, T), True where attention is allowed; None: everywhere.
        """
        parts: list[Tensor] = []
        if image_MLD is not None:
            parts.append(self.asking(len(image_MLD)))
        if ids_MS is not None and path is not None:
            parts.append(path.words(ids_MS) + path.places.weight[: ids_MS.shape[1]])
        return self.run(torch.cat(parts, dim=1), image_MLD, path, mask)

    def asking(self, count: int) -> Tensor:
        """The queries, for that many items, (count, Q, D)."""
        own = (self.queries_QD,) if self.extra is None else (self.queries_QD, self.extra.queries_ED)
        return torch.cat(own).expand(count, -1, -1)

    def run(
        self,
        hidden_MTD: Tensor,
        image_MLD: Tensor | None,
        path: TextPath | None = None,
        mask: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states of queries, unless there is no image for them, and of embedded words
        behind them.

        Args:
            mask: as for `states`.
            seen: boolean (M, 1, 1, L), False for features that are not to be looked at.
        """
        hidden_MTD = self.norm(hidden_MTD)
        for i, layer in enumerate(self.layers):
            text = path.layers[i] if path is not None else None
            hidden_MTD = layer(hidden_MTD, image_MLD, text, mask, seen)
        return hidden_MTD


class ExtraQueries(nn.Module):
    """Queries that a trained Q-Former gets behind its own."""

    def __init__(self, shape: FormerShape) -> None:
        super().__init__()
        self.queries_ED = nn.Parameter(torch.zeros(shape.extra, shape.width))


class QFormerLayer(nn.Module):
    """Self-attention, perhaps cross-attention, feed-forward; each followed by its norm."""

    def __init__(self, shape: FormerShape, d_image: int | None) -> None:
        super().__init__()
        self.self_attention = PostNormAttention(shape, shape.width)
        self.cross_attention = PostNormAttention(shape, d_image) if d_image else None
        self.up = nn.Linear(shape.width, shape.mlp_width)
        self.down = nn.Linear(shape.mlp_width, shape.width)
        self.norm = nn.LayerNorm(shape.width, eps=shape.norm_eps)
        self.queries = shape.queries + shape.extra
        self.text = TextFeedForward(shape) if shape.words is not None else None

    def forward(
        self,
        hidden_MTD: Tensor,
        image_MLD: Tensor | None,
        text: TextFeedForward | None = None,
        mask: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """One layer.

        Args:
            hidden_MTD: queries, unless there is no image for them, then words.
            text: the feed-forward layer of the words.
        """
        hidden_MTD = self.self_attention(hidden_MTD, hidden_MTD, mask)
        if image_MLD is None:
            return hidden_MTD if text is None else text(hidden_MTD)
        query_MQD, text_MSD = hidden_MTD[:, : self.queries], hidden_MTD[:, self.queries :]
        if self.cross_attention is not None:
            query_MQD = self.cross_attention(query_MQD, image_MLD, seen)
        query_MQD = self.norm(query_MQD + self.down(F.gelu(self.up(query_MQD))))
        return query_MQD if text is None else torch.cat([query_MQD, text(text_MSD)], dim=1)


class TextFeedForward(nn.Module):
    """The feed-forward layer of words."""

    def __init__(self, shape: FormerShape) -> None:
        super().__init__()
        self.up = nn.Linear(shape.width, shape.mlp_width)
        self.down = nn.Linear(shape.mlp_width, shape.width)
        self.norm = nn.LayerNorm(shape.width, eps=shape.norm_eps)

    def forward(self, text_MSD: Tensor) -> Tensor:
        return self.norm(text_MSD + self.down(F.gelu(self.up(text_MSD))))


class PostNormAttention(nn.Module):
    """norm(x + Attn(x, keys)), BERT's order."""

    def __init__(self, shape: FormerShape, d_key: int) -> None:
        super().__init__()
        self.attention = Attention(
            shape.width,
            d_key,
            num_heads=shape.heads,
            head_dim=shape.width // shape.heads,
            bias=True,
        )
        self.norm = nn.LayerNorm(shape.width, eps=shape.norm_eps)

    def forward(self, x_MQD: Tensor, keys_MKD: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.norm(x_MQD + self.attention(x_MQD, keys_MKD, mask))
