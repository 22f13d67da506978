"""JPEG files decoded at a part of their size: other pixels by a little, the same sizes, tiles, tokens, boxes and errors."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PILImage

from sensorium.core.batch import Example, MediaShape
from sensorium.core.errors import MediaError
from sensorium.core.sample import parse_sample
from sensorium.media.anyres import AnyResolution
from sensorium.media.image import Image, load_image
from sensorium.media.limits import ImageLimits
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.processing.picture_key import lane_mark
from sensorium.processing.pictures import Pictures, View
from sensorium.processing.processor import Processor
from sensorium.recipes import RECIPES
from sensorium.text.byte_tokenizer import byte_tokenizer

RESOLUTIONS: dict[str, Any] = {
    "letterbox": FixedResolution(), "stretch": FixedResolution(fit="stretch"), "crop": FixedResolution(fit="crop"),
    "middle": FixedResolution(fit="middle"),
    "anyres": AnyResolution(), "anyres, stretched": AnyResolution(thumbnail_fit="stretch"),
    "square": AnyResolution(several="square"),
}  # fmt: skip
ALONE = View(None, still=True, count=1)


def lane(resolution: str = "letterbox", *, fast: bool = True) -> LaneConfig:
    tiny = RECIPES.find("tiny")().model.lanes["image"]
    encoder = tiny.encoder.model_copy(update={"feature": "patch"})
    return tiny.model_copy(update={"resolution": RESOLUTIONS[resolution], "encoder": encoder, "fast_decode": fast})


def smooth(width: int, height: int) -> NDArray[np.uint8]:
    """A gradient with a bright bar at the right and lower edge, by which a shift of a pixel is seen."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 200 / width, y * 200 / height, (x + y) * 200 / (width + height)], axis=-1)
    pixels[-height // 8 :] += 40
    pixels[:, -width // 8 :] += 40
    return np.clip(pixels, 0, 255).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8], mode: str = "RGB", turn: int | None = None, **options: Any) -> bytes:
    picture, buffer = PILImage.fromarray(pixels).convert(mode), io.BytesIO()
    exif = PILImage.Exif()
    if turn is not None:
        exif[274] = turn
    picture.save(buffer, "JPEG", quality=95, exif=exif, **options)
    return buffer.getvalue()


def quarter(shape: MediaShape) -> int:
    return 4


def distance(a: Any, b: Any) -> float:
    return float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean())


@pytest.mark.parametrize("size", [(640, 480), (643, 421), (200, 333)])
@pytest.mark.parametrize("resolution", list(RESOLUTIONS))
@pytest.mark.parametrize("count", [1, 2])
def test_what_the_encoder_sees_is_close(size: tuple[int, int], resolution: str, count: int) -> None:
    content, view = jpeg(smooth(*size)), View(None, still=True, count=count)
    limits = ImageLimits()
    fast, whole = (Pictures("image", lane(resolution, fast=f), limits).prepare(content, None, view, None) for f in (True, False))
    assert fast.shape == whole.shape == MediaShape(size[1], size[0])
    assert fast.plan == whole.plan
    assert distance(fast.pixels_NCHW, whole.pixels_NCHW) < 2
    # A picture that is padded at its own size is decoded whole.
    assert (fast.pixels_NCHW.equal(whole.pixels_NCHW)) == (resolution == "square" and count == 2)


@pytest.mark.parametrize("turn", [None, *range(1, 10)])
@pytest.mark.parametrize("size", [(160, 120), (165, 123)])
def test_turned_pictures(turn: int | None, size: tuple[int, int]) -> None:
    """Edges of the last blocks go where the file's turn moves them."""
    content = jpeg(smooth(*size), turn=turn)
    whole, fast = load_image(content), load_image(content, divisor=quarter)
    assert fast.shape == whole.shape
    assert fast.shrunk is not None
    assert whole.shrunk is None
    left, top, right, bottom = fast.shrunk.box
    assert (right - left, bottom - top) == (whole.shape.width_px / 4, whole.shape.height_px / 4)
    small = fast.resized(24, 32, PILImage.Resampling.BICUBIC)
    assert distance(small, whole.resized(24, 32, PILImage.Resampling.BICUBIC)) < 1.0


def test_a_wrong_edge_would_be_seen() -> None:
    """The control of the test above: without the box, pixels beyond the edge count as the picture's."""
    content = jpeg(smooth(165, 123), turn=3)
    whole, fast = load_image(content), load_image(content, divisor=quarter)
    right, wrong = (distance(image.resized(24, 32, PILImage.Resampling.BICUBIC), whole.resized(24, 32, PILImage.Resampling.BICUBIC))
                    for image in (fast, Image(fast.pixels_HWC)))  # fmt: skip
    assert wrong > 2 * right


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_kinds_of_jpeg(mode: str, progressive: bool) -> None:
    content = jpeg(smooth(320, 240), mode, progressive=progressive)
    whole, fast = load_image(content), load_image(content, divisor=quarter)
    assert fast.pixels_HWC.shape == (60, 80, 3)
    assert distance(fast.to_pil(), whole.to_pil().resize((80, 60), PILImage.Resampling.BOX)) < 1.5


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF"])
def test_other_formats_are_decoded_whole(format: str) -> None:
    buffer = io.BytesIO()
    PILImage.fromarray(smooth(320, 240)).save(buffer, format)
    assert load_image(buffer.getvalue(), divisor=quarter).shrunk is None
    array = smooth(320, 240)
    assert load_image(array, divisor=quarter).shrunk is None


@pytest.mark.parametrize(("width", "parts"), [(63, 1), (64, 2), (255, 2), (256, 4), (511, 4), (512, 8), (4000, 8)])
def test_as_much_is_left_as_the_encoder_sees(width: int, parts: int) -> None:
    """The encoder sees 32 pixels: half of 64, and of smaller parts twice as much."""
    mine = lane()
    assert mine.encoder.preprocess().size_px == 32
    assert Pictures("image", mine, ImageLimits())._divisor(ALONE, MediaShape(width, width)) == parts


def test_a_second_encoder_sees_enough() -> None:
    finer = lane().encoder.model_copy(update={"image_size_px": 64})
    both = lane().model_copy(update={"detail": finer})
    assert Pictures("image", both, ImageLimits())._divisor(ALONE, MediaShape(256, 256)) == 2


def test_limits_and_damage_are_said_as_before() -> None:
    content = jpeg(smooth(320, 240))
    for limits in (ImageLimits(max_pixels=320 * 240 - 1), ImageLimits(max_side_px=319)):
        with pytest.raises(MediaError, match="320x240 = 76,800 pixels"):
            load_image(content, limits=limits, divisor=quarter)
    with pytest.raises(MediaError, match="damaged"):
        load_image(content[: len(content) // 2], divisor=quarter)


def example(fast: bool, source: bytes, how: str = "encode") -> Example:
    shape = ModelConfig(lanes={"image": lane("anyres", fast=fast)}, backbone=RECIPES.find("tiny")().model.backbone,
                        template="chatml", boxes="shikra")  # fmt: skip
    sample = parse_sample({"id": "1", "messages": [
        {"role": "user", "content": [{"type": "image", "image": source}, {"type": "boxes", "boxes": [[10, 20, 500, 400]]}]},
        {"role": "assistant", "content": "yes"}]})  # fmt: skip
    return getattr(Processor(shape, byte_tokenizer()), how)(sample)


def test_tokens_and_boxes_are_the_same() -> None:
    content = jpeg(smooth(643, 421))
    fast, whole, measured = example(True, content), example(False, content), example(True, content, "measure")
    assert fast.input_ids == whole.input_ids == measured.input_ids
    assert fast.slots == whole.slots == measured.slots


def test_the_feature_store_keeps_them_apart() -> None:
    fast, whole = (lane_mark(lane(fast=f), ImageLimits()) for f in (True, False))
    assert fast != whole
