"""The size of a picture as `load_image` would give it, from its header alone.

What the header cannot say for sure is decoded: rare formats, and PNG files with notes behind their
pixels, one of which may turn the picture.
"""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import Any, BinaryIO

from PIL import ExifTags, ImageFile
from PIL import Image as PILImage

from sensorium.core.batch import MediaShape
from sensorium.core.errors import MediaError
from sensorium.media.image import (
    FORMATS,
    SIDEWAYS,
    Image,
    Later,
    check_size,
    damage_named,
    load_image,
    resolve_path,
)
from sensorium.media.limits import ImageLimits

SURE = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "PPM")
NOTES = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")


def image_shape(source: Any, *, root: Path | None = None, limits: ImageLimits | None = None) -> MediaShape:
    """Height and width of a picture, upright.

    Args:
        source: as for `load_image`.

    Raises:
        MediaError: what `load_image` finds before it decodes pixels.
    """
    limits = limits or ImageLimits()
    if isinstance(source, Image):
        return source.shape
    if isinstance(source, Later):
        return source.shape()
    shape = None
    if isinstance(source, str | Path):
        path = resolve_path(Path(source), root)
        where = repr(str(path))[1:-1]
        # Whatever is wrong with the file itself, `load_image` says in its own words.
        if path.is_file() and 0 < path.stat().st_size <= limits.max_bytes:
            try:
                with path.open("rb") as stream:
                    shape = _of_stream(stream, limits, where)
            except OSError as error:
                raise MediaError(f"not readable: {error.strerror}", where=str(path)) from None
    elif isinstance(source, bytes | bytearray | memoryview) and len(source):
        shape = _of_stream(io.BytesIO(source), limits, "image bytes")
    elif isinstance(source, PILImage.Image) and not isinstance(source, ImageFile.ImageFile):
        # One that is no opened file has nothing that only decoding tells.
        check_size(source.size, limits, "PIL image")
        shape = _upright(source)
    return shape or load_image(source, root=root, limits=limits).shape


def _of_stream(stream: BinaryIO, limits: ImageLimits, where: str) -> MediaShape | None:
    """None where only decoding tells."""
    with damage_named(where, limits), warnings.catch_warnings():
        warnings.simplefilter("ignore", PILImage.DecompressionBombWarning)
        picture = PILImage.open(stream, formats=FORMATS)
        check_size(picture.size, limits, where)
        if picture.format not in SURE or (picture.format == "PNG" and _notes_behind_pixels(stream)):
            return None
        # Of PNG files Pillow's own method reads all pixels in search of notes; there are none there.
        return _upright(picture)


def _upright(picture: PILImage.Image) -> MediaShape:
    turned = PILImage.Image.getexif(picture).get(ExifTags.Base.Orientation) in SIDEWAYS
    width, height = picture.size
    return MediaShape(width, height) if turned else MediaShape(height, width)


def _notes_behind_pixels(stream: BinaryIO) -> bool:
    """Whether a PNG file has notes behind the first chunk of pixels."""
    stream.seek(8)
    pixels = False
    while len(head := stream.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        pixels |= name == b"IDAT"
        if pixels and name in NOTES:
            return True
        stream.seek(length + 4, io.SEEK_CUR)
    return False
