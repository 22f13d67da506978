"""Kosmos-2 from transformers' own folder: prompts and answers with boxes, and back. Logits: test_matrix_function.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hf_models import kosmos2
from PIL import Image
from test_hf_families import round_trip

from sensorium.api import load
from sensorium.core.sample import parse_sample
from sensorium.interop.hf import export_hf, import_hf, read_hf, same_tensors
from sensorium.processing.processor import Processor
from sensorium.text.tokenizer import Tokenizer


def test_returns_as_it_came(tmp_path: Path) -> None:
    torch.manual_seed(4)
    kosmos2(tmp_path / "hf")
    round_trip(read_hf(tmp_path / "hf"), tmp_path / "hf", tmp_path / "back")


WORDS = ["▁an", "▁image", "▁of", "▁a", "▁snowman", "▁warming", "▁himself", "▁by", "▁fire", ".", "▁two", "▁dogs"]


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The original's processor over a vocabulary of a few words, saved as it saves itself."""
    from transformers import CLIPImageProcessor, Kosmos2Processor, XLMRobertaTokenizer

    first = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    slots = [(f"<slot_{i}>", -50.0) for i in range(8)]
    letters = [(f"{mark}{letter}", -20.0) for mark in ("▁", "") for letter in "abcdefghijklmnopqrstuvwxyz"]
    vocab = [*first, *slots, *letters, *((word, -5.0) for word in WORDS), ("<mask>", 0.0)]
    images = CLIPImageProcessor(size={"height": 28, "width": 28}, do_center_crop=False)
    return Kosmos2Processor(images, XLMRobertaTokenizer(vocab=vocab))


@pytest.fixture(scope="module")
def whole(processor: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a tokenizer and an image processor."""
    target = tmp_path_factory.mktemp("kosmos2-whole") / "hf"
    torch.manual_seed(5)
    kosmos2(target, vocab=len(processor.tokenizer))
    processor.save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def mine(whole: Path) -> Processor:
    return Processor(read_hf(whole).config, Tokenizer.load(whole))


def picture(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def box_px(box: tuple[float, ...], image: Image.Image) -> list[float]:
    return [n * size for n, size in zip(box, image.size * 2, strict=True)]


FIRE = (0.171875, 0.015625, 0.484375, 0.890625)
SNOWMAN = (0.390625, 0.046875, 0.984375, 0.828125)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (40, 60), (61, 33), (9, 200), (200, 9), (300, 301)])
def test_prompts_and_pixels(
    height: int, width: int, processor: Any, mine: Processor, record: Callable[..., None]
) -> None:
    image = picture(height, width)
    text = "<grounding> an image of a dog"
    expected = processor(images=image, text=text, num_image_tokens=4, return_tensors="pt")
    sample = parse_sample({"messages": [{"role": "user", "content": [
        {"type": "image", "image": image}, {"type": "text", "text": text}]}]})  # fmt: skip
    got = mine.encode(sample, answer_next=True)
    mask = expected["image_embeds_position_mask"][0].tolist()
    assert got.slots["image"] == [i for i, is_slot in enumerate(mask) if is_slot]
    # What stands in a slot does not matter; features take its place.
    words = [token for token, is_slot in zip(expected["input_ids"][0].tolist(), mask, strict=True) if not is_slot]
    assert [t for i, t in enumerate(got.input_ids) if i not in got.slots["image"]] == words
    seen = mine.config.lane("image").encoder.build()
    mine_pixels = seen.normalise(got.media["image"].pixels_NCHW)  # pyright: ignore[reportCallIssue]
    record("kosmos-2", "pixels", "ids", "placeholders", ours=mine_pixels, theirs=expected["pixel_values"])


def test_boxes_in_the_answer(processor: Any, mine: Processor) -> None:
    image = picture(90, 60)
    text = ("<grounding> an image of<phrase> a snowman</phrase> warming himself by<phrase> a fire</phrase> "
            "by<phrase> two dogs</phrase>.")  # fmt: skip
    expected = processor(
        images=image, text=text, bboxes=[SNOWMAN, FIRE, [SNOWMAN, FIRE]], num_image_tokens=4
    )["input_ids"]
    places = [("a snowman", [SNOWMAN]), ("a fire", [FIRE]), ("two dogs", [SNOWMAN, FIRE])]
    parts = [{"type": "boxes", "boxes": {"phrase": phrase, "places": [box_px(box, image) for box in boxes]}}
             for phrase, boxes in places]  # fmt: skip
    between = [" warming himself by", " by", "."]
    answer = [part for pair in zip(parts, ({"type": "text", "text": t} for t in between), strict=True) for part in pair]
    sample = parse_sample({"messages": [
        {"role": "user", "content": [{"type": "image", "image": image},
                                     {"type": "text", "text": "<grounding> an image of"}]},
        {"role": "assistant", "content": answer}]})  # fmt: skip
    got = mine.encode(sample)
    assert [*got.input_ids[:2], *got.input_ids[6:]] == [*expected[:2], *expected[6:], mine.tokenizer.eos_id]
    assert got.learn.count(True) == len(expected) - expected.index(mine.tokenizer.special_id("<phrase>")) + 1


def test_what_the_reference_reads_from_an_answer(processor: Any, mine: Processor) -> None:
    assert mine.box_format is not None
    text = mine.tokenizer.decode(processor(text=(
        "<grounding> an image of<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object> by"
        "<phrase> two dogs</phrase><object><patch_index_0005><patch_index_0911></delimiter_of_multi_objects/>"
        "<patch_index_0044><patch_index_0044></object>."))["input_ids"])  # fmt: skip
    _, entities = processor.post_process_generation(text)
    read = [(m.phrase, [(b.x0, b.y0, b.x1, b.y1) for b in m.places]) for m in mine.box_format.parse(text).mentions]  # pyright: ignore[reportAttributeAccessIssue]
    assert read == [(phrase, [pytest.approx(box) for box in boxes]) for phrase, _, boxes in entities]
    assert len(read) == 2


CAPTION = "<grounding> an image of"
ANSWER = (" <phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object> by"
          "<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>.")  # fmt: skip


def teach(model: Any, given: dict[str, torch.Tensor]) -> None:
    """Have a random model learn one row by heart."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model(**given, labels=given["input_ids"]).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def test_a_grounded_answer(whole: Path, processor: Any, tmp_path: Path) -> None:
    """Greedy text of an imported model is the reference's; boxes in it are read; export gives the
    same tensors."""
    from transformers import Kosmos2ForConditionalGeneration

    image = picture(50, 70)
    theirs = Kosmos2ForConditionalGeneration.from_pretrained(whole)
    teach(theirs, processor(images=image, text=CAPTION + ANSWER, num_image_tokens=4, return_tensors="pt"))
    taught = tmp_path / "hf"
    theirs.save_pretrained(taught)
    processor.save_pretrained(taught)
    import_hf(taught, tmp_path / "ours")
    model = load(tmp_path / "ours", "cpu")
    given = processor(images=image, text=CAPTION, num_image_tokens=4, return_tensors="pt")
    ids = theirs.generate(**given, max_new_tokens=24, do_sample=False)[0, given["input_ids"].shape[1]:]
    sample = parse_sample({"messages": [{"role": "user", "content": [
        {"type": "image", "image": image}, {"type": "text", "text": CAPTION}]}]})  # fmt: skip
    answer = model.respond(sample.messages, max_tokens=24)
    assert answer == processor.decode(ids, skip_special_tokens=True).strip()
    assert model.processor.box_format is not None
    mentions = model.processor.box_format.parse(answer).mentions
    assert [mention.phrase for mention in mentions] == ["a snowman", "a fire"]
    for mention, box in zip(mentions, (SNOWMAN, FIRE), strict=True):
        (found,) = mention.places
        assert (found.x0, found.y0, found.x1, found.y1) == pytest.approx(box)  # pyright: ignore[reportAttributeAccessIssue]
    export_hf(tmp_path / "ours", tmp_path / "back")
    assert same_tensors(taught, tmp_path / "back")
    again = Kosmos2ForConditionalGeneration.from_pretrained(tmp_path / "back")
    torch.testing.assert_close(again(**given).logits, theirs(**given).logits)
    for name in ("config.json", "processor_config.json"):
        before, after = (json.loads((root / name).read_text()) for root in (taught, tmp_path / "back"))
        assert before == after
