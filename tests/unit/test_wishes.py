"""Requests to draw and to find, and questions: wordings and names apart, decided as they are told, and counted as they are answered."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.api import Model
from sensorium.core.responder import Answer, Request
from sensorium.core.sample import MISSING, Message, Part, Sample
from sensorium.data import wordings
from sensorium.data.drawn import NEW_REQUESTS, is_held
from sensorium.data.wishes import Things, WishesSource
from sensorium.interop.assemble import build_pretrained
from sensorium.model.learning import Learn, set_learning
from sensorium.processing.collate import collate
from sensorium.recipes import RECIPES
from sensorium.recipes.nano_chooses import PAINTER, tiny
from sensorium.training.objectives.decide import DecideConfig

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "wishes.py"


def test_no_wording_is_said_twice_and_each_names_its_thing() -> None:
    lists = (wordings.DRAW, wordings.FIND, wordings.NEW_DRAW, wordings.NEW_FIND)
    every = [*(text for one in lists for text in one), *(asked for asked, _ in (*wordings.WRITE, *wordings.NEW_WRITE))]
    assert len(set(every)) == len(every)
    assert all(text.count("{}") == 1 for one in lists for text in one)
    assert set(NEW_REQUESTS) <= set(wordings.NEW_DRAW)
    for asked, answer in (*wordings.WRITE, *wordings.NEW_WRITE):
        assert "{" not in (asked + answer).format(a="a cat", n="cat", k="animal")


def test_training_lacks_a_word_of_most_held_out_wordings() -> None:
    """So that these are measured in words, and not only in sentences, that are new; the commonest are in both."""
    train = {*map(words, (*wordings.DRAW, *wordings.FIND, *(asked for asked, _ in wordings.WRITE)))}
    held = {*map(words, (*wordings.NEW_DRAW, *wordings.NEW_FIND, *(asked for asked, _ in wordings.NEW_WRITE)))}
    said, kept = frozenset().union(*train), frozenset(wordings.KEPT_BACK)
    assert not said & kept
    assert frozenset().union(*held) - said == kept
    assert not train & held
    # All but three wordings hold such a word, as the card says.
    assert (len(held), sum(not one & kept for one in held)) == (42, 3)


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", re.sub(r"\{.*?\}", "", text).lower()))


def test_held_out_requests_share_no_wording_and_no_name_with_training() -> None:
    train, held = Things(("shipped",), "train"), Things(("shipped",), "heldout")
    assert not set(train._names) & set(held._names)
    assert all(is_held(name) for name in held._shapes)
    assert not set(train._pairs) & set(held._pairs)
    said = {split: {sample.messages[0].text for sample in map(source.__getitem__, range(200))}
            for split in ("train", "heldout") for source in [WishesSource(parts=("shipped",), split=split, words=0.3).open()]}  # fmt: skip
    assert not said["train"] & said["heldout"]


def test_each_row_says_its_way_or_is_answered_in_words() -> None:
    source = WishesSource(parts=("shipped",), words=0.4, count=300).open()
    ways = [cast(Any, part.value)["way"] if part.type == "image" else "words" for row in map(source.__getitem__, range(300)) for part in row.messages[1].content]
    assert {way: 0.2 < ways.count(way) / 300 < 0.5 for way in ("first", "other", "words")} == dict.fromkeys(("first", "other", "words"), True)
    again = WishesSource(parts=("shipped",), words=0.4, count=300).open()
    assert [source[i].messages[0].text for i in range(20)] == [again[i].messages[0].text for i in range(20)]


def test_what_is_decided_is_the_same_of_known_states(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Model(*build_pretrained(tiny().model))
    network, source = model.network.eval(), WishesSource(parts=("shipped",)).open()
    batch = collate([[model.processor.encode(source[i])] for i in range(6)], model.tokenizer.pad_id)
    objective = DecideConfig().build(network, model.processor, ())
    set_learning(network, (Learn(part="hands.image_choice", lr=1.0), Learn(part="backbone", lr=1.0)))
    ran = objective(network, batch)
    set_learning(network, (Learn(part="hands.image_choice", lr=1.0),))
    kept = objective(network, batch)
    torch.testing.assert_close(kept.total, ran.total)
    assert (kept.count, kept.parts) == (ran.count, ran.parts)
    monkeypatch.setattr(network, "forward", None)
    torch.testing.assert_close(objective(network, batch).total, kept.total, atol=0, rtol=0)


def test_what_is_to_be_found_without_an_index_is_drawn_or_missing_as_the_model_says() -> None:
    torch.manual_seed(0)
    model = Model(*build_pretrained(tiny().model))
    network, ids = model.network, [*model.processor.signals["image"]]
    choice: Any = network.hands["image_choice"]
    with torch.no_grad():
        choice.out.weight.zero_()
        choice.out.bias.copy_(torch.tensor([0.0, 1.0]))
    message, maker = (Message("user", (Part("text", "find a cat"),)),), model.engine.maker
    asked = Sample(message)
    prompt = model.processor.prompt(message)
    (missing,) = maker.parts(prompt, ids, asked)
    assert missing.type == MISSING
    assert "sensorium index build MODEL PICTURES" in str(missing.value)
    hand = network.config.hands["image"]
    assert hand.choice is not None
    lenient = hand.model_copy(update={"choice": hand.choice.model_copy(update={"falls_back": True})})
    network.config = network.config.model_copy(update={"hands": {"image": lenient}})
    (drawn,) = maker.parts(prompt, ids, asked)
    assert drawn.type == "image"


def test_the_painter_of_nano_chooses_is_nano_draws() -> None:
    """Named, so that it does not lie in the package twice."""
    drawer: Any = RECIPES.find("nano-chooses")().model.hands["image"].generator
    assert drawer.weights == (PAINTER,)
    assert drawer.model_copy(update={"weights": ()}) == RECIPES.find("nano-draws")().model.hands["image"].generator


def test_the_script_counts_ways_as_they_are_gone() -> None:
    script = SimpleNamespace(**runpy.run_path(str(SCRIPT)))
    def mark(value: int) -> Answer:
        return Answer("", "", 0, (Part("image", Image.fromarray(np.full((1, 1, 3), value, np.uint8))),))
    assert [script.way_of(mark(script.MARKS[way])) for way in ("draw", "find")] == ["draw", "find"]
    assert script.way_of(Answer("", "a cat", 2, (Part("text", "a cat"),))) == "write"
    assert script.way_of(Answer("", "", 0, (Part(MISSING, {"kind": "image", "error": "x"}),))) == "lost"
    assert script.way_of(Answer("", "", 0, mark(script.MARKS["draw"]).parts * 2)) == "several"
    request = Request("1", (Message("user", (Part("text", "find it"),)),), 8)
    told = script.table([("draw", "draw", request), ("draw", "find", request), ("find", "find", request), ("write", "write", request)])
    assert told["right"] | {"interval_95": None} == {"count": 3, "of": 4, "share": 0.75, "interval_95": None}
    assert told["draw"]["find"]["share"] == 0.5
    assert told["wrong"] == ["draw -> find: find it"]
    # Words alone tell what they were told with.
    said = [Request(str(i), (Message("user", (Part("text", text),)),), 8) for i, text in enumerate(("Please paint a cat.", "Please look for a picture of a cat.", "What is a cat?"))]
    assert script.by_words(said) == ["draw", "find", "write"]
