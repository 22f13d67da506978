"""Learning to tell what is where, without running the LLM.

The answer of each row names its picture's things with their boxes, in the model's box format; the part
`places.image` learns to find them: focal loss for where a thing's middle lies (arXiv:1708.02002), generalised
IoU and L1 for its box (DETR, arXiv:2005.12872), cross-entropy over the lookup's words for what it is.

Shape legend: M pictures of S cells, N pairs of a thing and a cell that answers for it, C candidate words,
D width of the LLM, T true things.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Batch, Grid
from sensorium.core.boxes import Box
from sensorium.core.errors import ConfigError, DataError
from sensorium.data.source import Source
from sensorium.model.lookup import UNUSED, VocabularyLookup, word_scores
from sensorium.model.multimodal import MultimodalModel
from sensorium.model.places import MARKS, STEPS, Cells, Places, cell_middles, one_grid, share_N
from sensorium.processing.processor import Processor
from sensorium.text.boxes import BoxFormat
from sensorium.text.telling import spelt_inside, telling_words
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig
from sensorium.training.objectives.vocabulary import learned_texts, one_picture

# Focal loss: exponent, and share of what is there.
GAMMA, ALPHA = 2.0, 0.6
# Cells whose middle is so near to a box's middle, in cells, answer for it too.
NEAR = 1.0


class PlacesObjectiveConfig(ObjectiveConfig):
    """Weights of the losses; that of where a thing is has weight 1."""

    kind: Literal["places"] = "places"
    box_weight: float = 2.0
    corner_weight: float = 5.0
    word_weight: float = 1.0

    @property
    def template(self) -> str | None:
        return "caption"

    @property
    def runs_llm(self) -> bool:
        return False

    def build(
        self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]
    ) -> Objective:
        if "image" not in model.places:
            raise ConfigError("objective places for a model that tells none", where="objective.kind",
                              fix="set places and lookup in the model's image lane")  # fmt: skip
        return PlacesObjective(self, model, processor)


@dataclass(frozen=True, slots=True)
class Thing:
    """A true thing: its box in parts of the frame, and the candidate words that are true of it."""

    box: Box
    columns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which cell answers for which thing."""

    picture_N: Tensor
    cell_N: Tensor
    box_N4: Tensor
    word_NC: Tensor


class PlacesObjective:
    """Reads what is where from the answers' text."""

    def __init__(
        self, config: PlacesObjectiveConfig, model: MultimodalModel, processor: Processor
    ) -> None:
        self.config = config
        self.processor = processor
        processor.require(one_picture)
        if processor.box_format is None:
            raise ConfigError("a model without a box format", where="model.boxes", fix="boxes: minigpt_v2")
        self._format: BoxFormat = processor.box_format
        encode = processor.tokenizer.encode
        texts = [*map(str, range(STEPS + 1)), *MARKS]
        places = _places(model)
        if not places.chosen:
            begin_as_summary(places, model.projectors["image"])
        places.choose([encode(text) for text in texts])
        self._scale = places.config.scale
        pieces_CK = _lookup(model).pieces_CK
        used = [tuple(i for i in row if i != UNUSED) for row in pieces_CK.tolist() if row[0] != UNUSED]
        self._longest = pieces_CK.shape[1]
        self._column = {pieces: c for c, pieces in enumerate(used)}

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        encoded = model.encode("image", batch.media["image"])
        grid = one_grid(encoded)
        cells = _places(model).cells(encoded)
        lookup = _lookup(model)
        keys_CD = lookup.keys(model.backbone.embedding.weight.detach()).float()
        truth = [self._things(text) for text in learned_texts(batch, self.processor)]
        if len(truth) != len(cells.thing_MS):
            raise DataError(f"{len(truth)} answers and {len(cells.thing_MS)} pictures in a batch")
        there_MS, pairs = pair_up(truth, cells, grid, len(keys_CD))
        # What a thing is is asked of its true box, so that words do not wait for boxes.
        tokens_ND = _places(model).tokens(cells, pairs.picture_N, pairs.box_N4).float()
        logs_NC = word_scores(tokens_ND, keys_CD, self._scale).log_softmax(-1)
        return self._losses(cells, logs_NC, there_MS, pairs)

    def _losses(self, cells: Cells, logs_NC: Tensor, there_MS: Tensor, pairs: Pairs) -> Losses:
        """Sums over things, so that a batch in several passes is one batch."""
        where = focal(cells.thing_MS, there_MS)
        boxes_N4 = cells.box_MS4[pairs.picture_N, pairs.cell_N]
        iou_N, general_N = share_N(boxes_N4, pairs.box_N4)
        known_N = pairs.word_NC.sum(-1)
        words = -(pairs.word_NC * logs_NC).sum()
        config, count = self.config, int((there_MS == 1).sum())
        # Several cells answer for a thing; each weighs its part.
        share = count / max(1, len(iou_N))
        corners = (boxes_N4 - pairs.box_N4).abs().sum()
        total = where + share * (
            config.box_weight * (1 - general_N).sum() + config.corner_weight * corners + config.word_weight * words
        )
        parts = {
            "where": float(where.detach()) / max(1, count),
            "iou": float(iou_N.detach().mean()) if len(iou_N) else 0.0,
            "words": float(words.detach()) / max(1.0, float(known_N.sum())),
        }
        return Losses(total, max(1, count), parts)

    def _things(self, text: str) -> list[Thing]:
        """What an answer says: phrases with boxes."""
        mentions = self._format.parse(text).mentions
        return [Thing(box, self._columns(mention.phrase or "")) for mention in mentions
                for box in mention.places if isinstance(box, Box)]  # fmt: skip

    def _columns(self, phrase: str) -> tuple[int, ...]:
        """Candidate words of a phrase."""
        found: list[int] = []
        for word in sorted(telling_words(phrase)):
            column = self._column.get(spelt_inside(word, self.processor.tokenizer)[: self._longest])
            found += [] if column is None else [column]
        return tuple(found)


def pair_up(
    truth: Sequence[Sequence[Thing]], cells: Cells, grid: Grid, candidates: int
) -> tuple[Tensor, Pairs]:
    """What each cell should say: 1 where a thing's middle lies, 0 elsewhere, and -1 (nothing) where a thing is
    near; and the pairs of things and cells that answer for them."""
    middles_S2 = cell_middles(grid, cells.thing_MS)
    there_MS = torch.zeros_like(cells.thing_MS)
    rows: list[tuple[int, int, Thing]] = []
    cell_2 = middles_S2.new_tensor([1 / grid.w, 1 / grid.h])
    for m, things in enumerate(truth):
        taken: dict[int, tuple[float, Thing]] = {}
        for thing in things:
            middle_2 = middles_S2.new_tensor([thing.box.x0 + thing.box.x1, thing.box.y0 + thing.box.y1]) / 2
            away_S = ((middles_S2 - middle_2).abs() / cell_2).amax(-1)
            there_MS[m, (away_S < NEAR) & (there_MS[m] == 0)] = -1
            nearest = int(away_S.argmin())
            for cell in (away_S < NEAR).nonzero()[:, 0].tolist():
                distance = -1.0 if cell == nearest else float(away_S[cell])
                if cell not in taken or distance < taken[cell][0]:
                    taken[cell] = (distance, thing)
            there_MS[m, nearest] = 1
        rows += [(m, cell, thing) for cell, (_, thing) in taken.items()]
    word_NC = middles_S2.new_zeros((len(rows), candidates))
    for n, (_, _, thing) in enumerate(rows):
        for column in thing.columns:
            word_NC[n, column] = 1 / len(thing.columns)
    index = lambda k: torch.tensor([row[k] for row in rows], dtype=torch.long, device=there_MS.device)  # noqa: E731
    boxes_N4 = middles_S2.new_tensor([row[2].box.numbers for row in rows]).reshape(-1, 4)
    return there_MS, Pairs(index(0), index(1), boxes_N4, word_NC)


def begin_as_summary(places: Places, projector: nn.Module) -> None:
    """A projector that sums whole pictures up knows much of what parts of them are."""
    summary, norm = getattr(projector, "summary", None), getattr(projector, "norm", None)
    if isinstance(summary, nn.Linear) and isinstance(norm, nn.LayerNorm):
        places.what.load_state_dict(summary.state_dict())
        places.norm_inside.load_state_dict(norm.state_dict())


def focal(logits_MS: Tensor, there_MS: Tensor) -> Tensor:
    """Sum of the focal loss over cells that should say 0 or 1."""
    asked_MS = there_MS >= 0
    plain_MS = F.binary_cross_entropy_with_logits(logits_MS, there_MS.clamp(min=0), reduction="none")
    weight_MS = torch.where(there_MS == 1, ALPHA, 1 - ALPHA) * (1 - torch.exp(-plain_MS)) ** GAMMA
    return 4 * (weight_MS * plain_MS)[asked_MS].sum()


def _places(model: MultimodalModel) -> Places:
    return cast(Places, model.places["image"])


def _lookup(model: MultimodalModel) -> VocabularyLookup:
    return cast(VocabularyLookup, model.lookups["image"])
