"""The Q-Former (BLIP-2, arXiv:2301.12597; InstructBLIP, arXiv:2305.06500) and its map to the LLM.

A BERT of post-norm layers over learned queries (`nn/query_former.py`); every `cross_every`-th layer also
attends to the image features. With a vocabulary of its own it reads what is asked, too. What comes out
are the queries. In BLIP-2's first stage it reads captions by what the objective lends it (`states`,
`TextPath`).

Shape legend: M items, L features, Q queries, S words of a text, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from sensorium.core.batch import Features, Grid
from sensorium.core.errors import AlignmentError
from sensorium.core.parts import InputProjectorConfig, TextVocabulary
from sensorium.core.weights import WeightSource
from sensorium.nn.query_former import QueryFormer
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


class QFormer(QueryFormer):
    """Features (any number, d_in), perhaps with a text each -> (queries, d_out)."""

    def __init__(self, config: QFormerConfig, d_in: int, d_out: int) -> None:
        super().__init__(config, d_in)
        self.config = config
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
