"""The report shows all that an answer holds, in one file that carries everything with it and runs nothing."""

from __future__ import annotations

import base64
import io
import re
import wave
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sensorium.core.hands import Made
from sensorium.core.masks import Mask
from sensorium.core.part import Origin, read_part
from sensorium.core.responder import Answer
from sensorium.core.sample import Part
from sensorium.evaluation.benchmarks.base import BenchmarkConfig, Item, question
from sensorium.evaluation.report import write_report
from sensorium.evaluation.report_parts import LONGEST_S
from sensorium.evaluation.runner import Result
from sensorium.media.drawing import COLOURS, OPAQUE
from sensorium.processing.masks import mask_part

EVIL = "<script>alert('x')</script>\" onload=\"y"
SOUND_N = np.sin(np.arange(22050 * 12) / 9).astype(np.float32)


class Plain(BenchmarkConfig):
    kind: str = "plain"

    def right(self, item: Item, answer: Answer) -> bool:
        return answer.text in item.gold


class Tags(HTMLParser):
    """The tags of a page, and the data that they carry."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def data(self, tag: str) -> list[bytes]:
        sources = [str(attrs["src"]) for name, attrs in self.found if name == tag]
        return [base64.b64decode(re.sub(r"^data:[a-z]+/[a-z]+;base64,", "", source), validate=True) for source in sources]


def report(tmp_path: Path, *answers: Answer) -> str:
    picture = Image.new("RGB", (264, 132), (100, 100, 100))
    items = [Item(question(answer.id, picture, f"Where? {EVIL}"), ("yes",)) for answer in answers]
    given: dict[str, Any] = {who: list(answers) for who in ("model", "blind", "constant")}
    scores = {who: {"accuracy": 0.0} for who in given}
    write_report("parts", [("m", [Result(Plain(), items, given, scores, 1.0, {})])], tmp_path / "r.html")
    return (tmp_path / "r.html").read_text(encoding="utf-8")


def test_every_kind_of_part_is_shown(tmp_path: Path) -> None:
    half = np.zeros((132, 264), dtype=bool)
    half[:, :132] = True
    page = report(tmp_path, Answer("a", "It is here", parts=(
        Part("text", f"It is {EVIL}"), mask_part(Mask.from_array(half), phrase=EVIL, picture=1),
        Part("boxes", {"places": [[200.0, 20.0, 250.0, 100.0], [1.0, 1.0, 9.0, 9.0]], "picture": 1}),
        Part("image", Image.new("RGB", (600, 600), (0, 200, 0)), EVIL), Part("audio", Made("audio", SOUND_N, sample_rate_hz=22050)),
        Part("video", Made("video", np.stack([np.full((8, 8, 3), 50 * i, np.uint8) for i in range(4)]), fps=4.0)),
        Part("missing", {"kind": "image", "error": f"it failed {EVIL}"}, "a ball"))))  # fmt: skip
    tags = Tags(page)
    asked, drawn, moving = (Image.open(io.BytesIO(data)) for data in tags.data("img"))
    # The mask lies over the left half of the picture that was asked about.
    tinted = 100 * (1 - OPAQUE) + np.asarray(COLOURS[0]) * OPAQUE
    pixels = np.asarray(asked.convert("RGB")).astype(float)
    assert np.abs(pixels[60, 60] - tinted).max() < 12
    assert np.abs(pixels[60, 160] - 100).max() < 12
    assert drawn.size == (132, 132)
    moving.load()
    assert (getattr(moving, "n_frames", 1), moving.info["duration"]) == (4, 250)
    (heard,) = tags.data("audio")
    with wave.open(io.BytesIO(heard)) as file:
        assert (file.getframerate(), file.getnframes()) == (11025, LONGEST_S * 11025)
    assert "[mask (&lt;script&gt;" in page
    assert "[2 boxes]" in page
    assert "no image: it failed &lt;script&gt;" in page
    assert "the first 10 of 12 seconds" in page
    # One file, small, and nothing of what a model or a row says is more than text.
    assert len(page) < 350_000
    assert {name for name, _ in tags.found} <= {"meta", "title", "style", "h1", "h2", "p", "table", "tr", "th", "td", "b", "span", "div", "i", "br", "img", "audio"}
    assert all(not name.startswith("on") for _, attrs in tags.found for name in attrs)
    assert all(str(attrs.get("src", "data:")).startswith("data:") for _, attrs in tags.found)


def test_a_plain_answer_is_its_text(tmp_path: Path) -> None:
    page = report(tmp_path, Answer("a", "yes"), Answer("b", ""))
    assert "<div><b>yes</b></div>" in page
    assert "<div><b>—</b></div>" in page


def test_a_picture_that_was_found_says_which_file_it_is(tmp_path: Path) -> None:
    found = Part("image", Image.new("RGB", (8, 8)), source=Origin("stars/<7>.png", 0.8312))
    page = report(tmp_path, Answer("1", "", 1, (found,)))
    assert "<div class=dim>found: stars/&lt;7&gt;.png (similarity 0.83)</div>" in page
    assert found.to_json()["source"] == {"file": "stars/<7>.png", "similarity": 0.8312}
    # Rows of others may have something else under this name.
    for other in ("https://example.org", {"url": "x"}, {"file": 7}):
        assert read_part({"type": "image", "image": "a.png", "source": other}, "row").source is None
    assert read_part({"type": "image", "image": "a.png", "source": {"file": "b.png"}}, "row").source == Origin("b.png")
