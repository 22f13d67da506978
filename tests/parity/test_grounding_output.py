"""What Kosmos-2 and Qwen-VL write about places becomes an answer's parts: boxes with their phrases, on the picture that was asked about."""

from __future__ import annotations

import re
from typing import Any

import pytest
from PIL import Image

from sensorium.core.sample import Part, parse_sample
from sensorium.processing.processor import Processor
from sensorium.processing.spoken import spoken_parts
from sensorium.recipes import TINY_FORMS
from sensorium.text.byte_tokenizer import byte_tokenizer

SIZES = {"kosmos-2": (90, 90), "qwen-vl": (120, 60)}
"""Width and height: Kosmos-2 sees the middle of a picture, Qwen-VL all of it, squeezed."""


def answered(name: str, text: str, *, marks_are_tokens: bool) -> list[Part]:
    """The parts of an answer in the recipe's own format, to a question about two pictures."""
    tokenizer = byte_tokenizer()
    marks = tuple(dict.fromkeys(re.findall(r"<[^<>]+>", text)))
    if marks_are_tokens:
        tokenizer.add(marks)
    model = TINY_FORMS.find(name)().model
    backbone = model.backbone
    arch = backbone.arch | {"vocab_size": len(tokenizer)}  # pyright: ignore[reportAttributeAccessIssue]
    model = model.model_copy(update={"backbone": backbone.model_copy(update={"arch": arch}), "template": "plain"})
    processor = Processor(model, tokenizer)
    pictures = [{"type": "image", "image": Image.new("RGB", size)} for size in ((40, 40), SIZES[name])]
    prompt = processor.prompt(parse_sample({"messages": [
        {"role": "user", "content": [*pictures, {"type": "text", "text": "Describe it."}]}]}).messages)  # fmt: skip
    ids = [i for piece in re.split(r"(<[^<>]+>)", text) if piece
           for i in ([tokenizer.special_id(piece)] if marks_are_tokens and piece in marks else tokenizer.encode(piece))]  # fmt: skip
    return spoken_parts(ids, prompt.seen, processor.box_format, tokenizer)


def boxes(parts: list[Part]) -> list[tuple[Any, list[list[float]]]]:
    return [(part.value.get("phrase"), part.value["places"]) for part in parts if part.type == "boxes"]


KOSMOS = (
    "An image of<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object> near"
    "<phrase> two fires</phrase><object><patch_index_0005><patch_index_0911></delimiter_of_multi_objects/>"
    "<patch_index_0100><patch_index_0132></object>."
)


@pytest.mark.parametrize("marks_are_tokens", [True, False])
def test_kosmos2_s_entities(marks_are_tokens: bool) -> None:
    from transformers.models.kosmos2.processing_kosmos2 import (
        clean_text_and_extract_entities_with_bboxes,
    )

    parts = answered("kosmos-2", KOSMOS, marks_are_tokens=marks_are_tokens)
    _, entities = clean_text_and_extract_entities_with_bboxes(KOSMOS)
    width, height = SIZES["kosmos-2"]
    wanted = [(phrase, [[x0 * width, y0 * height, x1 * width, y1 * height] for x0, y0, x1, y1 in places]) for phrase, _, places in entities]
    assert len(wanted) == 2
    for (phrase, found), (theirs, places) in zip(boxes(parts), wanted, strict=True):
        assert phrase == theirs
        assert found == [pytest.approx(place, abs=0.02) for place in places]
    assert [part.type for part in parts] == ["text", "boxes", "text", "boxes", "text"]
    assert [part.value for part in parts if part.type == "text"] == ["An image of", "near", "."]
    assert all(part.value["picture"] == 2 for part in parts if part.type == "boxes")


QWEN = "<ref>A dog</ref><box>(221,423),(569,886)</box> and <ref>two cats</ref><box>(0,10),(500,999)</box><box>(600,1),(990,88)</box> play."


@pytest.mark.parametrize("marks_are_tokens", [True, False])
def test_qwen_vl_s_boxes(marks_are_tokens: bool) -> None:
    parts = answered("qwen-vl", QWEN, marks_are_tokens=marks_are_tokens)
    width, height = SIZES["qwen-vl"]
    # eval_mm/evaluate_grounding.py: the numbers over 999, times the picture's size.
    said = [[int(n) / 999 for n in found] for found in re.findall(r"\((\d+),(\d+)\),\((\d+),(\d+)\)", QWEN)]
    pixels = [[x0 * width, y0 * height, x1 * width, y1 * height] for x0, y0, x1, y1 in said]
    found = boxes(parts)
    assert [phrase for phrase, _ in found] == ["A dog", "two cats"]
    assert [box for _, places in found for box in places] == [pytest.approx(box, abs=0.01) for box in pixels]
    assert [part.value for part in parts if part.type == "text"] == ["and", "play."]
    assert all(part.value["picture"] == 2 for part in parts if part.type == "boxes")
