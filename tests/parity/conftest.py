"""`record`: what a test has shown about an oracle; `--parity-report FILE` writes it down as a table."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Generator
from pathlib import Path

import parity_report
import pytest
import torch
from matrix import ORACLES

Record = Callable[..., None]
MARK = "parity"
SECONDS = "parity-seconds"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity-report", type=Path, metavar="FILE", help="write what equals its original")
    parser.addoption("--parity-keep", action="store_true", help="keep the rows of what this run does not try, as they are in that file")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--parity-report", default=None)
    # With xdist the workers' reports come together in the process that started them.
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Report(path, keep=config.getoption("--parity-keep")), "parity-report")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    return (yield from _seconds_of(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    return (yield from _seconds_of(item))


def _seconds_of(item: pytest.Item) -> Generator[None]:
    """Of the processor: those of the clock would tell what else the machine did."""
    before = time.process_time()
    yield
    item.user_properties.append((SECONDS, time.process_time() - before))


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """`record(oracle, *aspects, ours=..., theirs=...)`: these aspects hold; the two tensors are equal to 1e-5, or are bytes no further
    apart than the oracle says. `of_largest`: 1e-5 of the largest number, where the small ones are sums of large ones."""

    def note(
        oracle: str, *aspects: str, ours: torch.Tensor | None = None, theirs: torch.Tensor | None = None, of_largest: bool = False
    ) -> None:
        assert oracle in ORACLES
        assert set(aspects) <= set(ORACLES[oracle].aspects)
        difference = size = apart = None
        if ours is not None and theirs is not None and not theirs.is_floating_point():
            assert ours.shape == theirs.shape
            apart = int((ours.int() - theirs.int()).abs().max())
            assert apart <= ORACLES[oracle].bytes_apart
        elif ours is not None and theirs is not None:
            difference, size = float((ours - theirs).abs().max()), float(theirs.abs().max())
            torch.testing.assert_close(ours, theirs, atol=1e-5 * size if of_largest else 1e-5, rtol=1e-5)
        request.node.user_properties += [(MARK, (oracle, aspect, difference, size, apart)) for aspect in aspects]

    return note


class _Report:
    def __init__(self, path: Path, *, keep: bool) -> None:
        self.path = path
        self.keep = keep
        self.seconds: dict[str, float] = defaultdict(float)
        self.noted: dict[str, set[tuple[str, str, float | None, float | None, int | None]]] = defaultdict(set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.seconds[report.nodeid] = sum(float(value) for key, value in report.user_properties if key == SECONDS)  # pyright: ignore
            self.noted[report.nodeid] |= {tuple(value) for key, value in report.user_properties if key == MARK}  # pyright: ignore

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        rows: dict[str, parity_report.Row] = defaultdict(parity_report.Row)
        for test, notes in self.noted.items():
            for oracle, aspect, difference, size, apart in notes:
                rows[oracle].add(aspect, difference, size, apart)
            for oracle in {note[0] for note in notes}:
                rows[oracle].seconds += self.seconds[test]
        try:
            parity_report.write(dict(rows), self.path, keep=self.keep)
        except ValueError as error:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            print(f"\n{self.path} is not written: {error}")
