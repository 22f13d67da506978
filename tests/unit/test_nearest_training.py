"""Are the nearest pictures of training looked for among what training drew, few at a time, and shown readably?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sensorium.cli.evaluating import parse_benchmarks
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.responder import Answer
from sensorium.core.sample import Part
from sensorium.data.config import FileSource
from sensorium.data.drawn import NAMES, DrawnScenesSource, shape_pairs
from sensorium.data.mixture import MixtureOrder
from sensorium.evaluation import nearest as looking
from sensorium.evaluation.benchmarks.drawing import LAST_LEG, DrawingBenchmark
from sensorium.evaluation.drawn_sheets import (
    CELL_PX,
    LINE_PX,
    caption_lines,
    write_neighbours,
)
from sensorium.evaluation.nearest import nearest, picture_of_row

SOURCE = DrawnScenesSource(count=60, seed=5)


def drawn_first(count: int, rows: int) -> list[int]:
    """The rows that training draws first."""
    order = MixtureOrder([rows], [1.0], seed=0)
    state = order.start()
    return [order.next(state).row for _ in range(count)]


def plain(color: str) -> Image.Image:
    return Image.new("RGB", (64, 64), color)


def test_a_copy_is_its_own_neighbour() -> None:
    training = SOURCE.open()
    first = drawn_first(40, 60)
    copies = [picture for row in (first[3], first[37]) if (picture := picture_of_row(training, row))]
    found = nearest([*copies, plain("magenta")], training, 40)
    assert found.row_N.tolist()[:2] == [first[3], first[37]]
    assert found.distance_N[:2] == pytest.approx([0, 0], abs=1e-3)
    assert found.distance_N[2] > 0.3
    assert found.looked_through == 40


def test_only_the_first_rows_that_training_draws_are_looked_through() -> None:
    training = SOURCE.open()
    order = drawn_first(60, 60)
    later = picture_of_row(training, order[20])
    assert later is not None
    assert float(nearest([later], training, 20).distance_N[0]) > 0.01
    assert nearest([later], training, 21).row_N.tolist() == [order[20]]
    assert nearest([later], training, 10**9).looked_through == 60


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    training, asked = SOURCE.open(), [plain("red"), plain("white"), plain("navy")]
    whole = nearest(asked, training, 50)
    monkeypatch.setattr(looking, "CHUNK", 7)
    parts = nearest(asked, training, 50)
    assert parts.row_N.tolist() == whole.row_N.tolist()
    np.testing.assert_allclose(parts.distance_N, whole.distance_N, atol=1e-6)
    # By hand, one after another.
    rows = drawn_first(50, 60)
    apart = [[float(np.sqrt(np.mean((small(a) - small(b)) ** 2))) for row in rows if (b := picture_of_row(training, row))] for a in asked]
    assert whole.distance_N == pytest.approx(np.array(apart).min(1), abs=1e-4)
    assert whole.row_N.tolist() == [rows[i] for i in np.array(apart).argmin(1)]


def small(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB").resize((32, 32), Image.Resampling.BOX), dtype=np.float64) / 255


def test_pictures_in_files_are_compared_and_rows_in_words_passed_over(tmp_path: Path) -> None:
    lines: list[str] = []
    for name in ("red", "blue"):
        plain(name).save(tmp_path / f"{name}.png")
        answer = [{"type": "image", "image": f"{name}.png"}]
        lines.append(json.dumps({"messages": [{"role": "user", "content": name}, {"role": "assistant", "content": answer}]}))
    # A picture in a question is none that was learnt to be drawn.
    shown = {"role": "user", "content": [{"type": "image", "image": "blue.png"}, {"type": "text", "text": "What?"}]}
    lines.append(json.dumps({"messages": [shown, {"role": "assistant", "content": "Blue."}]}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    source = FileSource(path=str(tmp_path / "rows.jsonl")).open()
    found = nearest([plain("blue"), plain("red")], source, 3)
    assert found.row_N.tolist() == [1, 0]
    assert found.looked_through == 2
    (tmp_path / "words.jsonl").write_text(lines[-1])
    with pytest.raises(DataError, match="no picture in answers of 1 rows"):
        nearest([plain("blue")], FileSource(path=str(tmp_path / "words.jsonl")).open(), 3)


def test_the_benchmark_says_among_how_many_of_what(tmp_path: Path) -> None:
    (config,) = parse_benchmarks(["drawing:count=3,trained_on={kind: drawn_scenes, count: 60, seed: 5},neighbours=40"], None)
    assert config == DrawingBenchmark(count=3, trained_on=SOURCE, neighbours=40)
    training, items = SOURCE.open(), config.items()
    copies = [picture_of_row(training, row) for row in drawn_first(3, 60)]
    answers = [Answer(item.request.id, "", 0, (Part("image", copy),)) for item, copy in zip(items, copies, strict=True)]
    found = config.sheets(items, answers, tmp_path)
    assert found["nearest_training_rms"] == pytest.approx(0, abs=1e-3)
    assert found["nearest_training_rms_least"] == pytest.approx(0, abs=1e-3)
    assert found["nearest_training_rms_of_real"] >= found["nearest_training_rms_of_real_least"] > 0.01
    assert (found["nearest_among"], found["nearest_of"]) == (40, 60)
    (said,) = found["said"]
    assert "(medians of 3, least 0.000 and 0." in said
    assert "among 40 pictures of the 60 rows of drawn_scenes (seed=5, count=60)" in said
    with pytest.raises(ConfigError):
        parse_benchmarks(["drawing:trained_on={kind: drawn_scene}"], None)


def test_the_default_is_what_nano_draws_last_drew_from() -> None:
    config = DrawingBenchmark()
    assert config.trained_on == LAST_LEG
    assert config.neighbours <= 2431 * 128, "rows that were never drawn"
    assert LAST_LEG.seed != DrawnScenesSource().seed
    again = DrawingBenchmark.from_dict(config.to_dict(), where="test")
    assert again == config


def test_every_caption_is_readable() -> None:
    captions = [*NAMES, *(", ".join(pair) for pair in (*shape_pairs("heldout", 10**6), *shape_pairs("train", 10**6)))]
    for caption in captions:
        lines = caption_lines(caption)
        assert len(lines) <= 2, lines
        assert " ".join(lines) == caption
    assert caption_lines("orange circle, black triangle") == ["orange circle,", "black triangle"]
    assert caption_lines("red heart") == ["red heart"]
    lines = caption_lines("a very long caption of somebody else that has no commas and no end")
    assert len(lines) == 2
    assert lines[1].endswith("…")


def test_pairs_stand_above_what_was_asked_for(tmp_path: Path) -> None:
    path, green, blue = tmp_path / "pairs.png", plain("#00c800"), plain("#0000c8")
    write_neighbours(path, [green] * 12, [blue] * 12, ["orange circle, black triangle"] * 12, [0.125] * 12)
    sheet = np.asarray(Image.open(path).convert("RGB"))
    height = 2 * CELL_PX + 3 * LINE_PX
    assert sheet.shape == (2 * height, 10 * CELL_PX, 3)
    for i in (0, 9, 11):
        y, x = i // 10 * height, i % 10 * CELL_PX
        assert (sheet[y + 4 : y + 92, x + 4 : x + 92] == (0, 200, 0)).all()
        assert (sheet[y + CELL_PX + 4 : y + CELL_PX + 92, x + 4 : x + 92] == (0, 0, 200)).all()
        for line in range(3):
            written = sheet[y + 2 * CELL_PX + line * LINE_PX : y + 2 * CELL_PX + (line + 1) * LINE_PX, x : x + CELL_PX]
            assert (written < 128).any(), f"line {line} of pair {i} is empty"
    assert (sheet[height:, 2 * CELL_PX :] == 255).all(), "more pairs than pictures"
