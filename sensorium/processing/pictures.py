"""One picture -> encoder inputs, or what a feature store has in their place.

Shape legend: N encoder inputs, H/W pixels, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensorium.core.batch import Grid, Kept, MediaShape, TilePlan
from sensorium.core.parts import LaneShape
from sensorium.core.shelf import Shelf
from sensorium.media.augment import (
    Augmentation,
    augment_image,
    augmented_shape,
    random_background,
)
from sensorium.media.header import image_shape
from sensorium.media.image import BLACK, WHITE, Encoded, Image, load_image, read_encoded
from sensorium.media.limits import ImageLimits
from sensorium.processing.picture_key import lane_mark, layout_key, picture_key, view_mark

PARTS = (8, 4)
"""What JPEG decoders can divide a picture's sides by, beside 2."""
SPARE = 2
"""How much larger than what is seen a picture must be left then: a half saves most of the time, smaller parts little more."""


@dataclass(frozen=True, slots=True)
class View:
    """How a picture is looked at: one of so many in its Sample, augmented or not, unmoved where the Sample
    says where things are, and with fewer tokens where it is a frame."""

    augmentation: Augmentation | None
    still: bool
    count: int
    pool: int = 1


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture's size, layout and encoder inputs (N, C, H, W): none of them where its features were found."""

    shape: MediaShape
    plan: TilePlan
    pixels_NCHW: Tensor
    details_NCHW: Tensor | None
    kept: Kept | None


class Pictures:
    """Prepares pictures for one lane."""

    def __init__(self, kind: str, lane: LaneShape, limits: ImageLimits) -> None:
        self.kind = kind
        self.lane = lane
        self.limits = limits
        self._tile: Grid = lane.tile_grid()
        self._mark = lane_mark(lane, limits)

    def prepare(self, source: Any, root: Path | None, view: View, shelf: Shelf | None) -> Prepared:
        """Decode, augment and cut a picture; one whose features the shelf has is only read and hashed.

        Raises:
            MediaError: it cannot be read or decoded.
        """
        lane = self.lane
        content: Any = read_encoded(source, root=root, limits=self.limits) or source
        kept = self._known(content, view, shelf)
        if kept is not None and kept.features is not None:
            none_NCHW = torch.empty((0, 3, 1, 1), dtype=torch.uint8)
            return Prepared(kept.shape, self._plan(kept.shape, view), none_NCHW, None, kept)
        image = self._picture(content, view)
        plan = self._plan(image.shape, view)
        pixels_NCHW = _channels_first(lane.resolution.cut(image, plan, lane.encoder.preprocess()))
        details_NCHW = None
        if lane.detail is not None:
            details_NCHW = _channels_first(lane.resolution.cut(image, plan, lane.detail.preprocess()))
        if kept is not None:
            kept = Kept(kept.key, image.shape, repr(plan))
        return Prepared(image.shape, plan, pixels_NCHW, details_NCHW, kept)

    def measure(self, source: Any, root: Path | None, view: View) -> Prepared:
        """What `prepare` makes of a picture, without encoder inputs: its size is read from its header.

        Raises:
            MediaError: it cannot be read, or its header is damaged.
        """
        augmentation = view.augmentation
        if augmentation:
            # Drawn first in `prepare`, too.
            random_background(augmentation.rng)
        shape = image_shape(source, root=root, limits=self.limits)
        shape = augmented_shape(shape, augmentation, still=view.still) if augmentation else shape
        none_NCHW = torch.empty((0, 3, 1, 1), dtype=torch.uint8)
        return Prepared(shape, self._plan(shape, view), none_NCHW, None, None)

    def _plan(self, shape: MediaShape, view: View) -> TilePlan:
        size_px = self.lane.encoder.preprocess().size_px
        plan = self.lane.resolution.plan(shape, size_px, self._tile, view.count)
        return plan if view.pool == 1 else replace(plan, pool=view.pool)

    def _picture(self, content: Any, view: View) -> Image:
        augmentation = view.augmentation
        background = random_background(augmentation.rng) if augmentation else WHITE
        fast = self.lane.fast_decode and not augmentation
        divisor = partial(self._divisor, view) if fast else None
        image = load_image(content, limits=self.limits, background=background, divisor=divisor)
        return augment_image(image, augmentation, still=view.still) if augmentation else image

    def _divisor(self, view: View, shape: MediaShape) -> int:
        """By what the sides of a picture can be divided before it is smaller than what any encoder sees of it."""
        lane, plan = self.lane, self._plan(shape, view)
        encoders = (lane.encoder, lane.detail) if lane.detail is not None else (lane.encoder,)
        scale = max(lane.resolution.scale(shape, plan, encoder.preprocess().size_px) for encoder in encoders)
        if 2 * scale > 1:
            return 1
        return next((parts for parts in PARTS if SPARE * parts * scale <= 1), 2)

    def _known(self, content: Any, view: View, shelf: Shelf | None) -> Kept | None:
        """What the shelf has of a picture: its entry, or one without features under which it is to be kept;
        None where no store is to know it."""
        augmentation = view.augmentation
        if shelf is None or not shelf.holds(self.kind) or (augmentation and augmentation.seed is None):
            return None
        if not isinstance(content, Encoded):
            # What shows on white and on black shows what is transparent, too.
            grounds = (WHITE, BLACK) if augmentation else (WHITE,)
            content = tuple(load_image(content, limits=self.limits, background=g) for g in grounds)
        key = picture_key(self._mark, view_mark(augmentation, still=view.still), content)
        found = shelf.find(self.kind, key)
        if found is not None:
            plan = repr(self._plan(found.shape, view))
            if found.plan == plan:
                return found
            # Among other pictures, or before a projector whose tokens cost more, its tiles are others.
            key = layout_key(key, plan)
            found = shelf.find(self.kind, key)
        return found or Kept(key, MediaShape(0, 0), "")


def _channels_first(inputs_NHWC: np.ndarray) -> Tensor:
    return torch.from_numpy(inputs_NHWC).permute(0, 3, 1, 2)
