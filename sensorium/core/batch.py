"""What enters the model, what encoders yield, what the model returns.

Shape legend: B rows, T tokens of a row, D width, N items laid end to end without
padding, V vocabulary, C channels, H/W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensorium.core.boxes import View
from sensorium.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Grid:
    """The layout of one item's features: `prefix` tokens (CLS, ...), then h rows of w."""

    h: int
    w: int
    prefix: int = 0

    @property
    def tokens(self) -> int:
        return self.prefix + self.h * self.w


@dataclass(frozen=True, slots=True)
class MediaShape:
    """Size of a medium before any preprocessing."""

    height_px: int
    width_px: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture's own size, and where it lies in the frame that coordinates refer to."""

    shape: MediaShape
    view: View


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How an encoder wants its pixels: data, not code. Pixel values are scaled to [0, 1]."""

    size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"


@dataclass(frozen=True, slots=True)
class TilePlan:
    """How one picture is laid out as encoder inputs and as tokens.

    `rows x cols` tiles follow the thumbnail, if any, in reading order. `picture` is the size of the picture centred on them, whose
    padding is cut from the merged map; None keeps all. `max_tiles` is the number of tiles' worth of tokens down to which a larger map is
    shrunk (LLaVA-OneVision's `anyres_max`). `newline` adds a token behind each row of the merged map, and behind a lone tile. `patches` is
    the layout of a picture that is not cut into tiles but goes in whole, at a size of its own: its patches are the encoder's inputs then.
    `pool` is the side of the squares of a lone tile's tokens that are averaged into one: no matter to encoder and feature store.
    """

    rows: int = 1
    cols: int = 1
    thumbnail: bool = False
    newline: bool = False
    picture: MediaShape | None = None
    max_tiles: int | None = None
    patches: Grid | None = None
    pool: int = field(default=1, repr=False)

    @property
    def images(self) -> int:
        """Number of tiles, each of which the encoder gives one item of features."""
        return self.rows * self.cols + (1 if self.thumbnail else 0)

    def window(self, tile: Grid) -> tuple[int, int, int, int]:
        """Rows and columns (top, bottom, left, right) of the merged map that are kept.

        LLaVA-NeXT's `unpad_image`: the picture's size on the map is rounded down, and half of
        what is left over, rounded down, is cut on both sides. So a strip so thin that it does not
        fill one row of an even map leaves no row; without a thumbnail one row is kept then.
        """
        height, width = self.rows * tile.h, self.cols * tile.w
        top = left = 0
        if self.picture is not None:
            # Tiles are squares of pixels; `squash` corrects for maps that are not. It is 1.0 for
            # all that are, so that floats round as in the reference.
            picture, squash = self.picture, tile.h / tile.w
            if picture.width_px / picture.height_px > self.cols / self.rows:
                kept = picture.height_px * (width / picture.width_px) * squash
                top = (height - int(round(kept, 7))) // 2
            else:
                kept = picture.width_px * (height / picture.height_px) / squash
                left = (width - int(round(kept, 7))) // 2
        bottom, right = height - top, width - left
        if not self.thumbnail:
            bottom, right = max(bottom, top + 1), max(right, left + 1)
        return top, bottom, left, right

    def map_size(self, tile: Grid) -> tuple[int, int]:
        """Rows and columns of the merged map after cutting and shrinking."""
        top, bottom, left, right = self.window(tile)
        height, width = bottom - top, right - left
        if self.max_tiles is not None:
            ratio = math.sqrt(height * width / (self.max_tiles * tile.h * tile.w))
            # A map that is larger by less than a tenth is left as it is.
            if ratio > 1.1:
                height, width = int(height // ratio), int(width // ratio)
        return height, width

    def num_tokens(self, tile: Grid) -> int:
        """Tokens of the whole picture when each tile (of a whole picture: it itself) yields `tile`.

        The processor expands placeholders by this number and the model packs features
        to it: there is no second formula.
        """
        if not self.thumbnail and self.rows * self.cols == 1:
            return tile.prefix + (tile.h // self.pool) * (tile.w // self.pool) + self.newline
        height, width = self.map_size(tile)
        return (tile.tokens if self.thumbnail else 0) + height * (width + self.newline)

    def token_map(self, tile: Grid) -> Grid:
        """The layout of the picture's tokens, for models that give each a place in two dimensions.

        Raises:
            ConfigError: they are not one map.
        """
        if self.thumbnail or self.newline or tile.prefix:
            raise ConfigError(
                "pictures whose tokens are not one map, for a language model with places in "
                "two dimensions (M-RoPE)",
                expected="resolution native or fixed, and features without a CLS token",
                where="model.lanes",
            )
        return Grid(*self.map_size(tile))


@dataclass(frozen=True, slots=True)
class Kept:
    """A picture as a feature store knows it: by a hash of its content and of all that is done to it before the
    encoder, and with its size then. `features` are those of its tiles, where they were found."""

    key: bytes
    shape: MediaShape
    plan: str
    """`repr` of the TilePlan that it was cut by."""
    features: Features | None = None


@dataclass(slots=True)
class MediaBatch:
    """Encoder inputs of one kind for a whole batch.

    `pixels_NCHW` is uint8: tiles of the encoder's size or, where pictures keep sizes of their own, the patches of all of them end to end, in
    reading order. Media that enter as clips have one row each: frames (N, clips, T, C, H, W), uint8, or floats of mel bands (N, clips, bands, rows).
    `plans` and `rows` (which row of the batch it stands in) have one entry for each medium, in slot order. `features`, where present, are the
    encoder's outputs computed earlier, and the pixels are not encoded again. `texts` are the token ids of
    what each is looked at for, where the projector reads it or, as words that end with `WORD_END`, the lane looks for them. `details_NCHW` are the same pictures
    for a lane's second encoder. `kept` is empty or has an entry for each picture: None where no store is to know
    it; a picture whose features were found there has no pixels in `pixels_NCHW`.
    """

    pixels_NCHW: Tensor
    plans: tuple[TilePlan, ...]
    rows: tuple[int, ...] = ()
    features: Features | None = None
    texts: tuple[tuple[int, ...], ...] = ()
    details_NCHW: Tensor | None = None
    kept: tuple[Kept | None, ...] = ()

    @property
    def patches(self) -> tuple[Grid, ...] | None:
        """The layout of each picture's patches; None: the encoder's inputs are tiles."""
        found = tuple(plan.patches for plan in self.plans if plan.patches is not None)
        return found if found and len(found) == len(self.plans) else None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A medium that an answer holds: where its signal tokens begin, and what is known of it."""

    kind: str
    start: int
    """Of its first signal token: in the Example, or in its row of the Batch."""
    count: int
    """Tokens that stand for it: its signals, and what lies between them."""
    caption: str
    """The text it goes with: that of its own message or, if there is none, of the one before."""
    medium: Any = None
    """The part's value: a path, bytes, an array; or what a stage's objective has it read as (`Processor.readers`), a tensor."""
    root: Path | None = None
    """Folder that a relative path starts from."""
    row: int = 0
    picture: Any = None
    """Of a mask, which `medium` then is as a `Mask`: the picture that it lies in, as its part has it. Of a picture: the last one in
    front of it, which it may be an edit of."""


Place3 = tuple[int, int, int]
"""Time, row and column of a token, as M-RoPE (Qwen2-VL) counts them."""


@dataclass(slots=True)
class Example:
    """A Sample made ready for one model: aligned lists of length T.

    `slots` maps a media kind to the positions that its features fill.
    """

    input_ids: list[int]
    learn: list[bool]
    slots: Mapping[str, list[int]] = field(default_factory=dict[str, list[int]])
    media: Mapping[str, MediaBatch] = field(default_factory=dict[str, MediaBatch])
    media_index: list[int] = field(default_factory=list[int])
    """Per token, the 1-based index of the most recent medium; 0 before the first."""
    id: str = ""
    truncated_tokens: int = 0
    branches: list[int] = field(default_factory=list[int])
    """Of separate turns, per token: 0 in the beginning that all pairs share, k in the rest of
    the k-th pair. Empty for an ordinary Sample."""
    places: list[Place3] = field(default_factory=list["Place3"])
    """Per token its time, row and column, for models with M-RoPE; empty for all others."""
    held: list[int] = field(default_factory=list[int])
    """The tokens that stand at the position of the one before, as places in the lists."""
    wanted: tuple[Wanted, ...] = ()
    """The media that its answers hold, in reading order."""
    seen: tuple[Seen, ...] = ()
    """The pictures that the model looks at, in reading order: an answer's places lie in them."""
    loss_weight: float = 1.0
    """What the loss of its tokens is multiplied by."""
    loss_count: float | None = None
    """Its share of one Sample, where losses count per sample or question; None: per token."""

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(slots=True)
class Batch:
    """Rows of one or more packed Examples.

    `segments_BT` numbers the Examples of a row from 1; 0 is padding. `packed` says
    whether any row holds more than one, or separate turns. `branches_BT` numbers these from 1;
    0 is what all tokens behind it in its Example see. `places_3BT` (M-RoPE: time, row, column) take
    the place of `positions_BT` in the LLM's rotation of queries and keys; masks go by the latter.
    `padded_left` says whether any row has padding in front.
    `loss_weights_BT` multiply the losses of tokens; None: all weigh 1. `loss_count` is what their sum
    is divided by; None: the number of learned tokens. `answers_only`: nobody looks at hidden states
    but those in front of learned tokens, and what an LLM returns elsewhere may be anything.
    `wanted` are the media that answers hold, in the order of their rows.
    """

    input_ids_BT: Tensor
    learn_BT: Tensor
    segments_BT: Tensor
    positions_BT: Tensor
    branches_BT: Tensor
    slots: Mapping[str, Tensor]
    media: Mapping[str, MediaBatch]
    media_index_BT: Tensor
    packed: bool
    ids: Sequence[str] = ()
    places_3BT: Tensor | None = None
    padded_left: bool = False
    loss_weights_BT: Tensor | None = None
    loss_count: int | None = None
    answers_only: bool = False
    wanted: tuple[Wanted, ...] = ()

    def in_front_of_learned(self) -> Tensor:
        """(B, T) True at tokens whose next one is learned."""
        before_BT = self.learn_BT.roll(-1, dims=1)
        before_BT[:, -1] = False
        return before_BT

    def last_positions(self) -> Tensor:
        """(B,) the position behind which an answer to each row goes on; rows end together."""
        if self.places_3BT is None:
            return self.positions_BT[:, -1]
        # A picture's last token is not the one that lies furthest.
        return self.places_3BT.amax(dim=(0, 2))


@dataclass(slots=True)
class Features:
    """What an encoder or projector yields: items laid end to end, without padding."""

    values_ND: Tensor
    grids: tuple[Grid, ...]

    @property
    def lengths(self) -> list[int]:
        return [grid.tokens for grid in self.grids]

    @property
    def dim(self) -> int:
        return int(self.values_ND.shape[-1])

    def uniform(self) -> Grid | None:
        """The grid that all items share, or None."""
        first = self.grids[0] if self.grids else None
        return first if all(grid == first for grid in self.grids) else None


@dataclass(slots=True)
class Output:
    """What the model returns: the LLM's last hidden states and the features it saw."""

    hidden_BTD: Tensor
    features: Mapping[str, Features]
