"""One video or sound -> its clips as one encoder input, or what a feature store has in its place.

Shape legend: S clips, T frames of a clip, C channels, H/W pixels, F mel bands, R rows.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.core.batch import Kept, MediaShape, TilePlan
from sensorium.core.clips import ClipsConfig, FrameClips, MelClips
from sensorium.core.errors import ConfigError, MediaError
from sensorium.core.parts import EncoderConfig
from sensorium.core.shelf import Shelf
from sensorium.media.image import WHITE, load_image
from sensorium.media.limits import ImageLimits
from sensorium.media.mel_clips import mel_clips
from sensorium.media.opened import Stored
from sensorium.media.video import clips_of
from sensorium.processing.pictures import Prepared

VERSION = 2
"""Counted up when a file of the same bytes and settings becomes other numbers."""
LONGEST = 64
"""How often a frame's shorter side goes into the longer one at most: the squares are cut out of what is scaled whole."""
NONE = MediaShape(0, 0)
"""Clips are all of one size, whatever they were cut from."""


class Clips:
    """Prepares media of one kind for one encoder."""

    def __init__(self, kind: str, encoder: EncoderConfig, limits: ImageLimits) -> None:
        self.kind = kind
        self.cut: ClipsConfig = encoder.clips()[kind]
        self.size_px = encoder.preprocess().size_px
        self.limits = limits
        done = {"version": VERSION, "kind": kind, "cut": self.cut.to_dict(), "preprocess": asdict(encoder.preprocess()), "limits": limits.to_dict()}
        self._mark = hashlib.sha256(json.dumps(done, sort_keys=True).encode()).digest()

    def prepare(self, source: Any, root: Path | None, shelf: Shelf | None) -> Prepared:
        """Decode and cut a medium; one whose features the shelf has is only read and hashed.

        Raises:
            MediaError: it cannot be read or decoded.
        """
        kept = self._known(source, root, shelf)
        if kept is not None and kept.features is not None:
            return self._prepared(torch.empty(0), kept)
        if isinstance(self.cut, FrameClips):
            clips = clips_of(source, self.cut, root=root, limits=self.limits)
            # (S, T, C, H, W) of each clip; pictures in a list may be of several sizes.
            cut = [torch.stack([self._squares(frame, self.cut.crops, root) for frame in frames], dim=1) for frames in clips]
            return self._prepared(torch.cat(cut)[None], kept)
        if isinstance(self.cut, MelClips):
            return self._prepared(torch.from_numpy(mel_clips(source, self.cut, root=root))[None], kept)
        raise ConfigError(f"no decoder for {self.kind} as {type(self.cut).__name__}", expected="FrameClips or MelClips")

    def measure(self, source: Any, root: Path | None) -> Prepared:
        """What `prepare` makes of a medium, without an encoder input: whatever is in it, it counts the same.

        Raises:
            MediaError: there is no such file.
        """
        if isinstance(source, str | Path):
            self._stored(source, root)
        return self._prepared(torch.empty(0), None)

    def _prepared(self, clips: Tensor, kept: Kept | None) -> Prepared:
        return Prepared(NONE, TilePlan(), clips, None, kept)

    def _squares(self, frame: Any, count: int, root: Path | None) -> Tensor:
        """Squares (S, C, H, W) of a frame whose shorter side is the encoder's (github.com/facebookresearch/ImageBind, imagebind/data.py)."""
        size = self.size_px
        pixels_HWC = load_image(frame, root=root, limits=self.limits, background=WHITE).pixels_HWC
        height, width = pixels_HWC.shape[:2]
        if max(height, width) > LONGEST * min(height, width):
            raise MediaError(f"a video whose frames are {width}x{height} pixels", expected=f"a side at most {LONGEST} times the other", where=self.kind)
        # Rounded as theirs: a side that divides may lose a pixel to the float.
        shape = (math.floor(height / width * size), size) if width < height else (size, math.floor(width / height * size))
        whole_1CHW = torch.from_numpy(np.ascontiguousarray(pixels_HWC)).permute(2, 0, 1)[None].float()
        scaled_CHW = F.interpolate(whole_1CHW, shape, mode="bilinear")[0].round().clamp(0, 255).to(torch.uint8)
        spare = max(shape) - size
        starts = [-(-spare * i // (count - 1)) if count > 1 else -(-spare // 2) for i in range(count)]
        return torch.stack([scaled_CHW.narrow(1 if width < height else 2, start, size) for start in starts])

    def _known(self, source: Any, root: Path | None, shelf: Shelf | None) -> Kept | None:
        """As of pictures; None for what is no file."""
        if shelf is None or not shelf.holds(self.kind) or not isinstance(source, str | Path | bytes):
            return None
        with self._stored(source, root).stream() as stream:
            # By pieces: a film is no picture, which fits into memory.
            key = hashlib.file_digest(stream, lambda: hashlib.sha256(self._mark)).digest()
        return shelf.find(self.kind, key) or Kept(key, NONE, repr(TilePlan()))

    def _stored(self, source: Any, root: Path | None) -> Stored:
        return Stored(source, root, "video" if self.kind == "video" else "audio", "")
