"""Pictures with places as documents to draw from (Emu2-Gen): what stands where, and what is foretold of them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.api import Model
from sensorium.core.boxes import Box
from sensorium.core.errors import DataError
from sensorium.data.config import FileSource
from sensorium.data.laid_out import LaidOutSource, cut_out, drawn_place
from sensorium.interop.assemble import build_pretrained
from sensorium.processing.collate import collate
from sensorium.recipes import TINY_FORMS
from sensorium.text.byte_tokenizer import byte_tokenizer

needs_diffusers = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
ANSWER = [
    {"type": "text", "text": "A photo of "},
    {"type": "boxes", "boxes": {"places": [[10, 5, 40, 25], [50, 5, 90, 45]], "phrase": "two men"}},
    {"type": "text", "text": " beside "},
    {"type": "boxes", "boxes": [[0, 0, 100, 50]]},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A picture of 100 x 50 pixels, each of its own colour."""
    across, down = np.meshgrid(np.arange(100), np.arange(50))
    Image.fromarray(np.stack([across, down, across], axis=-1).astype(np.uint8)).save(tmp_path / "two.png")
    row = {"messages": [{"role": "user", "content": [{"type": "image", "image": "two.png"}]}, {"role": "assistant", "content": ANSWER}]}
    path = tmp_path / "rows.jsonl"
    path.write_text((json.dumps(row) + "\n") * 200, encoding="utf-8")
    return path


def laid_out(file: Path, **changes: Any) -> Any:
    return LaidOutSource(source=FileSource(path=str(file)), **{"unplaced": 0.0, "unseen": 0.0, **changes}).open()


def test_a_things_phrase_place_and_cut_out_stand_in_front_of_the_whole(file: Path) -> None:
    (message,) = laid_out(file)[0].messages
    assert message.role == "assistant"
    words = [part.value if part.type in ("text", "token") else part.value.size if part.type == "image" and not isinstance(part.value, str) else "whole"
             for part in message.content]  # fmt: skip
    place = ["<object>", (448, 448), "</object>"]
    assert words == [
        "<grounding>", "A photo of ", "<phrase>", "two men", "</phrase>", *place, (30, 20), *place, (40, 40), " beside ", *place, (100, 50), "whole"
    ]  # fmt: skip
    first = next(part for part in message.content if part.type == "image" and part.value.size == (30, 20))
    assert first.value.getpixel((0, 0)) == (10, 5, 10)
    assert first.value.getpixel((29, 19)) == (39, 24, 39)


def test_a_place_is_a_frame_of_three_pixels() -> None:
    """meta.py, `draw_box`: around corners that are rounded to pixels of the picture that is seen."""
    pixels_HWC = np.asarray(drawn_place(Box(25, 10, 75, 40), (100, 50), 64))
    y, x = np.mgrid[:64, :64]
    near = lambda numbers, a, b: (np.abs(numbers - a) <= 1) | (np.abs(numbers - b) <= 1)  # noqa: E731
    inside = (x >= 15) & (x <= 49) & (y >= 12) & (y <= 52)
    wanted = inside & (near(x, 16, 48) | near(y, 13, 51))
    assert np.array_equal(pixels_HWC, np.where(wanted, 255, 0)[..., None].repeat(3, axis=-1))


@pytest.mark.parametrize(("box", "size"), [((99.5, 49.5, 100, 50), (1, 1)), ((3.2, 3.2, 3.2, 3.2), (1, 1)), ((-1, -1, 101, 51), (100, 50))])
def test_a_cut_out_has_at_least_a_pixel(box: tuple[float, float, float, float], size: tuple[int, int]) -> None:
    assert cut_out(Box(*box), Image.new("RGB", (100, 50))).size == size


def test_places_and_cut_outs_are_left_out_each_by_itself(file: Path) -> None:
    source = laid_out(file, unplaced=0.25, unseen=0.5)
    rows = [source[i].messages[0].content for i in range(200)]
    places = sum(part.value == "<object>" for row in rows for part in row) / 600
    shown = sum(part.type == "image" for row in rows for part in row) / 600 - places - 1 / 3
    assert places == pytest.approx(0.75, abs=0.06)
    assert shown == pytest.approx(0.5, abs=0.06)
    assert [part.type for part in source[7].messages[0].content] == [part.type for part in rows[7]]


def test_rows_without_boxes_are_named(tmp_path: Path, file: Path) -> None:
    row = json.loads(file.read_text().splitlines()[0])
    row["messages"][1]["content"] = "No boxes."
    file.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(DataError, match=r"rows\.jsonl:1.*an answer with boxes"):
        laid_out(file)[0]


@needs_diffusers
def test_of_such_a_document_only_the_whole_is_foretold(file: Path) -> None:
    """As Emu2/README.md asks for pictures: the tags are tokens, and every picture stands between its marks."""
    torch.manual_seed(0)
    recipe = TINY_FORMS.find("emu2-gen")()
    model = Model(*build_pretrained(recipe.model))
    objective = recipe.stages[0].objective.build(model.network, model.processor, [])
    processor = model.processor.with_template("emu2_document")
    example = processor.encode(laid_out(file)[0])
    assert processor.measure(laid_out(file)[0]).input_ids == example.input_ids
    hole = "<|endoftext|>" * 4
    picture = f"[IMG]{hole}[/IMG]"
    place = f"<object>{picture}</object>{picture}"
    text = model.tokenizer.decode(example.input_ids, keep_special=True)
    assert text == f"<grounding>A photo of <phrase>two men</phrase>{place}{place} beside {place}{picture}<|endoftext|>"
    first = len(byte_tokenizer())
    assert [token - first for token in example.input_ids if token >= first][:4] == [8, 9, 10, 11]
    assert len(example.wanted) == 7
    batch = collate([[example]], model.tokenizer.pad_id)
    assert objective(model.network, batch).count == int(batch.learn_BT[:, 1:].sum()) + 4
