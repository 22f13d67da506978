"""Questions about described shapes: answers are right, and a share of rows asks them."""

from __future__ import annotations

import random

import pytest
from PIL import Image

from sensorium.data import drawn
from sensorium.data.drawn import NAMES, DrawnScenesSource, is_held
from sensorium.data.picture_book.instruct import with_article
from sensorium.data.shape_questions import FORMS, question_about


def test_answers_are_right() -> None:
    rng, seen = random.Random(1), set[str]()
    for number in range(4000):
        name = NAMES[number % len(NAMES)]
        color, shape = name.split()
        text = with_article(name)
        question, answer = question_about(rng, name, text)
        assert text in question
        form = question.replace(text, "{text}")
        seen.add(form)
        if "color is" in form:
            assert answer == color
        elif "shape" in form:
            assert answer == shape
        elif "round" in form:
            assert answer == ("yes" if shape in ("circle", "ring") else "no")
        elif form.startswith("Is {text}"):
            assert answer == ("yes" if form == f"Is {{text}} {color}? Answer yes or no." else "no")
        elif "painting" in form:
            assert answer == "no"
        elif form.startswith("How"):
            assert answer == f"Take a {color} pen, draw the outline of the {shape} and fill it."
        else:
            assert answer == (f"There is {text}." if form.startswith("Write a") else text)
    assert len(seen) == len(FORMS) - 1 + 10, "one form has a colour of its own in it"


def test_a_share_of_rows_wants_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "draw", lambda described: Image.new("RGB", (8, 8)))
    source = DrawnScenesSource(count=1000, words=0.3).open()
    asked = [source[i] for i in range(1000) if source[i].messages[1].content[0].type == "text"]
    assert 240 < len(asked) < 360
    assert not [name for name in NAMES if is_held(name) and any(name in sample.messages[0].text for sample in asked)]
    plain = DrawnScenesSource(count=200).open()
    assert all(plain[i].messages[1].content[0].type == "image" for i in range(200))
