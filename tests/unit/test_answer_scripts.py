"""The scripts that time answers and count pictures nobody asked for count what they say."""

from __future__ import annotations

import platform
import runpy
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from sensorium.core.errors import DataError
from sensorium.core.responder import Answer, Request
from sensorium.core.sample import MISSING, Part
from sensorium.evaluation.benchmarks.pointing import PointingBenchmark

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PICTURE, WORDS = Part("image", None), Part("text", "a cat")


class Says:
    """Gives these parts in turn, after so many seconds each by a clock of its own."""

    def __init__(self, answers: Sequence[tuple[float, tuple[Part, ...]]], monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.now = list(answers), 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "process_time", lambda: self.now / 2)

    def respond(self, requests: Sequence[Request]) -> Iterator[Answer]:
        for request in requests:
            seconds, parts = self.left.pop(0)
            self.now += seconds
            yield Answer(request.id, "", 0, parts)


def script(name: str) -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(BENCHMARKS / f"{name}.py")))


def requests(count: int) -> list[Request]:
    return [Request(str(i), ()) for i in range(count)]


def test_only_answers_with_what_is_timed_count_and_the_first_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = script("answer_speed")
    says = Says([(90, (PICTURE,)), (1, (PICTURE,)), (50, (WORDS,)), (2, (WORDS, PICTURE)), (9, (PICTURE,)), (70, (PICTURE,))], monkeypatch)
    timed = speed.seconds_of(says, requests(6), "image", 3)
    assert timed == {"median_s": 2, "p5_s": 1.1, "p95_s": 8.3, "processor_s": 1, "answers": 3, "without": 1}
    assert len(says.left) == 1, "it goes on when it has enough"
    with pytest.raises(DataError, match=r"1 answers with a part 'image'.*3 of 2"):
        speed.seconds_of(Says([(1, (PICTURE,)), (1, (PICTURE,)), (1, (WORDS,))], monkeypatch), requests(3), "image", 3)


def test_what_is_asked_for_is_there_and_wants_a_drawing(data_home: Path) -> None:
    speed = script("answer_speed")
    pointed, drawn = (speed.TIMED[name].requests(4) for name in ("box", "drawing"))
    assert len({request.id for request in pointed}) == len({request.id for request in drawn}) == 4
    there = {item.request.id for item in PointingBenchmark(count=8).items() if "absent" not in item.tags}
    assert {request.id for request in pointed} <= there
    assert all(request.draws for request in drawn)


def test_the_processor_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Some Chip: 2 GHz\n\nprocessor\t: 1\nmodel name\t: Other\n")
    speed = script("answer_speed")
    monkeypatch.setitem(speed.processor.__globals__, "CPU_INFO", file)
    assert speed.processor() == "Some Chip: 2 GHz"
    file.write_text("processor\t: 0\n")
    assert speed.processor() == platform.machine()


def test_a_picture_that_could_not_be_made_was_wanted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    unasked = script("unasked_pictures")
    lost = {kind: Part(MISSING, {"kind": kind, "error": "no index"}) for kind in ("image", "audio")}
    says = Says([(0, parts) for parts in ((WORDS,), (WORDS, PICTURE), (lost["image"],), (lost["audio"],), ())], monkeypatch)
    counted = unasked.false_pictures(says, requests(5))
    assert (counted["pictures"], counted["questions"], counted["rate"]) == (2, 5, 0.4)
    assert counted["interval_95"] == pytest.approx([0.1176, 0.7693], abs=1e-3)
