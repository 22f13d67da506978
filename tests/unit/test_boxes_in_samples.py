"""Boxes and points of Samples, from pixels of the picture to the tokens that a model reads."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import AddedToken

from sensorium.core.batch import Example
from sensorium.core.boxes import Box
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.sample import Sample, parse_sample
from sensorium.media.augment import Augmentation
from sensorium.media.image import load_image
from sensorium.media.resolution import FixedResolution
from sensorium.processing.processor import Processor
from sensorium.recipes.shikra import shikra, tiny
from sensorium.recipes.tiny import tiny_model
from sensorium.text.boxes import BOX_FORMATS, BoxFormatName, find_box_format
from sensorium.text.byte_tokenizer import byte_tokenizer
from sensorium.text.tokenizer import Tokenizer

BOXES = [[20, 10, 60, 30], [0, 0, 80, 40]]
"""In a picture of 80 x 40 pixels, which a letterbox puts in the middle half of a square."""


def picture(width: int = 80, height: int = 40) -> dict[str, Any]:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return {"type": "image", "image": Image.fromarray(pixels)}


def row(question: Sequence[Any], answer: Sequence[Any] = ("yes",)) -> Sample:
    turns = [{"role": "user", "content": list(question)}, {"role": "assistant", "content": list(answer)}]
    return parse_sample({"id": "r", "messages": turns})


def processor(
    boxes: BoxFormatName | None = "shikra", fit: str = "letterbox", tokenizer: Tokenizer | None = None
) -> Processor:
    config = tiny_model()
    lane = config.lanes["image"].model_copy(update={"resolution": FixedResolution.from_dict({"fit": fit})})
    config = config.model_copy(update={"boxes": boxes, "lanes": {"image": lane}})
    return Processor(config, tokenizer or byte_tokenizer())


def read(processor: Processor, example: Example, *, learned: bool = False) -> str:
    slots = set(example.slots["image"])
    ids = [i for p, i in enumerate(example.input_ids)
           if p not in slots and (example.learn[p] or not learned)]  # fmt: skip
    return processor.tokenizer.decode(ids)


def boxes(value: Any = BOXES) -> dict[str, Any]:
    return {"type": "boxes", "boxes": value}


def test_shikras_recipe_writes_boxes_and_points_of_the_padded_square() -> None:
    config = tiny().model
    assert config.boxes == shikra().model.boxes == "shikra"
    made = Processor(config, byte_tokenizer())
    points = {"type": "points2d", "points2d": [[40, 20]]}
    sample = row([picture(), "What is at ", points, "?"], ["The cat", boxes(), " ."])
    example = made.encode(sample)
    # 80 x 40 in a square of 80: 20 rows of padding above, everything over 80.
    assert "What is at [0.500,0.500]?" in read(made, example)
    answer = "The cat[0.250,0.375,0.750,0.625;0.000,0.250,1.000,0.750] ."
    assert answer in read(made, example, learned=True)
    assert parse_sample(sample.to_json()).to_json() == sample.to_json()


@pytest.mark.parametrize("name", sorted(BOX_FORMATS))
@pytest.mark.parametrize("fit", ["letterbox", "stretch", "crop"])
def test_what_is_written_leads_back_to_the_picture(name: BoxFormatName, fit: str) -> None:
    """Read from the tokens, the frame undone: within half a step of the format."""
    made = processor(name, fit)
    box = [25, 10, 50, 30]
    sample = row([picture(), "Where?"], [boxes({"places": [box], "phrase": "a cat"})])
    text = read(made, made.encode(sample), learned=True)
    (found,) = find_box_format(name).parse(text).boxes
    lane = made.config.lane("image")
    size = lane.encoder.preprocess().size_px
    shape = load_image(picture()["image"]).shape
    frame = lane.resolution.frame(shape, lane.resolution.plan(shape, size, lane.tile_grid()), size)
    back = frame.backward(frame.from_unit(found))
    step = find_box_format(name).quantum / 2 * size / min(frame.scale_x, frame.scale_y)
    assert back.numbers == pytest.approx(tuple(box), abs=step + 1e-6)


def test_text_around_boxes_is_tokenised_with_them() -> None:
    """As if the row had held the text: no token boundary where the part begins."""
    made = processor()
    parts = row([picture(), "At ", boxes([BOXES[1]]), "?"])
    plain = row([picture(), "At [0.000,0.250,1.000,0.750]?"])
    assert made.encode(parts).input_ids == made.encode(plain).input_ids
    prompt = made.prompt(parts.messages[:1]).input_ids
    assert made.encode(parts).input_ids[: len(prompt)] == prompt


def test_each_box_belongs_to_its_picture() -> None:
    made = processor()
    second = {"places": [[0, 0, 40, 80]]}
    first = {"places": [[0, 0, 80, 40]], "picture": 1}
    sample = row([picture(), picture(40, 80), "a", boxes(first), "b", boxes(second)])
    text = read(made, made.encode(sample))
    assert "a[0.000,0.250,1.000,0.750]b[0.250,0.000,0.750,1.000]" in text


def test_separate_turns_find_the_pictures_they_share() -> None:
    turns = [
        {"role": "user", "content": [picture(), "one?"]},
        {"role": "assistant", "content": [boxes([BOXES[1]])]},
        {"role": "user", "content": "two?"},
        {"role": "assistant", "content": [boxes([BOXES[1]])]},
    ]
    made = processor()
    example = made.encode(parse_sample({"messages": turns, "separate_turns": True}))
    assert read(made, example).count("[0.000,0.250,1.000,0.750]") == 2


@pytest.mark.parametrize(("part", "said"), [
    (boxes([[90, 0, 95, 5]]), "outside of its picture of 80x40"),
    (boxes([[0, 5, 900, 40]]), "reaches 820 pixels over the border of its picture of 80x40"),
    (boxes([[20, 10, 60, 30], [0, -1.5, 80, 40]]), r"y0=-1.5, .* reaches 1.5 pixels over the border of its picture of 80x40"),
    (boxes([[5, 5, 1, 9]]), "reversed"),
    (boxes([]), "list of lists of 4 numbers"),
    (boxes({"places": [[1, 2, 3, 4]], "phrases": "a"}), "'phrase'"),
    (boxes({"places": [[1, 2, 3, 4]], "phrase": 1}), "phrase is 1"),
    (boxes({"places": [[1, 2, 3, 4]], "picture": 2}), "from 1 to 1"),
    (boxes({"places": [[1, 2, 3, 4]], "picture": True}), "from 1 to 1"),
])  # fmt: skip
def test_bad_places_are_errors_of_their_rows(part: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        processor().encode(row([picture(), "a", part]))


def test_what_reaches_over_the_border_by_rounding_is_cut() -> None:
    made = processor()
    rounded = made.encode(row([picture(), boxes([[-1, -0.5, 81, 40.5]])]))
    assert rounded.input_ids == made.encode(row([picture(), boxes([[0, 0, 80, 40]])])).input_ids


def test_places_in_front_of_every_picture() -> None:
    with pytest.raises(DataError, match="without a picture in front"):
        processor().encode(row([boxes(), picture()]))


def test_a_cropped_box_is_an_error_and_not_an_empty_one() -> None:
    # The middle 40 x 40 of 80 x 40 pixels is left.
    with pytest.raises(DataError, match="cropped away"):
        processor(fit="crop").encode(row([picture(), boxes([[0, 0, 15, 40]])]))
    made = processor(fit="crop")
    text = read(made, made.encode(row([picture(), boxes([[0, 0, 40, 40]])])))
    assert "[0.000,0.000,0.500,1.000]" in text


def test_a_model_without_a_format_takes_no_boxes() -> None:
    sample = row([picture(), boxes()])
    with pytest.raises(DataError, match="'boxes'"):
        processor(None).encode(sample)
    with pytest.raises(ConfigError, match="kosmos2"):
        processor(None).prompt(sample.messages[:1])


def test_augmented_pictures_keep_their_boxes_in_place() -> None:
    """A mirrored, moved picture would make the box a lie; light and colour may change."""
    made = processor()
    still = row([picture(), "At ", boxes([BOXES[1]])])
    plain, moved = made.encode(still), 0
    for seed in range(12):
        one = made.encode(still, augmentation=Augmentation(random.Random(seed), mirror=True))
        assert one.input_ids == plain.input_ids
        before = plain.media["image"].pixels_NCHW[0].float().mean(0).flatten()
        after = one.media["image"].pixels_NCHW[0].float().mean(0).flatten()
        assert float(np.corrcoef(before, after)[0, 1]) > 0.95
        other = made.encode(row([picture(), "At"]),
                            augmentation=Augmentation(random.Random(seed), mirror=True))  # fmt: skip
        after = other.media["image"].pixels_NCHW[0].float().mean(0).flatten()
        moved += float(np.corrcoef(before, after)[0, 1]) < 0.95
    assert moved > 6, "without boxes the picture is moved, or this test sees nothing"


def test_marks_become_control_tokens_where_the_tokenizer_has_them() -> None:
    tokenizer = byte_tokenizer()
    marks = ["<ref>", "</ref>", "<box>", "</box>"]
    tokenizer.rust.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    tokenizer = Tokenizer(tokenizer.rust, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id,
                          pad_id=tokenizer.pad_id)  # fmt: skip
    made = processor("qwen_vl", "stretch", tokenizer)
    part = boxes({"places": [BOXES[1]], "phrase": "a cat"})
    example = made.encode(row([picture(), "<box>"], [part]))
    specials = [tokenizer.special_id(mark) for mark in marks]
    # What a user types stays text; the part's own marks are tokens, and they are learned.
    assert [i for i in example.input_ids if i in specials] == specials
    assert all(example.learn[example.input_ids.index(i)] for i in specials)
    kept = tokenizer.decode(example.input_ids, keep_special=True)
    assert "<ref>a cat</ref><box>(0,0),(999,999)</box>" in kept
    (found,) = find_box_format("qwen_vl").parse(read(made, example, learned=True)).boxes
    assert found == Box(0, 0, 1, 1), "tags are dropped when an answer is decoded"
