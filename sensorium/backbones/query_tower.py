"""BLIP-2's Q-Former with its text half, as what reads texts: alone, for one vector of each, or with
queries that see a picture, to say whether they belong together.

Queries and words share self-attention and the norm in front of the layers, so that the whole
Q-Former is here and the lane hands over the picture's tokens as the encoder made them.

Source: BLIP-2 (arXiv:2301.12597), section 3.2; github.com/salesforce/LAVIS, blip2_image_text_matching.py. Queries that look back only are
SEED's (arXiv:2307.08041; github.com/AILab-CVC/SEED, SEED_Tokenizer/lavis/models/blip2_models/blip2_qformer_casual.py).

Shape legend: B rows, T tokens, N texts, S tokens of the longest, M pictures, Q queries, K tokens of the
pictures of a row (padded), D width, E width of a picture's tokens, J width of the shared space.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.backbones.cross_lm import no_prompts, only_media
from sensorium.backbones.cross_tower import firsts
from sensorium.backbones.inserting import Inserted
from sensorium.backbones.text_tower import WritesNothing
from sensorium.core.batch import Batch, Features, Grid
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.parts import BackboneConfig, TextFrame
from sensorium.nn.attention import segment_mask
from sensorium.nn.cross_media import CrossMedia
from sensorium.nn.query_former import QueryFormer, TextPath
from sensorium.nn.ragged import map_items


class QueryTowerConfig(BackboneConfig):
    """Defaults are BLIP-2's first stage over EVA-CLIP-g."""

    kind: Literal["query_tower"] = "query_tower"
    queries: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp_width: int = 3072
    cross_every: int = 2
    """Of so many layers, the first has cross-attention."""
    norm_eps: float = 1e-12
    words: int = 30523
    """Rows of its vocabulary: BERT's, and a token that begins a text to be written."""
    max_words: int = 512
    d_picture: int = 1408
    """Width of the encoder's tokens."""
    joint: int = 256
    looks_back: bool = False
    """A query sees those before it alone, so that the last one has seen all: a picture has its vector only (SEED)."""

    @classmethod
    def tiny(cls) -> QueryTowerConfig:
        return cls(queries=4, width=48, layers=2, heads=4, mlp_width=64, words=512, d_picture=32, joint=16,
                   tokenizer="bytes")  # fmt: skip

    @property
    def extra(self) -> int:
        """Queries behind its own: none."""
        return 0

    @property
    def d_model(self) -> int:
        return self.width

    @property
    def d_media(self) -> int:
        return self.d_picture

    @property
    def vocab_size(self) -> int:
        return self.words

    @property
    def max_positions(self) -> int:
        return self.max_words

    @property
    def num_layers(self) -> int:
        return self.layers

    @property
    def text_frame(self) -> TextFrame:
        return TextFrame(self.max_positions)

    def build(self, folder: Path | None = None) -> QueryTower:
        """The module.

        Raises:
            ConfigError: weights are named.
        """
        if folder is not None:
            raise ConfigError("weights for a query_tower alone", expected="none", where="model.backbone.weights",
                              fix="take the whole model by `sensorium import`")  # fmt: skip
        return QueryTower(self)


class Reader(nn.Module):
    """The Q-Former and its heads, under transformers' names."""

    def __init__(self, config: QueryTowerConfig) -> None:
        super().__init__()
        width = config.width
        self.former = QueryFormer(config, config.d_picture)
        self.vision_projection = nn.Linear(width, config.joint)
        self.text_projection = nn.Linear(width, config.joint)
        self.itm_head = nn.Linear(width, 2)


class QueryTower(WritesNothing, nn.Module):
    """embed -> layers over texts, and with queries over media where there are any -> hidden states."""

    def __init__(self, config: QueryTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.lm = Reader(config)

    @property
    def embedding(self) -> nn.Embedding:
        return self.path.words

    @property
    def path(self) -> TextPath:
        """How the Q-Former reads words."""
        return cast(TextPath, self.lm.former.text_path())

    def trainable_blocks(self) -> list[nn.Module]:
        """Layers from input to output, for training only the last few."""
        return list(self.lm.former.layers)

    def add_prompts(self, layers: int, length: int, gate: str) -> None:
        """BERT has no place for adaption prompts.

        Raises:
            ConfigError: always.
        """
        raise no_prompts(layers, length)

    def embed(self, ids_BT: Tensor) -> Tensor:
        """(B, T) -> (B, T, D)."""
        return self.embedding(ids_BT)

    def teacher_forced(
        self, embeds_BTD: Tensor, batch: Batch, insert: Inserted | CrossMedia = None
    ) -> Tensor:
        """Hidden states of all texts, (B, T, D), each read alone; over media, if any are inserted and it
        has some, with the queries that see them."""
        media, former = only_media(insert), self.lm.former
        placed_BTD = embeds_BTD + self.path.places(batch.positions_BT)
        mask_B1TT = segment_mask(batch.segments_BT)
        mask_B1TT = mask_B1TT | mask_B1TT.transpose(2, 3)
        hidden_BTD = former.run(placed_BTD, None, self.path, mask_B1TT)
        if media is None:
            return hidden_BTD
        number_BT, seeing_N = _numbers(batch), firsts(media.sees_BTK, batch).any(dim=-1)
        over_BT = (number_BT >= 0) & seeing_N[number_BT]
        if not bool(over_BT.any()):
            return hidden_BTD
        _, words_NSD = self._together(placed_BTD, batch, media)
        renumbered_N = seeing_N.cumsum(0) - 1
        read = words_NSD[renumbered_N[number_BT[over_BT]], batch.positions_BT[over_BT]]
        return hidden_BTD.masked_scatter(over_BT[..., None], read)

    def _together(
        self, placed_BTD: Tensor, batch: Batch, media: CrossMedia
    ) -> tuple[Tensor, Tensor]:
        """Queries (N, Q, D) and words (N, S, D) of the texts that see a picture, in reading order."""
        former, number_BT = self.lm.former, _numbers(batch)
        real_BT = number_BT >= 0
        places_R, texts_R = batch.positions_BT[real_BT], number_BT[real_BT]
        sees_NK = firsts(media.sees_BTK, batch)
        count, longest = len(sees_NK), int(places_R.max()) + 1
        words_NSD = placed_BTD.new_zeros(count, longest, placed_BTD.shape[-1])
        words_NSD = words_NSD.index_put((texts_R, places_R), placed_BTD[real_BT])
        real_NS = torch.zeros(count, longest, dtype=torch.bool, device=words_NSD.device)
        real_NS[texts_R, places_R] = True
        rows_B1 = torch.arange(len(number_BT), device=number_BT.device)[:, None].expand_as(number_BT)
        rows_N, kept_N = firsts(rows_B1, batch), sees_NK.any(dim=-1)
        words_NSD, real_NS, image_NKE = words_NSD[kept_N], real_NS[kept_N], media.media_BKE[rows_N[kept_N]]
        queries_NQD = former.asking(len(words_NSD))
        queries = queries_NQD.shape[1]
        mask = F.pad(real_NS, (queries, 0), value=True)[:, None, None]
        if (back := self._back(mask.shape[-1])) is not None:
            mask = mask & back
        hidden_NTD = former.run(
            torch.cat([queries_NQD, words_NSD], dim=1), image_NKE, self.path, mask, sees_NK[kept_N][:, None, None]
        )
        return hidden_NTD[:, :queries], hidden_NTD[:, queries:]

    def _back(self, length: int) -> Tensor | None:
        """(T, T), False where a query would see a later one, of queries and words behind them; None: all see all."""
        queries = self.lm.former.rows
        if not self.config.looks_back:
            return None
        places_T = torch.arange(length, device=self.embedding.weight.device)
        return (places_T[None] <= places_T[:, None]) | (places_T >= queries)[None] | (places_T >= queries)[:, None]

    def pictures(self, features: Features) -> Tensor:
        """The vectors of each picture, (M, Q, J): one for each query or, where they look back, the last one's alone."""
        former, back = self.lm.former, self._back(self.lm.former.rows)
        kept = slice(0 if back is None else former.rows - 1, None)
        asked = map_items(
            features, lambda items_MKE, _: former.states(items_MKE, mask=None if back is None else back[None, None])[:, kept],
            lambda _: Grid(1, former.rows - kept.start),
        )  # fmt: skip
        found_MQD = asked.values_ND.unflatten(0, (len(features.grids), -1))
        return self.lm.vision_projection(found_MQD)

    def pooled(self, hidden_BTD: Tensor, batch: Batch) -> Tensor:
        """The vector of every text in reading order, (N, J), of states of texts alone."""
        return self.lm.text_projection(firsts(hidden_BTD, batch))

    def matches(self, batch: Batch, media: CrossMedia) -> Tensor:
        """Scores of no match and of a match for every text in reading order, (N, 2): the mean over the
        queries, which see the picture and the whole text.

        Raises:
            DataError: a text has no picture.
        """
        if not bool(firsts(media.sees_BTK, batch).any(dim=-1).all()):
            raise DataError("a text without a picture", expected="a picture for each, to be matched with")
        placed_BTD = self.embed(batch.input_ids_BT) + self.path.places(batch.positions_BT)
        queries_NQD, _ = self._together(placed_BTD, batch, media)
        return self.lm.itm_head(queries_NQD).mean(dim=1)


def _numbers(batch: Batch) -> Tensor:
    """Which text each token belongs to, (B, T), in reading order from 0; -1 for padding."""
    real_BT = batch.segments_BT > 0
    begins_BT = real_BT & (batch.positions_BT == 0)
    number_BT = (begins_BT.flatten().cumsum(0) - 1).view_as(real_BT)
    return number_BT.masked_fill(~real_BT, -1)
