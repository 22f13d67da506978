"""A job on a real Ray cluster of this machine, which asks for a token. Needs the extra `ray`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sensorium.training.log import read_log

pytest.importorskip("ray")
CLUSTER = """
import sys, ray
context = ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
print(context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""
RECIPE = ("tiny", "stages.align.steps=3", "stages.instruct.steps=24", "stages.instruct.checkpoint_every=2",
          "stages.align.workers=0", "stages.instruct.workers=0")  # fmt: skip
START_S, END_S = 180, 60
CLOSE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def cluster(folder: Path) -> Iterator[str]:
    """The address of a cluster that lives as long as this module's tests."""
    (folder / "token").write_text("a" * 32)
    (folder / "wrong").write_text("b" * 32)
    script = subprocess.Popen([sys.executable, "-c", CLUSTER], env=environment(folder) | {"RAY_AUTH_TOKEN_PATH": str(folder / "token")},
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert script.stdin is not None
    assert script.stdout is not None
    yield script.stdout.readline().strip()
    script.stdin.close()
    script.wait(END_S)


def environment(folder: Path) -> dict[str, str]:
    """Of a user who has no token of his own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"RAY_AUTH_MODE": "token", "RAY_worker_niceness": "0", "HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", "SENSORIUM_CACHE": str(folder / "cache")}


Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def launch(folder: Path, cluster: str) -> Iterator[Launch]:
    """Start a job; one that a failed test leaves gives its place back."""
    jobs: list[subprocess.Popen[str]] = []

    def start(out: str, *options: str, token: str = "token", recipe: tuple[str, ...] = RECIPE) -> subprocess.Popen[str]:
        words = ["--ray", cluster, "--token-file", token, "-n", "2", *options, "--", "train", *recipe, "--out", out]
        jobs.append(subprocess.Popen([sys.executable, "-m", "sensorium.cli.main", "launch", *words], cwd=folder, env=environment(folder),
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))  # fmt: skip
        return jobs[-1]

    yield start
    for job in jobs:
        job.kill()
        job.wait()


def rank_1(run: Path, job: subprocess.Popen[str]) -> int:
    """The process of rank 1, once some steps are behind it."""
    deadline = time.monotonic() + START_S
    while not (run / "log.jsonl").exists() or len(read_log(run / "log.jsonl")) < 8:
        assert time.monotonic() < deadline
        assert job.poll() is None, job.communicate()
        time.sleep(0.05)
    held = subprocess.run(["pgrep", "-f", f"launch.held .* --out {run.name}$"], capture_output=True, text=True, check=True).stdout.split()
    found = [int(p) for p in held if b"\0RANK=1\0" in b"\0" + Path(f"/proc/{p}/environ").read_bytes()]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def alone(folder: Path) -> list[float]:
    """Losses of one process."""
    words = ["train", *RECIPE, "--out", "alone"]
    subprocess.run([sys.executable, "-m", "sensorium.cli.main", *words], cwd=folder, env=environment(folder), check=True, capture_output=True)
    return losses(folder / "alone")


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_log(run / "log.jsonl")]


@pytest.mark.parametrize("who", ["process", "worker"])
def test_a_killed_process_or_worker_starts_the_job_again(folder: Path, launch: Launch, alone: list[float], who: str) -> None:
    """Also where Ray's worker dies and the process that it started does not: it would hold its GPU."""
    job = launch(f"again-{who}", "--restarts", "1")
    process = rank_1(folder / f"again-{who}", job)
    parent = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(process if who == "process" else parent, signal.SIGKILL)
    said, errors = job.communicate(timeout=START_S + END_S)
    assert job.returncode == 0, errors
    assert "process 1 was killed by SIGKILL" in errors
    assert errors.count("stage align: 3 steps") == 2
    assert said.count("Model: ") == 1
    assert losses(folder / f"again-{who}") == pytest.approx(alone, rel=CLOSE)


def test_a_signal_ends_all_and_saves(folder: Path, launch: Launch) -> None:
    # A shell that runs the tests in the background has them, and what they start, ignore Ctrl-C.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    job = launch("stopped")
    signal.signal(signal.SIGINT, inherited)
    process = rank_1(folder / "stopped", job)
    job.send_signal(signal.SIGINT)
    _, errors = job.communicate(timeout=END_S)
    assert job.returncode == 130, errors
    assert "stopped by SIGTERM, and saved" in errors
    assert not Path(f"/proc/{process}").exists()


def test_the_processes_end_with_the_launcher(folder: Path, launch: Launch) -> None:
    job = launch("left")
    process = rank_1(folder / "left", job)
    job.kill()
    job.communicate(timeout=END_S)
    deadline = time.monotonic() + END_S
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_error_ends_the_job_with_its_code_and_message(launch: Launch) -> None:
    _, errors = (job := launch("bad", recipe=("tinny",))).communicate(timeout=START_S)
    assert job.returncode == 2
    assert errors.count("error: unknown recipe 'tinny'") == 1


def test_another_token_is_refused(folder: Path, launch: Launch) -> None:
    _, errors = (job := launch("no", token="wrong")).communicate(timeout=START_S)
    assert job.returncode == 1
    assert errors.startswith("error: the Ray cluster was not entered: the token is not the cluster's. ")
    assert not (folder / "no").exists()
