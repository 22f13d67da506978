"""Pictures with things whose places are known, what is asked about them, and how answers are marked."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sensorium.cli.evaluating import print_table, summary
from sensorium.core.boxes import Box
from sensorium.core.errors import DataError
from sensorium.core.masks import Mask, read_mask
from sensorium.core.responder import Answer, Constant
from sensorium.data.composites import Cutout, make_composite, name_words
from sensorium.data.located import CompositesSource, LocatedScenesSource, read_cutouts
from sensorium.data.pointing import Target, ask_where
from sensorium.evaluation.benchmarks.pointing import PointingBenchmark, view_of
from sensorium.evaluation.metrics.boxes import box_iou
from sensorium.evaluation.metrics.pointed import read_pointing
from sensorium.evaluation.report import write_report
from sensorium.evaluation.runner import run_benchmark
from sensorium.processing.masks import mask_part
from sensorium.text.box_formats import MiniGPTv2, Shikra

SHIPPED = ("shipped",)


def test_a_composite_is_the_same_every_time_and_its_boxes_fit_its_masks() -> None:
    cutouts = read_cutouts(SHIPPED, "train")
    for index in range(6):
        one, again = make_composite(cutouts, 3, index), make_composite(cutouts, 3, index)
        assert one.picture.tobytes() == again.picture.tobytes()
        assert 1 <= len(one.things) <= 5
        words = [word for thing in one.things for word in name_words(thing.entry)]
        assert len(words) == len(set(words))
        seen = np.zeros((one.picture.height, one.picture.width), dtype=int)
        for thing in one.things:
            rows, cols = np.nonzero(thing.mask_HW)
            assert thing.box == Box(cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)
            seen += thing.mask_HW
        assert seen.max() == 1
    assert make_composite(cutouts, 4, 0).picture.tobytes() != make_composite(cutouts, 3, 0).picture.tobytes()


def test_what_is_pasted_is_where_the_mask_says() -> None:
    """The mask's pixels differ from the ground, those around it do not."""
    red = Image.new("RGBA", (60, 40), (0, 0, 0, 0))
    red.paste((1, 254, 3, 255), (10, 5, 50, 35))
    folder = Path(__file__).parent
    entry = {"name": "brick", "accepted": ["brick"], "category": None, "image": ""}

    class InMemory(Cutout):
        def read(self) -> Image.Image | None:
            return red

    composite = make_composite([InMemory(entry, folder)], 1, 1)
    (thing,) = composite.things
    green = np.asarray(composite.picture)[..., 1] > 240
    blue = np.asarray(composite.picture)[..., 2] < 40
    inside = thing.mask_HW
    assert (green & blue)[inside].mean() > 0.9
    assert not (green & blue)[~inside].any()


def test_pictures_without_transparency_are_no_cut_outs(tmp_path: Path) -> None:
    Image.new("RGB", (50, 50)).save(tmp_path / "a.webp")
    whole = Cutout({"name": "a", "accepted": ["a"], "category": None}, tmp_path / "a.webp")
    assert whole.read() is None
    with pytest.raises(DataError, match="no cut-out could be placed"):
        make_composite([whole], 0, 0)


def test_held_out_cut_outs_are_not_those_of_training() -> None:
    train, heldout = ({c.entry["id"] for c in read_cutouts(SHIPPED, split)} for split in ("train", "heldout"))
    assert train
    assert heldout
    assert not train & heldout


def names_of(phrase: str, targets: list[Target]) -> list[Target]:
    return [t for t in targets if phrase in (*t.names, *t.kinds)]


@pytest.mark.parametrize("source", [LocatedScenesSource(count=40), CompositesSource(parts=SHIPPED, count=14)])
def test_questions_have_one_answer_and_a_quarter_asks_for_what_is_not_there(
    source: LocatedScenesSource | CompositesSource,
) -> None:
    locate = source.maker()
    ways: Counter[str] = Counter()
    for index in range(source.count):
        found = locate(index)
        asked = found.ask(random.Random(index), 8)
        assert asked == locate(index).ask(random.Random(index), 8)
        assert len({q.phrase for q in asked}) == len(asked)
        ways.update(q.way for q in asked)
        for q in asked:
            assert q.phrase in q.text
            fitting = names_of(q.phrase, list(found.targets))
            if q.way in ("name", "kind"):
                assert [t.box for t in fitting] == [q.box]
            elif q.way == "absent":
                assert not fitting
    assert ways["absent"] >= 0.25 * ways.total()
    assert {"name", "size", "place", "relation"} <= set(ways)


def test_relations_are_asked_only_where_they_are_clear() -> None:
    """Of two stars, one left of the circle and one at its level but higher, neither is `the star above`."""
    circle = Target(("circle",), Box(90, 90, 110, 110))
    left = Target(("star",), Box(10, 92, 30, 112))
    slanting = Target(("star",), Box(70, 60, 90, 80))
    asked = [ask_where([circle, left, other], 200, lambda _: None, random.Random(s), count=40)
             for s in range(5) for other in (slanting,)]  # fmt: skip
    phrases = {q.phrase for each in asked for q in each}
    assert "star above the circle" not in phrases
    assert "star to the left of the circle" not in phrases
    alone = {q.phrase for s in range(5) for q in
             ask_where([circle, left], 200, lambda _: None, random.Random(s), count=40)}  # fmt: skip
    assert "star to the left of the circle" in alone
    assert "star" in alone


def test_samples_hold_boxes_masks_and_separate_questions() -> None:
    sample = CompositesSource(parts=SHIPPED, count=3).open()[2]
    assert sample.separate_turns
    assert len(sample.conversations()) == len(sample.messages) // 2
    answers = [part for m in sample.messages if m.role == "assistant" for part in m.content]
    boxes = [part.value for part in answers if part.type == "boxes"]
    true = [thing["box"] for thing in sample.meta["things"]]
    assert boxes
    assert all(box in true for (box,) in boxes)
    assert any(part.value.startswith("There ") for part in answers if part.type == "text")
    for thing in sample.meta["things"]:
        box = read_mask(thing["mask"], "mask").box
        assert box is not None
        assert list(box.numbers) == thing["box"]
    told = LocatedScenesSource(task="grounded", count=3).open()[0]
    parts = [part.value for part in told.messages[-1].content if part.type == "boxes"]
    assert len(parts) == len(told.meta["things"])
    assert all(part["phrase"] for part in parts)


@pytest.mark.parametrize(("text", "state"), [
    ("{<10><20><50><60>}", "box"), ("It is at [0.100,0.200,0.500,0.600].", "box"),
    ("[[100,200,500,600]]", "box"), ("<box>(100,200),(500,600)</box>", "box"),
    ("There is no red ball.", "denied"), ("Not here.", "denied"),
    ("{<10><20><50>", "malformed"), ("", "malformed"), ("on the left", "malformed"),
])  # fmt: skip
def test_answers_are_read_in_every_format(text: str, state: str) -> None:
    pointed = read_pointing(text)
    assert pointed.state == state
    if state == "box":
        assert pointed.box is not None
        assert box_iou(pointed.box, Box(0.1, 0.2, 0.5, 0.6)) > 0.99


def test_overlap() -> None:
    assert box_iou(Box(0, 0, 2, 2), Box(1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert box_iou(Box(0, 0, 1, 1), Box(2, 2, 3, 3)) == 0
    assert box_iou(Box(0, 0, 0, 0), Box(0, 0, 0, 0)) == 0


def test_the_benchmark_marks_boxes_and_denials() -> None:
    benchmark = PointingBenchmark(parts=SHIPPED, limit=18)
    items = benchmark.items()
    tags = Counter(tag for item in items for tag in item.tags)
    assert tags["scenes"] == tags["composites"] == 9
    assert tags["absent"] == 6
    # A format with coarser steps is as good.
    coarse = [Answer(i.request.id, i.gold[0] if "absent" in i.tags else
                     MiniGPTv2().write(Shikra().parse(i.gold[0]).boxes)) for i in items]  # fmt: skip
    scores = benchmark.scores(items, coarse)
    assert scores["iou_50"] == scores["absent_denied"] == 1.0
    assert 0.85 < scores["mean_iou"] <= 1.0
    assert scores["malformed"] == scores["present_denied"] == 0.0
    denying = benchmark.scores(items, [Answer(i.request.id, "There is no such thing.") for i in items])
    assert (denying["iou_50"], denying["absent_denied"], denying["present_denied"]) == (0.0, 1.0, 1.0)
    mute = benchmark.scores(items, [Answer(i.request.id, "{<1><2>") for i in items])
    assert (mute["malformed"], mute["absent_denied"], mute["mean_iou"]) == (1.0, 0.0, 0.0)


def test_masks_of_answers_are_scored_beside_the_true_ones() -> None:
    """True masks score 1; a box that is filled scores what the thing fills of it; without any, nothing is said of masks."""
    benchmark = PointingBenchmark(parts=SHIPPED, limit=6)
    items = benchmark.items()
    there = [item for item in items if "absent" not in item.tags]
    plain = [Answer(item.request.id, item.gold[0]) for item in items]
    assert not any(name.startswith("mask_") for name in benchmark.scores(items, plain))
    sources = {"scenes": LocatedScenesSource(seed=benchmark.seed), "composites": CompositesSource(parts=SHIPPED, split="heldout", seed=benchmark.seed)}
    found = {item.request.id: sources[item.tags[0]].maker()(int(item.request.id.rsplit("/", 1)[1])) for item in there}
    truths = []
    for item in there:
        located = found[item.request.id]
        view, gold = view_of(located.picture.size, benchmark.frame), Shikra().parse(item.gold[0]).boxes[0]
        shares = [box_iou(view.to_unit(view.forward(target.box)), gold) for target in located.targets]
        truths.append(Mask.from_array(located.truth[shares.index(max(shares))].mask_HW))

    def with_masks(masks: list[Mask]) -> list[Answer]:
        given = dict(zip((item.request.id for item in there), masks, strict=False))
        return [replace(answer, parts=(mask_part(given[answer.id]),) if answer.id in given else ()) for answer in plain]

    assert benchmark.scores(items, with_masks(truths))["mask_giou"] == 1.0
    one = benchmark.scores(items, with_masks(truths[:1]))
    assert one["mask_giou"] == pytest.approx(1 / len(there))
    filled = []
    for true in truths:
        inside = np.zeros(true.size, dtype=bool)
        assert true.box is not None
        x0, y0, x1, y1 = map(int, true.box.numbers)
        inside[y0:y1, x0:x1] = True
        filled.append(Mask.from_array(inside))
    scores = benchmark.scores(items, with_masks(filled))
    shares = [true.area / box.area for true, box in zip(truths, filled, strict=True)]
    assert scores["mask_giou"] == pytest.approx(sum(shares) / len(shares))
    assert scores["mask_ciou"] == pytest.approx(sum(t.area for t in truths) / sum(b.area for b in filled))


def test_baselines_and_the_report_with_boxes_drawn(tmp_path: Path) -> None:
    benchmark = PointingBenchmark(parts=SHIPPED, limit=12)
    result = run_benchmark(benchmark, Constant(benchmark.constant))
    centre = read_pointing(benchmark.constant).box
    assert centre is not None
    assert centre.x0 + centre.x1 == pytest.approx(1.0, abs=0.002)
    assert result.scores["model"] == result.scores["constant"]
    assert result.scores["model"]["random_mean_iou"] < 0.3
    assert benchmark.counted(result.items) == 8
    low, high = result.interval("model")
    assert low <= result.headline("model") <= high
    # Wider than with all twelve questions, which the headline is no share of.
    assert high - low > 0.3
    write_report("pointing", [("centre", [result])], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<img") == 12
    assert "iou 50" in page


def test_the_printed_table_has_baselines_denials_and_the_number_that_each_is_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark = PointingBenchmark(parts=SHIPPED, limit=12)
    result = run_benchmark(benchmark, Constant("There is no such thing."))
    print_table(summary("m", [result]))
    head, first, absent, chance, mean, *more = capsys.readouterr().out.splitlines()
    assert head.split()[-1] == "n"
    assert first.split()[:4] == ["pointing", "iou", "50", "0.0%"]
    # Eight of the twelve questions ask for what is there.
    assert first.split()[-1] == "8"
    assert re.fullmatch(r" +absent denied +100\.0% +51\.0% - 100\.0% .* 4", absent)
    own = result.scores["model"]
    assert chance.split() == ["random", "boxes", f"{own['random_iou_50']:.1%}"]
    assert mean.split("random")[1].split() == ["0.0%", "/", f"{own['random_mean_iou']:.1%}"]
    assert not more
    older = summary("m", [result])
    del older["benchmarks"]["pointing"]["counted"]
    print_table(older)
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "12"
    result.scores["model"] |= {"mask_giou": 0.5, "mask_ciou": 0.25}
    print_table(summary("m", [result]))
    assert capsys.readouterr().out.splitlines()[-1].split() == ["masks", "gIoU", "/", "cIoU", "50.0%", "/", "25.0%"]
    write_report("pointing", [("m", [result])], tmp_path / "report.html")
    assert "<td class=n>8</td></tr>" in (tmp_path / "report.html").read_text()
    # Where nothing absent is asked for, nothing is said of it.
    assert benchmark.groups([item for item in result.items if "absent" not in item.tags]) == {}


def test_drawn_boxes_lie_where_the_thing_is() -> None:
    """On a picture that is not square, whose frame is padded."""
    benchmark = PointingBenchmark(parts=SHIPPED, limit=1)
    picture = Image.new("RGB", (256, 192), "white")
    view = view_of(picture.size, "letterbox")
    gold = Shikra().write([view.to_unit(view.forward(Box(50, 30, 120, 100)))])
    (item,) = benchmark.items()
    item = replace(item, gold=(gold,), tags=("scenes",))
    drawn = np.asarray(benchmark.drawn(item, Answer("", ""), picture)).astype(int)
    # Above the box stands what it is called.
    rows, cols = np.nonzero((drawn[32:] != 255).any(axis=-1))
    assert (cols.min(), cols.max()) == pytest.approx((50, 119), abs=1)
    assert rows.max() + 32 == pytest.approx(99, abs=1)
