"""What a run writes down: log, TensorBoard, curve, what was cut off."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sensorium.core.batch import Example
from sensorium.core.errors import CheckpointError
from sensorium.data.mixture import Pick
from sensorium.training.curve import draw_curve
from sensorium.training.log import TrainingLog
from sensorium.training.skipped import write_skipped
from sensorium.training.truncation import CutCounter


def line(step: int, loss: float) -> dict[str, Any]:
    return {"stage": "align", "step": step, "loss": loss}


def shown(folder: Path) -> list[tuple[int, float]]:
    """What TensorBoard would draw."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(e.step, round(e.value, 3)) for e in events.Scalars("align/loss")]


def test_tensorboard_gets_the_numbers_of_a_step(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, keep_bytes=0, tensorboard=True)
    log.write(line(1, 3.0))
    log.write(line(2, 2.0))
    log.close()
    assert shown(tmp_path) == [(1, 3.0), (2, 2.0)]


def test_a_resumed_run_replaces_its_points(tmp_path: Path) -> None:
    """Steps after the checkpoint run again: TensorBoard shows each step once."""
    log = TrainingLog(tmp_path, keep_bytes=0, tensorboard=True)
    log.write(line(1, 4.0))
    kept = log.size()
    for step in (2, 3, 4):
        log.write(line(step, 3.0))
    log.close()
    log = TrainingLog(tmp_path, keep_bytes=kept, tensorboard=True)
    log.write(line(2, 1.0))
    log.close()
    assert shown(tmp_path) == [(1, 4.0), (2, 1.0)]
    # A run that was killed before its first checkpoint starts over.
    log = TrainingLog(tmp_path, keep_bytes=0, tensorboard=True)
    log.write(line(1, 9.0))
    log.close()
    assert shown(tmp_path) == [(1, 9.0)]


def test_a_missing_curve_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    assert not draw_curve([], tmp_path / "loss.png")
    assert capsys.readouterr().err == ""
    assert not draw_curve([line(1, 2.0)], tmp_path / "loss.png")
    said = capsys.readouterr().err
    assert said.startswith("no loss.png: matplotlib is not installed")
    assert said.count("\n") == 1


def test_a_full_disk_does_not_hide_how_a_run_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from matplotlib.figure import Figure

    def full(*args: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    assert not draw_curve([line(1, 2.0)], tmp_path / "loss.png")
    assert "No space left" in capsys.readouterr().err


def put(path: Path, *, folder: bool) -> None:
    """Something that stands in a record's way."""
    path.mkdir() if folder else path.touch()


@pytest.mark.parametrize(("name", "folder"), [("log.jsonl", True), ("tensorboard", False), ("skipped_rows.json", True)])
def test_a_record_that_cannot_be_written_is_named(name: str, folder: bool, tmp_path: Path) -> None:
    put(tmp_path / name, folder=folder)

    def records() -> None:
        log = TrainingLog(tmp_path, keep_bytes=0, tensorboard=True)
        skipped = line(1, 2.0) | {"samples": 4, "skipped_rows": ["rows.jsonl:3: no picture"]}
        with closing(log):
            log.write(skipped)
        write_skipped([skipped], tmp_path)

    with pytest.raises(CheckpointError, match=rf"{tmp_path / name}: cannot be written: .* bytes are free.*--resume"):
        records()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_log_is_the_error_also_when_it_is_closed(tmp_path: Path) -> None:
    """What it could not write it tries once more then."""
    log = TrainingLog(tmp_path, keep_bytes=0, tensorboard=False)
    log.close()
    log._stream = Path("/dev/full").open("ab")  # noqa: SIM115

    def run() -> None:
        try:
            log.write(line(1, 2.0))
        finally:
            log.close()

    with pytest.raises(CheckpointError, match=r"log\.jsonl: cannot be written: No space left on device"):
        run()
    assert log._stream.closed


def test_cuts_are_counted_at_the_step_that_trains_on_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Examples are made ahead, in any order; picks 1, 2 and 5 are cut."""
    cuts = CutCounter("align", 64)
    for number in (5, 0, 2, 1, 4, 3):
        example = Example([1], [True], truncated_tokens=10 * number if number in (1, 2, 5) else 0)
        assert cuts.watch(example, Pick(0, 0, 0, number)) is example
    assert cuts.of([0]) == {}
    assert cuts.of([1, 2]) == {"truncated_samples": 2, "truncated_tokens": 30}
    assert cuts.of([3]) == {}
    assert cuts.of([4, 5]) == {"truncated_samples": 1, "truncated_tokens": 50}
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "max_length 64" in said
    assert "2 by 30 tokens" in said
