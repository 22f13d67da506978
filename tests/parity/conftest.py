"""`record`: what a test has shown about an oracle; `--parity-report FILE` writes it down as a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import parity_report
import pytest
import torch
from matrix import ASPECTS, ORACLES

Record = Callable[..., None]
MARK = "parity"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity-report", type=Path, metavar="FILE", help="write what equals its original")


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--parity-report", default=None)
    # With xdist the workers' reports come together in the process that started them.
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Report(path), "parity-report")


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """`record(oracle, *aspects, ours=..., theirs=...)`: these aspects hold; the two tensors are equal to 1e-5."""

    def note(oracle: str, *aspects: str, ours: torch.Tensor | None = None, theirs: torch.Tensor | None = None) -> None:
        assert oracle in ORACLES
        assert set(aspects) <= set(ASPECTS)
        difference = size = None
        if ours is not None and theirs is not None:
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
            difference, size = float((ours - theirs).abs().max()), float(theirs.abs().max())
        request.node.user_properties += [(MARK, (oracle, aspect, difference, size)) for aspect in aspects]

    return note


class _Report:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = defaultdict(float)
        self.noted: dict[str, set[tuple[str, str, float | None, float | None]]] = defaultdict(set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.when == "call" and report.passed:
            self.noted[report.nodeid] |= {tuple(value) for key, value in report.user_properties if key == MARK}  # pyright: ignore

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        rows: dict[str, parity_report.Row] = defaultdict(parity_report.Row)
        for test, notes in self.noted.items():
            for oracle, aspect, difference, size in notes:
                rows[oracle].add(aspect, difference, size)
            for oracle in {note[0] for note in notes}:
                rows[oracle].seconds += self.seconds[test]
        try:
            parity_report.write(dict(rows), self.path)
        except ValueError as error:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            print(f"\n{self.path} is not written: {error}")
