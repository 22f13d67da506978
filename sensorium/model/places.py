"""Things that a picture shows and where they are, told to the LLM in its own words.

Each cell of the encoder's map says whether a thing has its middle there and which box it fills; which words a
box stands for is read off the mean of the map inside it, as the projector's summary reads those of the whole
picture, or off a second look at what the box holds (`glance`). The best things are spelt out in token embeddings, words first and then the box as MiniGPT-v2 writes it:

    red circle {<12><30><56><87>}
    star {<60><8><81><30>}

So to point is to find a word in what is before one and to copy four numbers, which a small LLM learns from
little data; to see is learnt without running it (`training/objectives/places.py`). One cell and one thing, and
what a cell's box is measured from, are FCOS's and CenterNet's (arXiv:1904.01355, arXiv:1904.07850).

Shape legend: M pictures of S = side x side cells, N boxes, E width of the encoder's map, D width of the LLM, H hidden
width, C candidate words of up to K pieces, R tokens of room, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Features, Grid
from sensorium.core.boxes import Box
from sensorium.core.config import Config
from sensorium.core.errors import ConfigError
from sensorium.model.asked_words import heard
from sensorium.model.glance import Glance
from sensorium.model.lookup import UNUSED, VocabularyLookup, word_scores

STEPS = 100
"""Boxes are told in hundredths of the frame, as MiniGPT-v2's are."""
MARKS = ("{<", "><", ">}", "\n")
OPEN, BETWEEN, CLOSE, END = range(STEPS + 1, STEPS + 1 + len(MARKS))
PIECES = 4
# Of the lookup's noise. In nano-points' training with it, cut-outs have a right word among theirs for 70 %, as held-out ones
# have without any; training ones have it for 97 % without.
UNSURE = 0.6
# How far from the middle of its cell the middle of a box may lie, in cells.
REACH = 1.5


class PlacesConfig(Config):
    """Room for what is told of a picture's things."""

    room: int = Field(default=112, ge=8)
    """Tokens in front of all others of the picture; what does not fit is cut, the rest is empty lines."""
    things: int = Field(default=6, ge=1)
    """The best ones that are told."""
    words: int = Field(default=3, ge=1)
    """Of each thing, at most."""
    surety: float = Field(default=0.1, ge=0, le=1)
    """Words behind the first are told from this probability on."""
    floor: float = Field(default=0.3, ge=0, le=1)
    """Probability from which on something is a thing."""
    alike: float = Field(default=0.4, gt=0, le=1)
    """Of two boxes that share more than this (IoU) the less probable one is dropped."""
    hidden: int = 256
    scale: float = 50.0
    """Cosines with words are multiplied by it."""
    asked: float = Field(default=0.0, ge=0, le=1)
    """Above 0: a word of the question is told in front of a thing's own, of the thing that it fits best, where it is at least this part as
    probable as that thing's best word; so a thing can be found by a word that comes to mind only when one hears it. 0: questions are
    not read. Samples of separate turns are told of as if nothing was asked."""
    glance: bool = False
    """Each thing is looked at once more, by itself, as a whole picture (`model/glance.py`). How probable its words are is
    the mean of three log-probabilities: the map's, and of the second look the projector's summary and what reads the map.
    Needs a projector with a summary, and every picture's pixels."""

    def out_grid(self, grid: Grid) -> Grid:
        """Layout with what is told in front."""
        return Grid(grid.h, grid.w, grid.prefix + self.room)


@dataclass(frozen=True, slots=True)
class Cells:
    """What each cell says."""

    thing_MS: Tensor
    """Logits of whether a thing's middle lies here."""
    box_MS4: Tensor
    """x0, y0, x1, y1 in parts of the frame."""
    map_MSE: Tensor
    """The encoder's own."""
    grid: Grid


class Places(nn.Module):
    """Encoder features -> embeddings of a text of words and boxes."""

    spelling_NK: Tensor

    def __init__(self, config: PlacesConfig, width_in: int, width: int) -> None:
        super().__init__()
        self.config = config
        hidden = config.hidden
        self.norm = nn.LayerNorm(width_in)
        self.enter = nn.Linear(width_in, hidden)
        self.mix = nn.ModuleList(nn.Conv2d(hidden, hidden, 3, padding=1) for _ in range(2))
        self.where = nn.Linear(hidden, 5)
        self.norm_inside = nn.LayerNorm(width_in)
        self.what = nn.Linear(width_in, width)
        # Nearly all cells hold no middle of a thing.
        nn.init.constant_(self.where.bias[:1], -3.0)
        room = torch.full((STEPS + 1 + len(MARKS), PIECES), UNUSED, dtype=torch.long)
        self.register_buffer("spelling_NK", room)

    @property
    def chosen(self) -> bool:
        """Whether it knows how numbers are spelt, which is when it begins to learn."""
        return bool((self.spelling_NK[:, 0] != UNUSED).any())

    def choose(self, spelling: Sequence[Sequence[int]]) -> None:
        """Learn how numbers and marks are spelt: the token ids of 0 to 100 and of `MARKS`, in this order.

        Raises:
            ConfigError: one takes more tokens than there is room for.
        """
        longest = max(map(len, spelling))
        if longest > PIECES:
            raise ConfigError(f"a number or mark of {longest} tokens", expected=f"at most {PIECES}",
                              where="places", fix="choose an LLM whose tokenizer knows digits")  # fmt: skip
        rows = [[*ids, *[UNUSED] * (PIECES - len(ids))] for ids in spelling]
        self.spelling_NK.copy_(torch.tensor(rows))

    def cells(self, encoded: Features) -> Cells:
        """What each cell says, of items of one square grid."""
        grid = one_grid(encoded)
        x_MSE = encoded.values_ND.unflatten(0, (-1, grid.tokens))[:, grid.prefix :]
        x_MSH = F.gelu(self.enter(self.norm(x_MSE.to(self.enter.weight.dtype))))
        for layer in self.mix:
            map_MHhw = x_MSH.transpose(1, 2).unflatten(2, (grid.h, grid.w))
            x_MSH = x_MSH + F.gelu(layer(map_MHhw)).flatten(2).transpose(1, 2)
        said_MS5 = self.where(x_MSH).float()
        return Cells(said_MS5[..., 0], _boxes(said_MS5[..., 1:], grid), x_MSE, grid)

    def tokens(self, cells: Cells, picture_N: Tensor, box_N4: Tensor) -> Tensor:
        """(N, D): what boxes of pictures hold, to be compared with words."""
        weight_NS = inside(box_N4, cells.grid)
        weight_NS = weight_NS / weight_NS.sum(-1, keepdim=True).clamp(min=1e-6)
        mean_NE = (weight_NS.to(cells.map_MSE.dtype)[:, None] @ cells.map_MSE[picture_N])[:, 0]
        return self._read(mean_NE)

    def _read(self, mean_NE: Tensor) -> Tensor:
        """Means of maps of things -> (N, D)."""
        return self.what(self.norm_inside(mean_NE.to(self.what.weight.dtype)))

    def forward(
        self, encoded: Features, lookup: VocabularyLookup, embedding_VD: Tensor, glance: Glance | None = None,
        texts: Sequence[Sequence[int]] = (),
    ) -> Tensor:
        """(M, R, D) embeddings; no gradient, since what is told is chosen.

        Args:
            glance: what looks at things once more, at the same pictures; with `glance` only.
            texts: the words that each picture is looked at for, as `MediaBatch.texts` has them; with `asked` only.
        """
        with torch.no_grad():
            ids_MR = self.told(self.cells(encoded), lookup, embedding_VD, glance, texts)
            return embedding_VD[ids_MR]

    def in_front(self, looked_up: Features, told_MRD: Tensor) -> Features:
        """The picture's other tokens behind what is told of its things."""
        values_MRD = told_MRD.to(looked_up.values_ND.dtype)
        grid = one_grid(looked_up)
        others_MLD = looked_up.values_ND.unflatten(0, (-1, grid.tokens))
        joined_ND = torch.cat([values_MRD, others_MLD], dim=1).flatten(0, 1)
        return Features(joined_ND, (self.config.out_grid(grid),) * len(looked_up.grids))

    def told(
        self, cells: Cells, lookup: VocabularyLookup, embedding_VD: Tensor, glance: Glance | None = None,
        texts: Sequence[Sequence[int]] = (),
    ) -> Tensor:
        """Token ids of the text about each picture, (M, R)."""
        pieces_CK = lookup.pieces_CK[lookup.pieces_CK[:, 0] != UNUSED]
        rows: list[list[int]] = [[] for _ in range(len(cells.thing_MS))]
        found = [(m, box) for m in range(len(rows)) for box in best_things(cells, m, self.config)]
        chances_NC = self._chances(cells, found, lookup, embedding_VD, glance)
        asked = heard(chances_NC, [m for m, _ in found], texts if self.config.asked else (), pieces_CK, self.config.asked)
        for chances_C, (m, box), words in zip(chances_NC, found, asked, strict=True):
            rows[m] += self._line(chances_C, box, pieces_CK, words)
        empty = self._spelt(END) or [0]
        room = self.config.room
        filled = [(row + empty * room)[:room] for row in rows]
        return torch.tensor(filled, device=embedding_VD.device)

    def _chances(
        self, cells: Cells, found: Sequence[tuple[int, Box]], lookup: VocabularyLookup, embedding_VD: Tensor, glance: Glance | None
    ) -> Tensor:
        """(N, C): of each box of a picture, how probable the words are; less surely so under the lookup's noise.

        Raises:
            ConfigError: things are to be looked at once more, and nothing that could was handed over.
        """
        if self.config.glance and glance is None:
            raise ConfigError("places.glance, and no pixels to look at", where="places.glance",
                              fix="hand over a Glance, or set glance: false")  # fmt: skip
        keys_CD = lookup.keys(embedding_VD)
        if not found:
            return keys_CD.new_zeros(0, len(keys_CD))
        box_N4 = cells.box_MS4.new_tensor([box.numbers for _, box in found])
        picture_N = torch.tensor([m for m, _ in found], device=box_N4.device)
        looks = [self.tokens(cells, picture_N, box_N4)]
        if self.config.glance and glance is not None:
            mean_NE = glance.means(len(cells.thing_MS), picture_N, box_N4)
            looks += [glance.summed_up(mean_NE), self._read(mean_NE)]
        logs = [word_scores(x_ND.to(keys_CD.dtype), keys_CD, self.config.scale).log_softmax(-1) for x_ND in looks]
        return lookup.blurred(torch.stack(logs).mean(0), self.config.words, UNSURE).softmax(-1)

    def _line(self, chances_C: Tensor, box: Box, pieces_CK: Tensor, asked: Sequence[int]) -> list[int]:
        """One thing: its words, those of the question first, its box, an end."""
        best = chances_C.topk(min(self.config.words, len(chances_C)))
        own = [word for k, (chance, word) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True))
               if k == 0 or chance >= self.config.surety]  # fmt: skip
        told = list(dict.fromkeys([*asked, *own]))[: max(self.config.words, len(asked))]
        ids = [i for word in told for i in pieces_CK[word].tolist() if i != UNUSED]
        numbers = [min(max(round(n * STEPS), 0), STEPS) for n in box.numbers]
        for k, number in enumerate(numbers):
            ids += self._spelt(BETWEEN if k else OPEN) + self._spelt(number)
        return ids + self._spelt(CLOSE) + self._spelt(END)

    def _spelt(self, row: int) -> list[int]:
        return [i for i in self.spelling_NK[row].tolist() if i != UNUSED]


def one_grid(encoded: Features) -> Grid:
    """The grid of all items.

    Raises:
        ConfigError: they have several.
    """
    if len(set(encoded.grids)) != 1:
        raise ConfigError("pictures of several sizes in a model that tells places", expected="one size",
                          where="lane.places", fix="choose a resolution of one size: fixed")  # fmt: skip
    return encoded.grids[0]


def cell_middles(grid: Grid, like: Tensor) -> Tensor:
    """(S, 2): x and y of the cells' middles in parts of the frame."""
    y_S, x_S = torch.meshgrid(
        torch.arange(grid.h, device=like.device), torch.arange(grid.w, device=like.device), indexing="ij"
    )
    return torch.stack([(x_S.flatten() + 0.5) / grid.w, (y_S.flatten() + 0.5) / grid.h], dim=-1).to(like)


def _boxes(said_MS4: Tensor, grid: Grid) -> Tensor:
    """Shifts of middles and logits of sizes -> corners in parts of the frame."""
    cell_2 = said_MS4.new_tensor([1 / grid.w, 1 / grid.h])
    middle_MS2 = cell_middles(grid, said_MS4) + REACH * torch.tanh(said_MS4[..., :2]) * cell_2
    half_MS2 = torch.sigmoid(said_MS4[..., 2:] - 1.0) / 2
    return torch.cat([middle_MS2 - half_MS2, middle_MS2 + half_MS2], dim=-1)


def inside(box_N4: Tensor, grid: Grid) -> Tensor:
    """(N, S): the part of each cell that lies in a box."""
    parts: list[Tensor] = []
    for axis, count in ((0, grid.w), (1, grid.h)):
        edges = torch.arange(count + 1, device=box_N4.device).to(box_N4) / count
        low_N1, high_N1 = box_N4[:, axis, None], box_N4[:, axis + 2, None]
        shared = torch.minimum(edges[1:], high_N1) - torch.maximum(edges[:-1], low_N1)
        parts.append(shared.clamp(min=0) * count)
    return (parts[1][:, :, None] * parts[0][:, None, :]).flatten(1)


def best_things(cells: Cells, m: int, config: PlacesConfig) -> list[Box]:
    """Boxes of a picture's things, the most probable first."""
    chances_S = cells.thing_MS[m].sigmoid()
    kept: list[Box] = []
    for cell in chances_S.argsort(descending=True, stable=True).tolist():
        if len(kept) == config.things or chances_S[cell] < config.floor:
            break
        box = Box(*cells.box_MS4[m, cell].clamp(0, 1).tolist())
        if all(_share(box, other) <= config.alike for other in kept):
            kept.append(box)
    return kept


def _share(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = max(0.0, min(one.x1, other.x1) - max(one.x0, other.x0))
    height = max(0.0, min(one.y1, other.y1) - max(one.y0, other.y0))
    areas = sum((box.x1 - box.x0) * (box.y1 - box.y0) for box in (one, other))
    return width * height / max(1e-9, areas - width * height)


def share_N(one_N4: Tensor, other_N4: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (arXiv:1902.09630) of pairs of boxes."""
    low_N2, high_N2 = torch.max(one_N4[:, :2], other_N4[:, :2]), torch.min(one_N4[:, 2:], other_N4[:, 2:])
    shared_N = (high_N2 - low_N2).clamp(min=0).prod(-1)
    areas_N = sum((b[:, 2:] - b[:, :2]).clamp(min=0).prod(-1) for b in (one_N4, other_N4))
    whole_N = areas_N - shared_N
    hull_N2 = torch.max(one_N4[:, 2:], other_N4[:, 2:]) - torch.min(one_N4[:, :2], other_N4[:, :2])
    hull_N = hull_N2.clamp(min=1e-6).prod(-1)
    iou_N = shared_N / whole_N.clamp(min=1e-6)
    return iou_N, iou_N - (hull_N - whole_N) / hull_N
