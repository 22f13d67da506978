"""Bytes -> RGB image: the one place where untrusted pictures are decoded.

Only the formats in `FORMATS` are tried, the size in the header is checked before any
pixel is decoded, EXIF rotation is applied, transparency is laid over a background,
16-bit is scaled to 8, and of an animation the first frame is taken. On request a JPEG file is decoded at a half,
a quarter or an eighth of its size, which takes fewer cosines for each block (libjpeg's `scale_num`).
"""

from __future__ import annotations

import io
import stat
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, ImageOps, UnidentifiedImageError
from PIL import Image as PILImage

from sensorium.core.batch import MediaShape
from sensorium.core.errors import MediaError, SensoriumError
from sensorium.core.hashing import sha256_bytes
from sensorium.media.limits import ImageLimits

FORMATS: tuple[str, ...] = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
WHITE: tuple[int, int, int] = (255, 255, 255)
BLACK: tuple[int, int, int] = (0, 0, 0)
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap height and width."""
# Those after which what was on the right lies on the left, or what was below lies above.
TO_THE_LEFT, TO_THE_TOP = (2, 3, 6, 7), (3, 4, 7, 8)
Divisor = Callable[[MediaShape], int]
"""By what the sides of a picture of this size may be divided while it is decoded: 1, 2, 4 or 8."""
# Recipes have no key for the limits: encoders see a few hundred pixels a side.
SHRINK = "make the picture smaller; Python code may pass wider `limits` to load_image or Processor"


@dataclass(frozen=True, slots=True)
class Shrunk:
    """Of a picture that was decoded at a part of its size."""

    whole: MediaShape
    """Its own size."""
    box: tuple[float, float, float, float]
    """What of the pixels it covers: left, top, right, bottom. Of the last block a part may lie beyond its edge."""


@dataclass(frozen=True, slots=True)
class Image:
    """A decoded picture: `pixels_HWC` is uint8 RGB, upright, opaque."""

    pixels_HWC: NDArray[np.uint8]
    shrunk: Shrunk | None = None

    @property
    def shape(self) -> MediaShape:
        """The picture's own size, at whatever part of it it was decoded."""
        if self.shrunk is not None:
            return self.shrunk.whole
        return MediaShape(height_px=self.pixels_HWC.shape[0], width_px=self.pixels_HWC.shape[1])

    def to_pil(self) -> PILImage.Image:
        return PILImage.fromarray(self.pixels_HWC, "RGB")

    def resized(self, height: int, width: int, resampling: PILImage.Resampling) -> PILImage.Image:
        """The whole picture at another size."""
        return self.to_pil().resize((width, height), resampling, box=self.shrunk.box if self.shrunk else None)

    def digest(self) -> str:
        """Content hash of the decoded pixels."""
        height, width, _ = self.pixels_HWC.shape
        return sha256_bytes(f"{height}x{width}".encode() + self.pixels_HWC.tobytes())


class Later(ABC):
    """A picture that is decoded when it is asked for: a frame of a video."""

    @abstractmethod
    def image(self, limits: ImageLimits, background: tuple[int, int, int]) -> Image: ...

    @abstractmethod
    def shape(self) -> MediaShape: ...


@dataclass(frozen=True, slots=True)
class Encoded:
    """A picture's file, read and not decoded yet; `where` names it in errors."""

    content: bytes
    where: str


def read_encoded(source: Any, *, root: Path | None, limits: ImageLimits) -> Encoded | None:
    """The encoded bytes of a path or of bytes; None of what is decoded already.

    Raises:
        MediaError: the file cannot be read.
    """
    if isinstance(source, str | Path):
        path = resolve_path(Path(source), root)
        return Encoded(_read(path, limits), repr(str(path))[1:-1])
    if isinstance(source, bytes | bytearray | memoryview):
        return Encoded(bytes(source), "image bytes")
    return None


def load_image(
    source: Any,
    *,
    root: Path | None = None,
    limits: ImageLimits | None = None,
    background: tuple[int, int, int] = WHITE,
    divisor: Divisor | None = None,
) -> Image:
    """Turn a path, bytes, a PIL image or an array into an Image.

    Args:
        source: path (relative ones start from `root`), encoded bytes, PIL image, or an
            array of shape (H, W), (H, W, 3) or (H, W, 4); float arrays are in [0, 1].
        background: what shows through transparent pixels.
        divisor: asked of encoded JPEG pictures; None: all are decoded whole.

    Raises:
        MediaError: naming the source and what is wrong with it.
    """
    limits = limits or ImageLimits()
    if isinstance(source, Image):
        return source
    if isinstance(source, Later):
        return source.image(limits, background)
    encoded = source if isinstance(source, Encoded) else read_encoded(source, root=root, limits=limits)
    if encoded is not None:
        return _decode(encoded, limits, background, divisor)
    if isinstance(source, PILImage.Image):
        check_size(source.size, limits, "PIL image")
        with damage_named("PIL image", limits):
            # Pillow reads the pixels of an opened file only now.
            return _to_rgb(source, background)
    if isinstance(source, np.ndarray):
        return _from_array(source, limits, background)
    raise MediaError(
        f"image is a {type(source).__name__}", expected="a path, bytes, a PIL image or an array"
    )


def resolve_path(path: Path, root: Path | None) -> Path:
    """The file that a data row means: absolute paths as they are, relative ones inside
    `root`, out of which they may not climb."""
    if "\0" in str(path):
        raise MediaError("path holds a null character", where=repr(str(path)))
    if root is None or path.is_absolute():
        return path
    full = root / path
    try:
        home = _real(root)
        # Of a file in a folder that was looked at before only its own name can lead elsewhere.
        here = full.resolve() if path.name in ("", "..") or full.is_symlink() else _real(full.parent)
        inside = here.is_relative_to(home)
    except (OSError, RuntimeError, ValueError) as error:
        # Loops of links, and names that no file system takes.
        raise MediaError(f"path is not usable: {error}", where=ascii(str(path))) from None
    if not inside:
        raise MediaError("path leads out of the data folder", where=str(path))
    return full


@lru_cache(maxsize=4096)
def _real(folder: Path) -> Path:
    return folder.resolve()


def _read(path: Path, limits: ImageLimits) -> bytes:
    try:
        # A device or a pipe has no end and may never answer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise MediaError("not a regular file", where=str(path))
        with path.open("rb") as stream:
            content = stream.read(limits.max_bytes + 1)
        if len(content) > limits.max_bytes:
            raise MediaError(
                f"file has more than {limits.max_bytes:,} bytes", where=str(path), fix=SHRINK
            )
        return content
    except FileNotFoundError:
        raise MediaError("no such file", where=str(path)) from None
    except UnicodeEncodeError:
        raise MediaError("path is not valid text", where=repr(str(path))) from None
    except OSError as error:
        raise MediaError(f"not readable: {error.strerror}", where=str(path)) from None


def _decode(
    encoded: Encoded, limits: ImageLimits, background: tuple[int, int, int], divisor: Divisor | None
) -> Image:
    content, where = encoded.content, encoded.where
    if not content:
        raise MediaError("the file is empty (0 bytes)", where=where)
    with damage_named(where, limits):
        with warnings.catch_warnings():
            # Pillow's own bomb warning has one fixed limit; ours is checked below.
            warnings.simplefilter("ignore", PILImage.DecompressionBombWarning)
            picture = PILImage.open(io.BytesIO(content), formats=FORMATS)
            check_size(picture.size, limits, where)
            shrunk = _shrink(picture, divisor) if divisor and picture.format == "JPEG" else None
            picture.load()
        image = _to_rgb(picture, background)
    return image if shrunk is None else Image(image.pixels_HWC, shrunk)


def _shrink(picture: PILImage.Image, divisor: Divisor) -> Shrunk | None:
    """Let a JPEG picture be decoded at a part of its size; None: it will be decoded whole."""
    turn = picture.getexif().get(ExifTags.Base.Orientation)
    width, height = picture.size
    whole = MediaShape(width, height) if turn in SIDEWAYS else MediaShape(height, width)
    parts = divisor(whole)
    told = picture.draft(picture.mode, (max(1, width // parts), max(1, height // parts))) if parts > 1 else None
    if told is None or picture.size == (width, height):
        return None
    # Pixels of blocks that lie partly beyond the right and lower edge, which the file's turn may move.
    covered, decoded = told[1][2:], picture.size
    if turn in SIDEWAYS:
        covered, decoded = covered[::-1], decoded[::-1]
    left = decoded[0] - covered[0] if turn in TO_THE_LEFT else 0.0
    top = decoded[1] - covered[1] if turn in TO_THE_TOP else 0.0
    return Shrunk(whole, (left, top, left + covered[0], top + covered[1]))


@contextmanager
def damage_named(where: str, limits: ImageLimits) -> Generator[None]:
    """Whatever Pillow raises while it decodes becomes a MediaError."""
    try:
        yield
    except UnidentifiedImageError:
        raise MediaError(
            "not a picture in a known format", expected=", ".join(FORMATS), where=where
        ) from None
    except PILImage.DecompressionBombError:
        # Pillow's limit, which wider limits of ours do not move.
        most = min(limits.max_pixels, 2 * (PILImage.MAX_IMAGE_PIXELS or limits.max_pixels))
        raise MediaError(
            "the header announces too many pixels", expected=f"at most {most:,}", where=where,
            fix="make the picture smaller",
        ) from None  # fmt: skip
    except MemoryError:
        raise MediaError("decoding needs more memory than there is", where=where) from None
    except SensoriumError:
        raise
    except Exception as error:
        # The one place where untrusted bytes are decoded: Pillow's plugins raise OSError,
        # SyntaxError, struct.error and more on damaged files, and none may stop a run.
        raise MediaError(f"damaged picture: {error}", where=where) from None


def check_size(size: tuple[int, int], limits: ImageLimits, where: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise MediaError(f"picture is {width}x{height} pixels", where=where)
    if width * height > limits.max_pixels or max(width, height) > limits.max_side_px:
        raise MediaError(
            f"picture is {width}x{height} = {width * height:,} pixels",
            expected=f"at most {limits.max_pixels:,} pixels and {limits.max_side_px:,} a side",
            where=where,
            fix=SHRINK,
        )


def _to_rgb(picture: PILImage.Image, background: tuple[int, int, int]) -> Image:
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        picture = _scale_to_8_bit(picture)
    has_alpha = picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info
    if has_alpha:
        rgba = picture.convert("RGBA")
        canvas = PILImage.new("RGBA", rgba.size, (*background, 255))
        picture = PILImage.alpha_composite(canvas, rgba)
    return Image(np.asarray(picture.convert("RGB"), dtype=np.uint8).copy())


def _scale_to_8_bit(picture: PILImage.Image) -> PILImage.Image:
    """Map deep greys to 0..255: 16-bit by its full range, others by what they hold."""
    values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
    if picture.mode.startswith("I;16") or (values.min() >= 0 and 255 < values.max() <= 65535):
        low, high = 0.0, 65535.0
    elif picture.mode == "F" and values.min() >= 0 and values.max() <= 1:
        low, high = 0.0, 1.0
    else:
        low, high = min(0.0, float(values.min())), max(255.0, float(values.max()))
    scaled = (values - low) * (255.0 / (high - low))
    return PILImage.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8), "L")


def _from_array(
    array: NDArray[Any], limits: ImageLimits, background: tuple[int, int, int]
) -> Image:
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)):
        raise MediaError(
            f"image array has shape {array.shape}", expected="(H, W), (H, W, 3) or (H, W, 4)"
        )
    if array.size == 0:
        raise MediaError(f"image array has shape {array.shape}", expected="at least one pixel")
    check_size((array.shape[1], array.shape[0]), limits, "image array")
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise MediaError("float image array has values outside [0, 1]")
        array = np.rint(array * 255)
    elif array.dtype != np.uint8:
        raise MediaError(f"image array is {array.dtype}", expected="uint8, or float in [0, 1]")
    return _to_rgb(PILImage.fromarray(array.astype(np.uint8)), background)
