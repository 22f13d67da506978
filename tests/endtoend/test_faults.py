"""Signals and loss spikes: the last checkpoint is whole, and the run goes on."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from faults import PROBES, at_step, command, lines, same_run, start, step_of, tiny, train

from sensorium.core.errors import NumericsError, StoppedError
from sensorium.training.objectives import next_token


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_step_and_saves(
    number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny("stages.align.checkpoint_every=100")
    train(recipe, tmp_path / "whole")
    # A shell that runs the tests in the background has them ignore Ctrl-C, and what is ignored stays so.
    inherited = signal.signal(number, signal.default_int_handler)
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        at_step(4, lambda: os.kill(os.getpid(), number), patch)
        with pytest.raises(StoppedError, match=f"step 4 of 6.*{number.name}, and saved.*--resume") as stop:
            train(recipe, tmp_path / "cut")
    assert stop.value.exit_code == code
    assert signal.getsignal(number) == before
    signal.signal(number, inherited)
    assert step_of(tmp_path / "cut") == (0, 4)
    train(recipe, tmp_path / "cut", resume=True)
    same_run(tmp_path / "whole", tmp_path / "cut")


def test_the_command_tells_schedulers(tmp_path: Path) -> None:
    """A process of its own: SIGTERM gives 143 and one line; it goes on; two signals end it at once."""
    long = ("stages.align.steps=2000", "stages.align.checkpoint_every=1000")
    for signals, code in ((1, 143), (2, -signal.SIGTERM)):
        folder = tmp_path / str(signals)
        # The second run's step never ends by itself: only the second signal can end it.
        arguments = command(folder, *long) if signals == 1 else [sys.executable, "-c", HANGING, str(folder)]
        child = start(arguments)
        log = folder / "log.jsonl"
        deadline = time.monotonic() + 120
        while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.05)
        for _ in range(signals):
            child.send_signal(signal.SIGTERM)
            time.sleep(0.5)
        _, said = child.communicate(timeout=60)
        assert child.returncode == code, said
        assert "finishing this step" in said
        assert ("stopped by SIGTERM, and saved" in said) == (signals == 1)
        assert "Traceback" not in said
    assert step_of(tmp_path / "1")[1] > 0


HANGING = """
import sys, time
from pathlib import Path
from sensorium.training.signals import StopRequest, watch_signals
folder = Path(sys.argv[1])
folder.mkdir()
with watch_signals(StopRequest()):
    (folder / "log.jsonl").write_text("begun")
    while True:
        time.sleep(0.1)
"""


def test_other_threads_take_no_signals(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=train, args=(tiny("stages.instruct.steps=1"), tmp_path / "a"))
    thread.start()
    thread.join()
    assert len(lines(tmp_path / "a")) == 7
    assert signal.getsignal(signal.SIGTERM) == before


def spoil(batches: set[int], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have some batches, known by what is in them, always give a loss ten times too large."""
    seen: list[int] = []
    real = next_token.next_token_losses
    known: dict[bytes, int] = {}

    def losses(model: Any, batch: Any) -> Any:
        made = real(model, batch)
        content = batch.input_ids_BT.numpy().tobytes()
        number = known.setdefault(content, len(known))
        seen.append(number)
        if number in batches and len(seen) > PROBES:
            made.total = made.total * 10
        return made

    monkeypatch.setattr(next_token, "next_token_losses", losses)
    return seen


def spiky(options: str, *more: str) -> Any:
    return tiny(f"stages.align.spikes={{factor: 2.5, window: 3, {options}}}", "stages.align.steps=9",
                "stages.align.checkpoint_every=4", "stages.instruct.steps=1", *more)  # fmt: skip


# Batch 0 is the first stage's probe and first step; batch 1 is the second stage's probe.
@pytest.mark.parametrize(("bad", "accumulate"), [({6}, 1), ({4, 9}, 1), ({9}, 2)])
def test_a_spike_is_gone_back_over_and_left_out(
    bad: set[int], accumulate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = spiky("rewind: true", f"stages.align.accumulate={accumulate}")
    seen = spoil(bad, monkeypatch)
    train(recipe, tmp_path / "whole")
    said = lines(tmp_path / "whole")
    assert [x["step"] for x in said] == [*range(1, 10), 1]
    assert [x["rewound"]["times"] for x in said if "rewound" in x] == list(range(1, len(bad) + 1))
    assert sum(x.get("left_out_samples", 0) for x in said) == 4 * accumulate * len(bad)
    assert max(x["loss"] for x in said[:9]) < 2 * min(x["loss"] for x in said[:9])
    for number in bad:
        assert seen.count(number) >= 1
    # Cut anywhere, resumed: the same run.
    for moment in (3, 7, 9, 11):
        folder = tmp_path / f"cut{moment}"
        with monkeypatch.context() as patch:
            at_step(moment, lambda: (_ for _ in ()).throw(KeyboardInterrupt()), patch)
            with pytest.raises(KeyboardInterrupt):
                train(recipe, folder)
        train(recipe, folder, resume=True)
        same_run(tmp_path / "whole", folder)


def test_spikes_without_end_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil({5, 6, 7, 8, 9, 10, 11}, monkeypatch)
    with pytest.raises(NumericsError, match="after 2 rewinds"):
        train(spiky("most: 2"), tmp_path / "a")
    assert step_of(tmp_path / "a") == (0, 4)
    assert lines(tmp_path / "a")[-1]["loss"] > 20


def test_spikes_may_be_only_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil({6}, monkeypatch)
    train(spiky("rewind: false"), tmp_path / "a")
    assert [x["step"] for x in lines(tmp_path / "a") if "spike" in x] == [6]
