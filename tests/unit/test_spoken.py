"""An answer's boxes come back as parts, in pixels of the picture that was asked about."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.sample import parse_sample
from sensorium.encoders import ENCODERS
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.media import RESOLUTIONS
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.processing.processor import Processor
from sensorium.processing.spoken import spoken_parts
from sensorium.text.boxes import BOX_FORMATS
from sensorium.text.byte_tokenizer import byte_tokenizer

BOX = [30.0, 20.0, 90.0, 50.0]


def processor(style: str, resolution: dict[str, Any]) -> Processor:
    lane = LaneConfig(encoder=ENCODERS.find("clip").tiny(), projector=INPUT_PROJECTORS.find("mlp").tiny(),
                      resolution=RESOLUTIONS.find(resolution.pop("kind")).from_dict(resolution))  # fmt: skip
    tokenizer = byte_tokenizer()
    marks = ("<ref>", "</ref>", "<box>", "</box>")
    if style == "qwen_vl":
        tokenizer.add(marks)
    backbone = CausalLMConfig.tiny()
    backbone = backbone.model_copy(update={"arch": backbone.arch | {"vocab_size": len(tokenizer)}})
    return Processor(ModelConfig(lanes={"image": lane}, backbone=backbone, template="plain", boxes=style), tokenizer)


@pytest.mark.parametrize("style", BOX_FORMATS)
@pytest.mark.parametrize("resolution", [{"kind": "fixed", "fit": "letterbox"}, {"kind": "fixed", "fit": "stretch"}], ids=lambda r: r["fit"])
def test_what_is_taught_is_what_is_read(style: str, resolution: dict[str, Any]) -> None:
    found = processor(style, dict(resolution))
    phrase = "a cat" if style in ("qwen_vl", "kosmos2", "emu2") else None
    said = {"places": [BOX], "picture": 1} | ({"phrase": phrase} if phrase else {})
    example = found.encode(parse_sample({"messages": [
        {"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (120, 60))}, {"type": "text", "text": "Where?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "It is "}, {"type": "boxes", "boxes": said},
                                          {"type": "text", "text": " here."}]}]}))  # fmt: skip
    answer = [i for i, learn in zip(example.input_ids, example.learn, strict=True) if learn]
    parts = spoken_parts(answer, example.seen, found.box_format, found.tokenizer)
    assert [part.type for part in parts] == ["text", "boxes", "text"]
    assert (parts[0].value, parts[2].value[:5]) == ("It is", "here.")
    assert parts[1].value.get("phrase") == phrase
    assert parts[1].value["picture"] == 1
    assert found.box_format is not None
    # One step of the format, in pixels of the frame's longer side.
    (box,) = parts[1].value["places"]
    assert box == pytest.approx(BOX, abs=found.box_format.quantum * 120 + 0.01)


@pytest.mark.parametrize("style", BOX_FORMATS)
def test_a_box_that_the_token_limit_cuts_is_missing_and_leaves_no_marks(style: str) -> None:
    found = processor(style, {"kind": "fixed", "fit": "letterbox"})
    said = {"places": [BOX, BOX], "picture": 1}
    example = found.encode(parse_sample({"messages": [
        {"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (120, 60))}, {"type": "text", "text": "Where?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "It is "}, {"type": "boxes", "boxes": said}]}]}))  # fmt: skip
    whole = [i for i, learn in zip(example.input_ids, example.learn, strict=True) if learn]
    seen: set[tuple[str, ...]] = set()
    for length in range(len(whole) + 1):
        parts = spoken_parts(whole[:length], example.seen, found.box_format, found.tokenizer, cut=True)
        seen.add(kinds := tuple(part.type for part in parts))
        if "missing" in kinds:
            assert parts[-1].value == {"kind": "boxes", "error": "the answer ended in the midst of a box. To mend it: raise max_tokens"}
            assert all(part.value == "It is" for part in parts if part.type == "text")
        # An answer that ended by itself is what it is.
        assert "missing" not in [part.type for part in spoken_parts(whole[:length], example.seen, found.box_format, found.tokenizer)]
    assert {("text", "missing"), ("text", "boxes")} <= seen
    # What is no place is text, cut or not.
    for text in ("a set {red", "see [note", "if x < 3"):
        (part,) = spoken_parts(found.tokenizer.encode(text), example.seen, found.box_format, found.tokenizer, cut=True)
        assert (part.type, part.value) == ("text", text)


def test_text_stays_text_and_what_lies_in_padding_is_left_out() -> None:
    found = processor("shikra", {"kind": "fixed", "fit": "letterbox"})
    example = found.prompt(parse_sample({"messages": [{"role": "user", "content": [
        {"type": "image", "image": Image.new("RGB", (120, 60))}, {"type": "text", "text": "Where?"}]}]}).messages)  # fmt: skip

    def read(text: str) -> list[tuple[str, Any]]:
        ids = found.tokenizer.encode(text)
        return [(part.type, part.value) for part in spoken_parts(ids, example.seen, found.box_format, found.tokenizer)]

    assert read("no box [1,2") == [("text", "no box [1,2")]
    # The picture fills the middle half of the square.
    assert read("[0.100,0.010,0.500,0.200]") == []
    assert read("[0.000,0.000,1.000,1.000]") == [("boxes", {"places": [[0.0, 0.0, 120.0, 60.0]], "picture": 1})]
    assert spoken_parts(found.tokenizer.encode("[0.1,0.1,0.2,0.2]"), (), found.box_format, found.tokenizer)[0].type == "text"
