"""A job of several processes: what each is told, how they are watched, and when they are started again. No cluster needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer.testing

from sensorium.cli.launch import job
from sensorium.cli.launch.child import HELD, Child, Heard
from sensorium.cli.launch.here import SETTINGS, endings_of, words_of
from sensorium.cli.launch.job import run_job, watch
from sensorium.cli.launch.seats import Seat, by_machine, environments
from sensorium.cli.launching import LaunchOptions, launch_command, with_address
from sensorium.cli.main import app
from sensorium.core.errors import ConfigError, MissingDependencyError, SensoriumError, StoppedError
from sensorium.training.distributed.place import Place, place
from sensorium.training.signals import StopRequest

SEATS = [Seat("b", "10.0.0.2", ("3",)), Seat("a", "10.0.0.1", ("0",)), Seat("b", "10.0.0.2", ("1",))]


def test_ranks_of_a_machine_follow_each_other_and_see_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    order = by_machine(SEATS)
    assert order == [0, 2, 1]
    told = environments([SEATS[n] for n in order], 1234, starts=1)
    places: list[Place] = []
    for mine in told:
        for name, value in mine.items():
            monkeypatch.setenv(name, value)
        places.append(place())
    assert places == [Place(0, 3, 0, 2, 1), Place(1, 3, 1, 2, 1), Place(2, 3, 0, 1, 1)]
    # The GPU of a process is the one at its local rank.
    assert [mine["CUDA_VISIBLE_DEVICES"] for mine in told] == ["3,1", "3,1", "0"]
    assert {(mine["MASTER_ADDR"], mine["MASTER_PORT"]) for mine in told} == {("10.0.0.2", "1234")}
    # One that was given none must not find those that others were given.
    assert environments([Seat("a", "10.0.0.1")], 1, 0)[0]["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("--ray -n 2 -- train tiny", "--ray find -n 2 -- train tiny"),
        ("--ray -- train tiny", "--ray find -- train tiny"),
        ("--ray", "--ray find"),
        ("--ray local -- train tiny", "--ray local -- train tiny"),
        ("-n 2 -- train tiny --ray", "-n 2 -- train tiny --ray"),
    ],
)
def test_an_address_may_be_left_out(given: str, read: str) -> None:
    assert with_address(given.split()) == read.split()


def test_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[str], LaunchOptions]] = []
    monkeypatch.setattr("sensorium.cli.launching.launch_command", lambda *given: seen.append(given))
    run = typer.testing.CliRunner().invoke
    options = ["--ray", "-n", "2", "--token-file", "t", "--restarts", "3"]
    assert run(app, ["launch", *options, "--", "train", "tiny", "a=1", "--resume"]).exit_code == 0
    assert run(app, ["launch", "--", "train", "tiny"]).exit_code == 0
    assert seen == [(["train", "tiny", "a=1", "--resume"], LaunchOptions(2, 3, "find", None, "t")),
                    (["train", "tiny"], LaunchOptions())]  # fmt: skip


def test_without_a_cluster_it_is_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[object, ...]] = []
    monkeypatch.setattr("sensorium.cli.launch.here.run_here", lambda *words: given.append(words))
    launch_command(["train", "tiny", "--resume"], LaunchOptions(processes=2, restarts=1))
    assert given == [(["train", "tiny", "--resume"], 2, 1)]
    from torch.distributed.run import parse_args

    parsed = parse_args(words_of(["train", "tiny", "--resume"], 2, 1))
    assert (parsed.nproc_per_node, parsed.max_restarts, parsed.module) == ("2", 1, True)
    assert [parsed.training_script, *parsed.training_script_args] == [HELD, "train", "tiny", "--resume"]
    # Settings that it reads under these names.
    monkeypatch.setenv("PET_SIGNALS_TO_HANDLE", SETTINGS["PET_SIGNALS_TO_HANDLE"])
    assert parse_args(words_of(["train"], 1, 0)).signals_to_handle == "SIGTERM,SIGINT"


@pytest.mark.parametrize(
    ("ends", "code", "blamed"),
    [
        ({0: (1, 0), 1: (-9, 0)}, 137, "process 1 was killed by SIGKILL"),
        ({0: (2, 0), 1: (2, 0)}, 2, "process 0 failed with exit code 2"),
        # Ended by torchrun: in order, before they began, and at last by force.
        ({1: (6, 0), 0: (143, 0)}, 6, "process 1 failed with exit code 6"),
        ({1: (6, 0), 0: (-15, 1)}, 6, "process 1 failed with exit code 6"),
        ({1: (6, 0), 0: (-9, 30)}, 6, "process 1 failed with exit code 6"),
        ({1: (143, 0), 0: (143, 0)}, 143, "process 0 failed with exit code 143"),
    ],
)
def test_torchruns_failures_are_told_as_a_clusters(ends: dict[int, tuple[int, int]], code: int, blamed: str) -> None:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    failures = {rank: ProcessFailure(rank, 1, code, "") for rank, (code, _) in ends.items()}
    for rank, (_, late) in ends.items():
        failures[rank].timestamp = 1000 + late
    error = job.failure(endings_of(failures))
    assert (error.exit_code, error.found) == (code, blamed)


def test_what_does_not_go_together_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="launch was given 'eval'"):
        launch_command(["eval"], LaunchOptions())
    with pytest.raises(ConfigError, match="belong to --ray"):
        launch_command(["train", "tiny"], LaunchOptions(gpus=1))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    for name in ("empty", "binary", "", "none"):
        with pytest.raises(ConfigError, match="no token in the file"):
            launch_command(["train", "tiny"], LaunchOptions(ray="local", token_file=str(tmp_path / name)))
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'sensorium\[ray\]'"):
        launch_command(["train", "tiny"], LaunchOptions(ray="find"))
    # Where Ray finds no cluster it begins one, and would write a token for everybody to read.
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    assert os.environ["RAY_AUTH_MODE"] == "token"


class Told:
    """A process that says what it was told to, then waits for a signal if it has no end."""

    def __init__(self, *heard: Heard | Exception) -> None:
        self.heard = list(heard)
        self.signals: list[int] = []
        self.open: Future[Heard] | None = None

    def follow(self) -> Future[Heard]:
        future: Future[Heard] = Future()
        if not self.heard:
            self.open = future
            return future
        first = self.heard.pop(0)
        if isinstance(first, Exception):
            future.set_exception(first)
        else:
            future.set_result(first)
        return future

    def signal(self, number: int) -> None:
        self.signals.append(number)
        if self.open is not None:
            self.open.set_result(Heard([], -number if number == signal.SIGKILL else 128 + number))


def end(code: int, said: str = "", stream: str = "err") -> Heard:
    return Heard([(stream, said)] if said else [], code)


LOST = RuntimeError("The actor died. Guesses: many.\n\tid: 3\nIts node is gone. See more.")


def told_by(*starts: Sequence[Told], restarts: int = 0, stop: StopRequest | None = None) -> tuple[str, SensoriumError | None, int]:
    """What was printed, how the job ended, and how often it was started."""
    said, begun = list[str](), list[int]()

    @contextmanager
    def started(before: int) -> Iterator[Sequence[Told]]:
        begun.append(before)
        yield starts[before]

    error: SensoriumError | None = None
    try:
        run_job(started, stop or StopRequest(), lambda stream, text: said.append(f"{stream}:{text}"), restarts)
    except SensoriumError as raised:
        error = raised
    assert begun == list(range(len(begun)))
    return "".join(said), error, len(begun)


def test_only_the_first_is_heard() -> None:
    said, error, _ = told_by([Told(Heard([("out", "a"), ("err", "b")], None), end(0, "c", "out")), Told(end(0, "d"))])
    assert (said, error) == ("out:aerr:bout:c", None)


@pytest.mark.parametrize(
    ("ends", "blamed", "code"),
    [
        # Rank 0 has said its own; 1 says only that another one failed.
        ((end(2, "x"), end(2, "x")), "process 0 failed with exit code 2", 2),
        ((end(1, "process 1 failed: bad"), end(3, "bad row")), "process 1 failed with exit code 3: bad row", 3),
        ((end(1, "another ended"), end(-9)), "process 1 was killed by SIGKILL", 137),
        ((end(1, "another ended"), LOST), r"process 1 was killed by SIGKILL: its worker is lost \(The actor died. Its node is gone.\)", 137),
        ((end(0), end(6, "no room")), "process 1 failed with exit code 6: no room", 6),
    ],
)
def test_a_failure_ends_the_job_with_its_message(ends: Sequence[Heard | Exception], blamed: str, code: int) -> None:
    said, error, starts = told_by([Told(each) for each in ends], restarts=0)
    assert error is not None
    assert error.exit_code == code
    assert str(error).startswith(blamed.replace("\\", ""))
    assert starts == 1
    assert blamed not in said


def test_a_killed_process_starts_the_job_again_and_an_error_does_not() -> None:
    said, error, starts = told_by([Told(end(1)), Told(end(-9))], [Told(end(1)), Told(LOST)], [Told(end(0)), Told(end(0))], restarts=2)
    assert (error, starts) == (None, 3)
    assert "process 1 was killed by SIGKILL; start 2 of at most 3" in said
    _, error, starts = told_by([Told(end(1)), Told(end(-9))], [Told(end(-9)), Told(end(1))], restarts=1)
    assert starts == 2
    assert "process 0 was killed by SIGKILL" in str(error)
    _, error, starts = told_by([Told(end(2)), Told(end(2))], restarts=5)
    assert starts == 1
    assert error is not None


def test_who_does_not_end_behind_another_is_killed_and_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "GRACE_S", 0.2)
    hanging = Told()
    endings = watch([hanging, Told(end(7, "numbers"))], StopRequest(), lambda *_: None)
    assert hanging.signals == [signal.SIGKILL]
    assert [(each.rank, each.code, each.killed) for each in endings] == [(1, 7, False), (0, -9, False)]
    assert job.failure(endings).exit_code == 7


def test_a_signal_goes_to_all_and_ends_the_job_with_its_code() -> None:
    ranks = [Told(), Told()]
    _, error, starts = told_by(ranks, restarts=3, stop=StopRequest(signal.SIGINT))
    assert [rank.signals for rank in ranks] == [[signal.SIGTERM]] * 2
    assert isinstance(error, StoppedError)
    assert (error.exit_code, starts) == (130, 1)
    # What failed while it stopped is said instead.
    _, error, _ = told_by([Told(end(6, "disk")), Told()], stop=StopRequest(signal.SIGTERM))
    assert error is not None
    assert error.exit_code == 6


def test_a_process_is_heard_to_its_end(tmp_path: Path) -> None:
    child = Child(["no-such-command"], {"RANK": "0"}, str(tmp_path))
    pieces: list[tuple[str, str]] = []
    while (heard := child.follow(20)).code is None:
        pieces += heard.pieces
    assert heard.code == 2
    said = "".join(text for stream, text in [*pieces, *heard.pieces] if stream == "err")
    assert "No such command 'no-such-command'" in said
    with pytest.raises(ConfigError, match="no folder"):
        Child([], {}, str(tmp_path / "gone"))


def test_a_process_ends_with_its_holder() -> None:
    """Also where nobody reads any more what it says."""
    script = (
        "import os, signal, sys, time\nfrom sensorium.cli.launch.held import hold\n"
        "def note(*_):\n    os.write(2, b'saving')\n    os._exit(7)\n"
        "signal.signal(signal.SIGTERM, note)\nhold()\nos.write(1, b'x')\ntime.sleep(30)"
    )
    held = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert held.stdout is not None
    assert held.stdout.read(1) == b"x"
    for pipe in (held.stdout, held.stderr, held.stdin):
        assert pipe is not None
        pipe.close()
    assert held.wait(20) == 7


@pytest.mark.parametrize("begin", ["", "import os; os.close(0); "])
def test_what_a_holder_starts_ends_with_it(begin: str) -> None:
    """Also where it was killed, and could tell nobody; and where it had no standard input itself."""
    held = "import os, signal, time; from sensorium.cli.launch.held import hold; signal.signal(15, lambda *_: os._exit(7)); hold(); time.sleep(30)"
    script = (
        f"{begin}import subprocess, sys, time; from sensorium.cli.launch.held import hold_what_starts; hold_what_starts()\n"
        f"print(subprocess.Popen([sys.executable, '-c', {held!r}], start_new_session=True, stdout=subprocess.DEVNULL).pid, flush=True)\n"
        "time.sleep(30)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    process = int(holder.stdout.readline())
    assert Path(f"/proc/{process}").exists()
    holder.kill()
    holder.communicate()
    deadline = time.monotonic() + 20
    while _runs(process):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _runs(process: int) -> bool:
    """Not where it has ended and nobody asked how."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
