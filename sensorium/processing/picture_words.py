"""Pictures as rows of words: the tokens around and between a picture's codes, and pictures in what was written.

A picture is `before`, rows of codes that `row_end` closes where the model has such a token, and `behind`. This order is the
grammar of what is drawn, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from sensorium.core.batch import Grid, Preprocess
from sensorium.core.errors import ConfigError
from sensorium.core.parts import EncoderConfig, LaneShape, ResolutionConfig
from sensorium.core.picture_words import CODES, PictureWordsShape, code_words
from sensorium.media.limits import ImageLimits
from sensorium.processing.pictures import Pictures
from sensorium.text.tokenizer import Tokenizer

SIZE_MARKS = ("{h}", "{w}")


@dataclass(frozen=True, slots=True)
class Frame:
    """The tokens of one picture; None stands where a code does."""

    grid: Grid
    before: tuple[int, ...]
    body: tuple[int | None, ...]
    behind: tuple[int, ...]

    @property
    def tokens(self) -> tuple[int | None, ...]:
        return (*self.before, *self.body, *self.behind)

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class Written:
    """A picture among the tokens of an answer: from `start` up to `stop`, and its codes."""

    start: int
    stop: int
    grid: Grid
    codes: tuple[int, ...]


class WordFrames:
    """The frames of one model's pictures."""

    def __init__(self, shape: PictureWordsShape, tokenizer: Tokenizer, vocab_size: int, limits: ImageLimits) -> None:
        """Look the markers up.

        Raises:
            ConfigError: the tokenizer has no such token.
        """
        self.shape = shape
        self.grid: Grid = shape.tokenizer.grid()
        """Layout of the codes of a picture that is drawn when no size is asked for."""
        self.pictures = Pictures(CODES, cast(LaneShape, CodesLane.of(shape)), limits)
        self.words = code_words(shape, vocab_size)
        self._codes = {word: code for code, word in enumerate(self.words)}
        self._tokenizer = tokenizer
        self._row_end = None if shape.row_end is None else tokenizer.special_id(shape.row_end)
        self._behind = tuple(tokenizer.special_id(token) for token in shape.end)
        self.opening: int = tokenizer.special_id(shape.begin[0])
        """The token with which a picture begins."""

    def frame(self, grid: Grid | None = None) -> Frame:
        """The frame of a picture.

        Args:
            grid: layout of its codes; None: that of pictures that are drawn.
        """
        grid = grid or self.grid
        before: list[int] = []
        for token in self.shape.begin:
            if any(mark in token for mark in SIZE_MARKS):
                before += self._tokenizer.encode(token.replace("{h}", str(grid.h)).replace("{w}", str(grid.w)))
            else:
                before.append(self._tokenizer.special_id(token))
        close = () if self._row_end is None else (self._row_end,)
        return Frame(grid, tuple(before), ((*((None,) * grid.w), *close) * grid.h), self._behind)

    def sized(self, size_px: tuple[int, int] | None) -> Frame:
        """The frame of a picture of this height and width.

        Raises:
            ConfigError: the model draws one size alone, or sides that are no multiples of what a code stands for.
        """
        stride, own = self.shape.tokenizer.stride, (self.grid.h, self.grid.w)
        if size_px is None:
            return self.frame()
        height, width = size_px
        if height % stride or width % stride or not height or not width:
            raise ConfigError(f"a picture of {height}x{width} pixels", expected=f"sides that {stride} divides", where="size")
        grid = Grid(height // stride, width // stride)
        # Codes of a whole picture lie on no map of pixels.
        only = (1, 1) if self.shape.tokenizer.whole else own
        if self._row_end is None and (grid.h, grid.w) != only:
            raise ConfigError(f"a picture of {height}x{width} pixels by a model that draws one size", where="size",
                              expected=f"{only[0] * stride}x{only[1] * stride}", fix="leave size out")  # fmt: skip
        if self.shape.tokenizer.whole:
            return self.frame()
        return self.frame(grid)

    def is_code(self, token: int) -> bool:
        """Whether a token is the word of a code."""
        return token in self._codes

    def written(self, ids: Sequence[int]) -> list[Written]:
        """The whole pictures among an answer's tokens, in order; one that was cut off is none."""
        found: list[Written] = []
        place = 0
        while self.opening in ids[place:]:
            start = ids.index(self.opening, place)
            one = self._at(ids, start)
            found += [one] if one else []
            place = one.stop if one else start + 1
        return found

    def _at(self, ids: Sequence[int], start: int) -> Written | None:
        """The picture that begins at a place, if a whole one does."""
        first = next((i for i in range(start, len(ids)) if ids[i] in self._codes), len(ids))
        stop = first
        while stop < len(ids) and (ids[stop] in self._codes or ids[stop] == self._row_end):
            stop += 1
        codes = tuple(self._codes[i] for i in ids[first:stop] if i in self._codes)
        rows = sum(i == self._row_end for i in ids[first:stop]) if self._row_end is not None else self.grid.h
        if not codes or not rows or len(codes) % rows:
            return None
        frame = self.frame(Grid(rows, len(codes) // rows))
        there = tuple(None if i in self._codes else i for i in ids[start : start + len(frame)])
        return Written(start, start + len(frame), frame.grid, codes) if there == frame.tokens else None


class CodesEye(EncoderConfig):
    """What a picture tokenizer wants of a picture, in the words of an encoder."""

    kind: Literal["codes"] = "codes"
    size_px: int
    stride: int
    interpolation: str
    row: int | None = None
    """Codes of a picture, where they lie on no map."""

    def preprocess(self) -> Preprocess:
        return Preprocess(self.size_px, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation=self.interpolation)

    def grid(self) -> Grid:
        return Grid(1, self.row) if self.row else Grid(self.size_px // self.stride, self.size_px // self.stride)


@dataclass(frozen=True, slots=True)
class CodesLane:
    """What preparing a picture asks of a lane; it has no projector, because nothing is projected."""

    encoder: CodesEye
    resolution: ResolutionConfig
    detail: None = None
    fast_decode: bool = False

    @classmethod
    def of(cls, shape: PictureWordsShape) -> CodesLane:
        tokenizer = shape.tokenizer
        eye = CodesEye(size_px=tokenizer.size_px, stride=tokenizer.stride, interpolation=shape.interpolation,
                       row=tokenizer.grid().tokens if tokenizer.whole else None)  # fmt: skip
        return cls(eye, shape.resolution)

    def tile_grid(self, patches: Grid | None = None) -> Grid:
        return patches or self.encoder.grid()
