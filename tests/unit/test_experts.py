"""Words of experts in place of pictures: in conversations, in training data, in evaluation."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from sensorium.cli.evaluating import parse_experts, told_by
from sensorium.core.errors import ConfigError, MissingDependencyError
from sensorium.core.responder import Answer, Blind, Request
from sensorium.core.sample import Message, Part, parse_messages
from sensorium.data.source import JsonlSource
from sensorium.data.told import ExpertSource
from sensorium.data.told import Told as ToldSource
from sensorium.evaluation.benchmarks.scenes import Attribute
from sensorium.evaluation.runner import run_benchmark
from sensorium.experts.base import Panel
from sensorium.experts.captioner import CaptionerConfig
from sensorium.experts.ocr import OcrConfig
from sensorium.experts.responder import Told
from sensorium.media.image import Image, load_image

COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 220)}


def dominant(image: Image) -> str:
    """An expert of one skill."""
    red, _, blue = image.to_pil().resize((1, 1)).getpixel((0, 0))  # type: ignore[misc]
    return "something red" if red > blue else "something blue"


def silent(image: Image) -> str:
    return "  "


def plain(colour: str) -> PILImage.Image:
    return PILImage.new("RGB", (20, 10), COLOURS[colour])


def asked(*content: Any) -> tuple[Message, ...]:
    return parse_messages([{"role": "user", "content": list(content)}])


def image(value: Any) -> dict[str, Any]:
    return {"type": "image", "image": value}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def test_words_stand_where_pictures_stood() -> None:
    panel = Panel([("Caption", dominant), ("Text in it", silent), ("Again", dominant)])
    messages = asked(text("See "), image(plain("red")), text("and "), image(plain("blue")), text("Which?"))
    (told,) = panel.told(messages, None)
    assert not any(part.is_media for part in told.content)
    assert told.text == (
        "See [Picture 1]\nCaption: something red\nAgain: something red\n"
        "and [Picture 2]\nCaption: something blue\nAgain: something blue\nWhich?"
    )


def test_a_picture_of_which_nobody_speaks_is_still_counted() -> None:
    (told,) = Panel([("Caption", silent)]).told(asked(image(plain("red")), text("?")), None)
    assert told.text == "[Picture 1]\n?"


def test_each_picture_is_looked_at_once() -> None:
    seen: list[str] = []

    def look(picture: Image) -> str:
        seen.append(picture.digest())
        return "seen"

    panel = Panel([("Caption", look)])
    for colour in ("red", "blue", "red"):
        panel.told(asked(image(plain(colour))), None)
    assert len(seen) == 2


def test_what_words_cannot_hold_is_refused() -> None:
    panel = Panel([("Caption", dominant)])
    boxes = Message("user", (Part("image", plain("red")), Part("boxes", [[0, 0, 1, 1]])))
    with pytest.raises(ConfigError, match="boxes"):
        panel.told([boxes], None)
    with pytest.raises(ConfigError, match="no expert"):
        Panel([])


def test_training_data_told(tmp_path: Path) -> None:
    """Relative paths start from the rows' own folder, and rows keep their place for messages."""
    plain("blue").save(tmp_path / "a.png")
    row = {"messages": [{"role": "user", "content": [image("a.png"), text("Colour?")]},
                        {"role": "assistant", "content": "blue"}]}  # fmt: skip
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    told = ToldSource(JsonlSource(tmp_path / "rows.jsonl"), Panel([("Caption", dominant)]))
    assert [m.text for m in told[0].messages] == ["[Picture 1]\nCaption: something blue\nColour?", "blue"]
    assert told.where(0).endswith("rows.jsonl:1")


def test_a_told_source_is_a_config() -> None:
    values = {"kind": "experts", "source": {"kind": "scenes"}, "experts": [{"kind": "captioner"}, {"kind": "ocr"}]}
    config = ExpertSource.from_dict(values)
    assert config.experts == (CaptionerConfig(model="nano"), OcrConfig())
    assert ExpertSource.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError):
        ExpertSource.from_dict(values | {"experts": [{"kind": "oracle"}]})


class Reads:
    """A language model without eyes: it repeats the colour that it has read."""

    def respond(self, requests: Sequence[Request]) -> Iterator[Answer]:
        for request in requests:
            assert not any(part.is_media for m in request.messages for part in m.content)
            words = request.messages[-1].text
            yield Answer(request.id, next((c for c in COLOURS if f"something {c}" in words), "green"))


def test_told_it_answers_what_it_cannot_see() -> None:
    told = Told(Reads(), Panel([("Caption", dominant)]))
    requests = [Request(c, asked(image(plain(c)), text("Which colour?"))) for c in COLOURS]
    assert [answer.text for answer in told.respond(requests)] == list(COLOURS)
    assert [answer.text for answer in Blind(told).respond(requests)] == ["green", "green"]


def test_evaluation_takes_it_for_any_other() -> None:
    """Blind, it knows nothing; a benchmark's pictures reach the experts and not the model."""
    result = run_benchmark(Attribute(limit=6), Told(Reads(), Panel([("Caption", dominant)])))
    assert {answer.text for answer in result.answers["blind"]} == {"green"}
    assert {answer.text for answer in result.answers["model"]} <= set(COLOURS)


def test_experts_by_name() -> None:
    assert parse_experts(["captioner:model=nano,max_tokens=9"]) == [CaptionerConfig(model="nano", max_tokens=9)]
    with pytest.raises(ConfigError, match="did you mean 'ocr'"):
        parse_experts(["ocrr"])
    reads = Reads()
    assert told_by(reads, []) is reads


@pytest.mark.skipif(importlib.util.find_spec("rapidocr_onnxruntime") is not None, reason="the reader is installed")
def test_without_the_reader_the_error_names_the_extra() -> None:
    with pytest.raises(MissingDependencyError, match=r"sensorium\[ocr\]"):
        OcrConfig().build()


def test_text_in_a_picture_is_read() -> None:
    pytest.importorskip("rapidocr_onnxruntime", reason="pip install 'sensorium[ocr]'")
    picture = PILImage.new("RGB", (320, 90), "white")
    ImageDraw.Draw(picture).text((20, 20), "STOP HERE 42", fill="black", font=ImageFont.load_default(36))
    look = OcrConfig().build()
    assert look(load_image(picture)) == "STOP HERE 42"
    assert look(load_image(plain("red"))) == ""
