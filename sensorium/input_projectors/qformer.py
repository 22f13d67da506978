"""The Q-Former (BLIP-2, arXiv:2301.12597; InstructBLIP, arXiv:2305.06500) and its map to the LLM.

A BERT of post-norm layers over learned queries; every `cross_every`-th layer also
attends to the image features. With a vocabulary of its own it reads what is asked, too: queries
and words attend to each other, only queries see the picture, and each kind has feed-forward
layers of its own. What comes out are the queries. In BLIP-2's first stage it reads captions by what
the objective lends it (`states`, `TextPath`).

Shape legend: M items, L features, Q queries, E extra ones, S words of a text, T = Q + S, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Features, Grid
from sensorium.core.errors import AlignmentError
from sensorium.core.parts import InputProjectorConfig, TextVocabulary
from sensorium.core.weights import WeightSource
from sensorium.nn.attention import Attention
from sensorium.nn.ragged import map_items


class QFormerConfig(InputProjectorConfig):
    """Defaults are BLIP-2's: BERT-base with 32 queries."""

    kind: Literal["qformer"] = "qformer"
    queries: int = 32
    extra: int = 0
    """Further queries behind these, zero at first, that may learn while all else is frozen (`module: extra`;
    VideoChat, arXiv:2305.06355, has 64)."""
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    cross_every: int = 2
    norm_eps: float = 1e-12
    words: int | None = None
    """Rows of its vocabulary (BERT's: 30522, 30523 with a begin-of-text token); None: it reads no text."""
    max_words: int = 512
    reader: tuple[WeightSource, ...] = ()
    """Where the tokenizer lies for what it reads, for good or in its first stage: BERT's."""

    @property
    def vocabulary(self) -> TextVocabulary | None:
        return None if self.words is None else TextVocabulary(self.words, self.max_words)

    @classmethod
    def tiny(cls) -> QFormerConfig:
        return cls(queries=4, width=32, layers=2, heads=4, mlp_width=48)

    @property
    def rows(self) -> int:
        """Queries in all."""
        return self.queries + self.extra

    def out_grid(self, grid: Grid) -> Grid:
        return Grid(1, self.rows)

    def build(self, d_in: int, d_out: int) -> QFormer:
        return QFormer(self, d_in, d_out)


@dataclass(frozen=True, slots=True)
class TextPath:
    """What reading words takes beside the layers that words and queries share."""

    words: nn.Embedding
    places: nn.Embedding
    layers: Sequence[TextFeedForward]
    """One for each layer."""


class QFormer(nn.Module):
    """Features (any number, d_in), perhaps with a text each -> (queries, d_out)."""

    def __init__(self, config: QFormerConfig, d_in: int, d_out: int) -> None:
        super().__init__()
        self.config = config
        # N(0, 0.02) as in the original; zeros would make all queries alike for ever.
        self.queries_QD = nn.Parameter(torch.randn(config.queries, config.width) * 0.02)
        self.extra = ExtraQueries(config) if config.extra else None
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.layers = nn.ModuleList(
            QFormerLayer(config, d_in if i % config.cross_every == 0 else None)
            for i in range(config.layers)
        )
        self.words = None
        if config.words is not None:
            self.words = nn.Embedding(config.words, config.width)
            self.places = nn.Embedding(config.max_words, config.width)
        self.out = nn.Linear(config.width, d_out)

    def forward(self, features: Features, texts: Sequence[Sequence[int]] | None = None) -> Features:
        """Project.

        Args:
            texts: token ids of what each item is looked at for, where the config has `words`.

        Raises:
            AlignmentError: there is not one text for each item.
        """
        if self.words is None:
            return map_items(features, self._project, self.config.out_grid)
        if texts is None or len(texts) != len(features.grids):
            raise AlignmentError(
                f"{0 if texts is None else len(texts)} texts for {len(features.grids)} pictures",
                expected="one for each, because this Q-Former reads what is asked",
            )
        parts = features.values_ND.split(features.lengths)
        kinds = [(grid, len(text)) for grid, text in zip(features.grids, texts, strict=True)]
        out: list[Tensor] = [features.values_ND] * len(kinds)
        # Items of one layout and length go together, so that nothing is padded.
        for kind in dict.fromkeys(kinds):
            members = [i for i, other in enumerate(kinds) if other == kind]
            ids_MS = torch.tensor([list(texts[i]) for i in members], dtype=torch.long,
                                  device=features.values_ND.device)  # fmt: skip
            items_MLD = torch.stack([parts[i] for i in members])
            for i, out_QD in zip(members, self._project(items_MLD, kind[0], ids_MS), strict=True):
                out[i] = out_QD
        return Features(torch.cat(out), tuple(map(self.config.out_grid, features.grids)))

    def _project(self, items_MLD: Tensor, grid: Grid, ids_MS: Tensor | None = None) -> Tensor:
        path = self.text_path()
        if path is None or ids_MS is None:
            return self.out(self.states(items_MLD))
        return self.out(self.states(items_MLD, ids_MS, path)[:, : self.config.rows])

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
            parts.append(self.queries_QD.expand(len(image_MLD), -1, -1))
            if self.extra is not None:
                parts.append(self.extra.queries_ED.expand(len(image_MLD), -1, -1))
        if ids_MS is not None and path is not None:
            parts.append(path.words(ids_MS) + path.places.weight[: ids_MS.shape[1]])
        hidden_MTD = self.norm(torch.cat(parts, dim=1))
        for i, layer in enumerate(self.layers):
            text = path.layers[i] if path is not None else None
            hidden_MTD = layer(hidden_MTD, image_MLD, text, mask)
        return hidden_MTD


class ExtraQueries(nn.Module):
    """Queries that a trained Q-Former gets behind its own."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        self.queries_ED = nn.Parameter(torch.zeros(config.extra, config.width))


class QFormerLayer(nn.Module):
    """Self-attention, perhaps cross-attention, feed-forward; each followed by its norm."""

    def __init__(self, config: QFormerConfig, d_image: int | None) -> None:
        super().__init__()
        self.self_attention = PostNormAttention(config, config.width)
        self.cross_attention = PostNormAttention(config, d_image) if d_image else None
        self.up = nn.Linear(config.width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.queries = config.rows
        self.text = TextFeedForward(config) if config.words is not None else None

    def forward(
        self,
        hidden_MTD: Tensor,
        image_MLD: Tensor | None,
        text: TextFeedForward | None = None,
        mask: Tensor | None = None,
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
            query_MQD = self.cross_attention(query_MQD, image_MLD)
        query_MQD = self.norm(query_MQD + self.down(F.gelu(self.up(query_MQD))))
        return query_MQD if text is None else torch.cat([query_MQD, text(text_MSD)], dim=1)


class TextFeedForward(nn.Module):
    """The feed-forward layer of words."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, text_MSD: Tensor) -> Tensor:
        return self.norm(text_MSD + self.down(F.gelu(self.up(text_MSD))))


class PostNormAttention(nn.Module):
    """norm(x + Attn(x, keys)), BERT's order."""

    def __init__(self, config: QFormerConfig, d_key: int) -> None:
        super().__init__()
        self.attention = Attention(
            config.width,
            d_key,
            num_heads=config.heads,
            head_dim=config.width // config.heads,
            bias=True,
        )
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)

    def forward(self, x_MQD: Tensor, keys_MKD: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.norm(x_MQD + self.attention(x_MQD, keys_MKD, mask))
