"""A video as some of its frames, each of them a picture that is decoded when it is asked for.

A video is a list of pictures (frames that were taken out before, as Emu's authors hand out storyboards and SEED's feed their tokenizer), an
array of frames, an animated picture, or a video file. Pillow reads animations, PyAV (extra `video`) the files: of formats in `FILES`
alone, for some others (playlists) name further files or addresses.
"""

from __future__ import annotations

import io
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
from sensorium.core.errors import MediaError, SensoriumError
from sensorium.core.video import PickName
from sensorium.media.image import (
    FORMATS,
    Image,
    Later,
    check_size,
    damage_named,
    load_image,
    resolve_path,
)
from sensorium.media.limits import ImageLimits

FILES = ("mov", "matroska", "avi", "mpegts", "mpeg", "ogg", "flv")
"""By the names of FFmpeg's readers: MP4, WebM and the like among them."""
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
    source = getattr(source, "array", source)
    if isinstance(source, np.ndarray):
        source = list(source) if source.ndim == 4 else [source]
    if isinstance(source, list | tuple):
        pictures: Sequence[Any] = source
        if not pictures:
            raise MediaError("a video without frames", expected="at least one picture")
        return [pictures[i] for i in PICKS[pick](len(pictures), frames)] if len(pictures) > frames else list(pictures)
    clip = Clip(source, root, limits)
    clip.wanted = tuple(PICKS[pick](clip.count, frames))
    return [Frame(clip, number) for number in clip.wanted]


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
        if not isinstance(source, str | Path | bytes | bytearray | memoryview):
            raise MediaError(f"video is a {type(source).__name__}", expected="a path, bytes, a list of pictures or an array")
        self.where, self.limits = "video bytes", limits
        self.source: Any = source
        if isinstance(source, str | Path):
            self.source = resolve_path(Path(source), root)
            self.where = repr(str(self.source))[1:-1]
            if not self.source.is_file():
                raise MediaError("no such file", where=self.where)
        self.wanted: tuple[int, ...] = ()
        self._images: dict[tuple[int, tuple[int, int, int]], Image] = {}
        self._moves, self.count, self.shape = self._header()
        if not 0 < self.count <= MOST_FRAMES:
            raise MediaError(f"a video of {self.count:,} frames", expected=f"1 to {MOST_FRAMES:,}", where=self.where, fix="cut it into parts")
        check_size((self.shape.width_px, self.shape.height_px), limits, self.where)

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
                with PILImage.open(self._stream(), formats=FORMATS) as picture:
                    return True, getattr(picture, "n_frames", 1), MediaShape(picture.height, picture.width)
            except UnidentifiedImageError:
                pass
            except Exception as error:
                raise MediaError(f"damaged animation: {error}", where=self.where) from None
        with self._opened() as (container, stream):
            # What a header says of their number may be nothing, or wrong.
            count = sum(1 for packet in container.demux(stream) if packet.size)
        frames = self._pyav()
        first_HWC = next(frames, None)
        frames.close()
        return False, 0 if first_HWC is None else count, MediaShape(*(0, 0) if first_HWC is None else first_HWC.shape[:2])

    def _stream(self) -> Any:
        return self.source.open("rb") if isinstance(self.source, Path) else io.BytesIO(self.source)

    def _opened(self) -> _Opened:
        return _Opened(self._stream(), self.where)

    def _pillow(self) -> Iterator[PILImage.Image]:
        with damage_named(self.where, self.limits), PILImage.open(self._stream(), formats=FORMATS) as picture:
            yield from ImageSequence.Iterator(picture)

    def _pyav(self) -> Generator[NDArray[np.uint8]]:
        with self._opened() as (container, stream):
            for frame in container.decode(stream):
                check_size((frame.width, frame.height), self.limits, self.where)
                yield _upright(frame.to_ndarray(format="rgb24"), frame.rotation)


class _Opened:
    """A video file's container and first video stream, in which whatever FFmpeg finds wrong becomes a MediaError."""

    def __init__(self, stream: Any, where: str) -> None:
        self.stream, self.where = stream, where
        self.container: Any = None

    def __enter__(self) -> tuple[Any, Any]:
        try:
            import av
        except ImportError:
            raise MediaError("reading a video file needs PyAV", where=self.where,
                             fix="pip install -e '.[video]' in the clone, or give the video as a list of pictures") from None  # fmt: skip
        try:
            # Opened here and not by name, which FFmpeg might take for an address.
            self.container = av.open(self.stream, options={"format_whitelist": ",".join(FILES)}, metadata_errors="ignore")
            streams = self.container.streams.video
            if not streams:
                raise MediaError("a file without a video stream", where=self.where)
            return self.container, streams[0]
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self.container is not None:
            self.container.close()
        self.stream.close()
        # Untrusted bytes: FFmpeg's errors are of many kinds, and none may stop a run.
        if isinstance(error, Exception) and not isinstance(error, SensoriumError):
            raise MediaError(f"damaged video, or of an unknown format: {error}", where=self.where) from None


def _upright(frame_HWC: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """A frame as players show it, who heed how the camera was held."""
    quarters = 0 if not math.isfinite(degrees) else round(degrees / 90) % 4
    return np.ascontiguousarray(np.rot90(frame_HWC, quarters)) if quarters else frame_HWC

