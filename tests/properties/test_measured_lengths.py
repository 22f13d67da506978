"""What the processor measures without decoding is what it then encodes."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage
from PIL import PngImagePlugin

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.batch import Example
from sensorium.core.errors import DataError, MediaError
from sensorium.core.sample import Sample, parse_sample
from sensorium.encoders import ENCODERS
from sensorium.encoders.native_vit import NativeVitConfig
from sensorium.encoders.vit import VitConfig
from sensorium.input_projectors.mlp import MlpConfig
from sensorium.media.anyres import AnyResolution
from sensorium.media.augment import Augmentation
from sensorium.media.header import image_shape
from sensorium.media.image import load_image
from sensorium.media.limits import ImageLimits
from sensorium.media.native import NativeResolution
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.processing.answers import encode_rows
from sensorium.processing.processor import Processor
from sensorium.text.byte_tokenizer import byte_tokenizer

RESOLUTIONS: dict[str, Any] = {
    "fixed": FixedResolution(),
    "anyres": AnyResolution.tiny(),
    "square": AnyResolution.tiny().model_copy(update={"several": "square"}),
    "native": NativeResolution.tiny(),
}
TURNED = ("JPEG", "PNG", "WEBP", "TIFF")


def processor(resolution: str, template: str) -> Processor:
    encoder: Any = VitConfig.tiny().model_copy(update={"feature": "patch"})
    if resolution == "native":
        native = (name for name in ENCODERS if issubclass(ENCODERS.find(name), NativeVitConfig))
        encoder = ENCODERS.find(next(native)).tiny()
    lane = LaneConfig(encoder=encoder, projector=MlpConfig.tiny(), resolution=RESOLUTIONS[resolution])
    shape = ModelConfig(lanes={"image": lane}, backbone=CausalLMConfig.tiny(), template="chatml")
    return Processor(shape, byte_tokenizer(), template=template)


PROCESSORS = {(r, t): processor(r, t) for r in RESOLUTIONS for t in ("chatml", "caption")}


def picture(width: int, height: int, format: str = "PNG", turn: int | None = None) -> bytes:
    image = PILImage.fromarray(np.full((height, width, 3), 90, np.uint8))
    exif = PILImage.Exif()
    if turn is not None:
        exif[0x0112] = turn
    buffer = io.BytesIO()
    image.save(buffer, format, **({} if turn is None else {"exif": exif}))
    return buffer.getvalue()


PICTURES = st.builds(picture, st.integers(1, 150), st.integers(1, 150), st.sampled_from(TURNED),
                     st.none() | st.integers(1, 8))  # fmt: skip


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    shown = [{"type": "image", "image": p} for p in draw(st.lists(PICTURES, max_size=3))]
    words = draw(st.lists(st.text(max_size=12), min_size=1, max_size=3))
    messages: list[Any] = []
    for number, word in enumerate(words):
        front = shown if number == 0 else []
        messages += [{"role": "user", "content": [*front, {"type": "text", "text": "q" + word}]},
                     {"role": "assistant", "content": word}]  # fmt: skip
    return parse_sample({"messages": messages, "separate_turns": draw(st.booleans())})


def said(example: Example) -> Example:
    """Without pixels."""
    media = {k: [m.plans, m.texts, m.rows] for k, m in example.media.items()}
    return replace(example, media=media)  # pyright: ignore[reportArgumentType]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(PROCESSORS)), samples(), st.booleans(), st.none() | st.integers(8, 200),
       st.none() | st.integers(0, 99))  # fmt: skip
def test_measured_is_encoded_without_its_pixels(
    which: tuple[str, str], sample: Sample, splits: bool, max_length: int | None, seed: int | None
) -> None:
    made = PROCESSORS[which]
    made.splits_answers = splits
    seen: list[Any] = []
    for decode in (True, False):
        change = None if seed is None else Augmentation(random.Random(seed), mirror=True)
        try:
            rows = encode_rows(made, sample, max_length=max_length, augmentation=change, decode=decode)
            seen.append([said(row) for row in rows])
        except DataError as error:
            seen.append(str(error))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("format", [*TURNED, "GIF", "BMP", "PPM"])
def test_headers_say_the_size_upright(format: str, turn: int) -> None:
    content = picture(30, 20, format, turn if format in TURNED else None)
    assert image_shape(content) == load_image(content).shape


def test_a_note_behind_the_pixels_of_a_png_is_found() -> None:
    buffer = io.BytesIO()
    note = PngImagePlugin.PngInfo()
    turned = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    note.add_itxt("XML:com.adobe.xmp", turned)
    PILImage.new("RGB", (30, 20)).save(buffer, "PNG", pnginfo=note)
    content = buffer.getvalue()
    assert image_shape(content) == load_image(content).shape
    begin, end = content.index(b"iTXt") - 4, content.index(b"IDAT") - 4
    moved = content[:begin] + content[end:-12] + content[begin:end] + content[-12:]
    assert image_shape(moved) == load_image(moved).shape


def test_limits_hold_and_only_decoding_finds_damaged_pixels() -> None:
    content = picture(60, 40, "JPEG")
    limits = ImageLimits(max_side_px=50)
    for read in (image_shape, load_image):
        with pytest.raises(MediaError, match="60x40"):
            read(content, limits=limits)
        with pytest.raises(MediaError, match="known format"):
            read(b"no picture")
        with pytest.raises(MediaError, match="0 bytes"):
            read(b"")
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    PILImage.fromarray(noise).save(buffer, "JPEG")
    cut = buffer.getvalue()[:-900]
    assert image_shape(cut).width_px == 60
    with pytest.raises(MediaError, match="damaged"):
        load_image(cut)
