"""A video as some of its frames, each of them a picture that is decoded when it is asked for.

A video is a list of pictures (frames that were taken out before, as Emu's authors hand out storyboards and SEED's feed their tokenizer), an
array of frames, an animated picture, or a video file. Pillow reads animations, PyAV (extra `video`) the files (`media/opened.py`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from PIL import ImageSequence, UnidentifiedImageError

from sensorium.core.batch import MediaShape
from sensorium.core.clips import FrameClips
from sensorium.core.errors import MediaError
from sensorium.core.video import PickName
from sensorium.media.image import (
    FORMATS,
    Image,
    Later,
    check_size,
    damage_named,
    load_image,
)
from sensorium.media.limits import ImageLimits
from sensorium.media.opened import Opened, Stored

SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ogv", ".flv")
"""By which a file is known as a video before it is opened."""
MOST_FRAMES = 100_000
"""An hour at 25 a second. Frames in front of the last one that is wanted are decoded, too."""


def _segments(count: int, frames: int) -> list[int]:
    """As many as are asked for, some of them twice where there are fewer (github.com/baaivision/Emu, Emu1/utils.py)."""
    size = (count - 1) / frames
    return [int(size / 2) + round(size * i) for i in range(frames)]


def _middles(count: int, frames: int) -> list[int]:
    """The middle of each of equal parts, or all (github.com/AILab-CVC/SEED, MultiModalLLM/src/data/torchdata_eval.py, `uniform`)."""
    parts = min(count, frames)
    edges = [i * count // parts for i in range(parts + 1)]
    return [(first + last - 1) // 2 for first, last in pairwise(edges)]


PICKS: dict[PickName, Callable[[int, int], list[int]]] = {"segments": _segments, "middles": _middles}


def frames_of(source: Any, frames: int, pick: PickName, *, root: Path | None, limits: ImageLimits) -> list[Any]:
    """What `load_image` takes, for each frame that is looked at.

    Args:
        source: a path (relative ones start from `root`), the bytes of a file, pictures, an array (F, H, W, 3), or what has one as `array`.
        frames: so many are looked at; of pictures that are no more, all.
        pick: which of them.

    Raises:
        MediaError: it is no video, has no frame, or too many.
    """
    found = _video(source, root, limits)
    if not isinstance(found, Clip):
        return [found[i] for i in PICKS[pick](len(found), frames)] if len(found) > frames else list(found)
    return found.frames(PICKS[pick](found.count, frames))


def paced_frames(source: Any, frames: int, fps: float, *, root: Path | None, limits: ImageLimits) -> list[Any]:
    """What `load_image` takes, for the first frames at a pace, the very first among them; fewer where the video is shorter.

    Args:
        source: as of `frames_of`. Of pictures and arrays that do not say how fast they are (`fps`), each frame is one of the pace.
        frames: at most so many.
        fps: so many of each second.

    Raises:
        MediaError: it is no video, has no frame, or too many.
    """
    found = _video(source, root, limits)
    own = found.fps if isinstance(found, Clip) else getattr(source, "fps", None)
    stride = 1 if own is None else max(1, round(own / fps))
    numbers = range(0, found.count if isinstance(found, Clip) else len(found), stride)[:frames]
    return found.frames(numbers) if isinstance(found, Clip) else [found[i] for i in numbers]


def clips_of(source: Any, clips: FrameClips, *, root: Path | None, limits: ImageLimits) -> list[list[Any]]:
    """What `load_image` takes, for the frames of each clip (github.com/facebookresearch/pytorchvideo, data/encoded_video_decord.py).

    Args:
        source: as of `frames_of`. Of pictures and arrays that do not say how fast they are (`fps`), each frame is a second.

    Raises:
        MediaError: it is no video, has no frame, or too many.
    """
    found = _video(source, root, limits)
    count = found.count if isinstance(found, Clip) else len(found)
    fps = (found.fps if isinstance(found, Clip) else getattr(source, "fps", None)) or 1.0
    chosen: list[list[int]] = []
    for start in clips.starts(count / fps):
        first = min(math.ceil(fps * start), count - 1)
        more = max(min(math.ceil(fps * (start + clips.seconds)), count) - 1 - first, 0)
        chosen.append([first + int(more * i / max(clips.frames - 1, 1)) for i in range(clips.frames)])
    if not isinstance(found, Clip):
        return [[found[i] for i in numbers] for numbers in chosen]
    frames = {one.number: one for one in found.frames(sorted({i for numbers in chosen for i in numbers}))}
    return [[frames[i] for i in numbers] for numbers in chosen]


def _video(source: Any, root: Path | None, limits: ImageLimits) -> Sequence[Any] | Clip:
    """Pictures, or what they are decoded from."""
    source = getattr(source, "array", source)
    if isinstance(source, np.ndarray):
        source = list(source) if source.ndim == 4 else [source]
    if isinstance(source, list | tuple):
        if not source:
            raise MediaError("a video without frames", expected="at least one picture")
        return source
    return Clip(source, root, limits)


@dataclass(frozen=True, slots=True, eq=False)
class Frame(Later):
    """One of a clip's frames."""

    clip: Clip
    number: int

    def image(self, limits: ImageLimits, background: tuple[int, int, int]) -> Image:
        return self.clip.image(self.number, background)

    def shape(self) -> MediaShape:
        return self.clip.shape


class Clip:
    """An animation or a video file; its wanted frames are decoded together, when the first of them is asked for."""

    def __init__(self, source: Any, root: Path | None, limits: ImageLimits) -> None:
        """Look at how many frames there are, and how large they are.

        Raises:
            MediaError: it is no video, or one without frames, or with too many.
        """
        self._stored = Stored(source, root, "video", "a list of pictures or an array")
        self.where, self.limits = self._stored.where, limits
        self.wanted: tuple[int, ...] = ()
        self._images: dict[tuple[int, tuple[int, int, int]], Image] = {}
        self.fps: float | None = None
        """Frames of a second, where that is known."""
        self._moves, self.count, self.shape = self._header()
        if not 0 < self.count <= MOST_FRAMES:
            raise MediaError(f"a video of {self.count:,} frames", expected=f"1 to {MOST_FRAMES:,}", where=self.where, fix="cut it into parts")
        check_size((self.shape.width_px, self.shape.height_px), limits, self.where)

    def frames(self, numbers: Sequence[int]) -> list[Frame]:
        """Those of these numbers."""
        self.wanted = tuple(numbers)
        return [Frame(self, number) for number in self.wanted]

    def image(self, number: int, background: tuple[int, int, int]) -> Image:
        """A frame on a background, if it is transparent.

        Raises:
            MediaError: it cannot be decoded.
        """
        if (number, background) not in self._images:
            decoded = self._pillow() if self._moves else self._pyav()
            last = max(self.wanted)
            for at, frame in enumerate(decoded):
                if at in self.wanted:
                    self._images[at, background] = load_image(frame, limits=self.limits, background=background)
                if at == last:
                    break
        if (number, background) not in self._images:
            raise MediaError(f"frame {number + 1} of {self.count} is not there", where=self.where, fix="the file may be cut off")
        return self._images[number, background]

    def _header(self) -> tuple[bool, int, MediaShape]:
        """Whether Pillow reads it, how many frames it has, and their size."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PILImage.DecompressionBombWarning)
            try:
                with PILImage.open(self._stored.stream(), formats=FORMATS) as picture:
                    count, shape = getattr(picture, "n_frames", 1), MediaShape(picture.height, picture.width)
                    if count > 1 and "duration" not in picture.info:
                        # WebP says how long a frame is shown when it is decoded.
                        check_size(picture.size, self.limits, self.where)
                        picture.load()
                    shown_ms = picture.info.get("duration")
                    self.fps = 1000 / shown_ms if isinstance(shown_ms, int | float) and shown_ms > 0 else None
                    return True, count, shape
            except UnidentifiedImageError:
                pass
            except MediaError:
                raise
            except Exception as error:
                raise MediaError(f"damaged animation: {error}", where=self.where) from None
        with Opened(self._stored, "video") as (container, stream):
            # What a header says of their number may be nothing, or wrong.
            self.fps = float(stream.average_rate) if stream.average_rate else None
            # Those in front of where a video was cut are there, and are not shown.
            count = sum(1 for packet in container.demux(stream) if packet.size and not packet.is_discard)
        frames = self._pyav()
        first_HWC = next(frames, None)
        frames.close()
        return False, 0 if first_HWC is None else count, MediaShape(*(0, 0) if first_HWC is None else first_HWC.shape[:2])

    def _pillow(self) -> Iterator[PILImage.Image]:
        with damage_named(self.where, self.limits), PILImage.open(self._stored.stream(), formats=FORMATS) as picture:
            yield from ImageSequence.Iterator(picture)

    def _pyav(self) -> Generator[NDArray[np.uint8]]:
        with Opened(self._stored, "video") as (container, stream):
            for frame in container.decode(stream):
                check_size((frame.width, frame.height), self.limits, self.where)
                yield _upright(frame.to_ndarray(format="rgb24"), frame.rotation)


def _upright(frame_HWC: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """A frame as players show it, who heed how the camera was held."""
    quarters = 0 if not math.isfinite(degrees) else round(degrees / 90) % 4
    return np.ascontiguousarray(np.rot90(frame_HWC, quarters)) if quarters else frame_HWC

