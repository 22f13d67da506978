"""docs/parity.md has a row for every oracle, and no other; the table of a run says all it should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from matrix import ORACLES
from parity_report import BYTES, Row, power, read, table_of, unproven, write

DOC = Path(__file__).parents[2] / "docs" / "parity.md"


def complete() -> dict[str, Row]:
    return {name: Row(set(oracle.proven), 3e-7, 2.0, 4.0) for name, oracle in ORACLES.items()}


def test_the_document_has_every_oracle() -> None:
    """What is compared, and what the notes excuse, are those of the table of oracles."""
    rows = read(DOC)
    assert list(rows) == list(ORACLES)
    for name, oracle in ORACLES.items():
        reference, *cells = rows[name]
        assert oracle.reference in reference
        table = table_of(name)
        groups = table.groups
        for group, cell in zip(groups.values(), cells, strict=False):
            words = cell.replace(",", "").split()
            assert [w for w in words if not w.startswith("(")] == [a for a in group if a in oracle.proven], name
        figures = dict(zip(table.figures, cells[len(groups) :], strict=True))
        differ, reach = (float(figures[title]) for title in table.figures[:2])
        assert differ <= 1e-5 * max(1.0, reach)
        assert int(figures.get(BYTES, 0)) <= oracle.bytes_apart
    assert [name for name, oracle in ORACLES.items() if oracle.bytes_apart] == ["emu3-draws"], "the page says so"
    text = DOC.read_text(encoding="utf-8")
    assert all(reason in text for oracle in ORACLES.values() for reason in oracle.cannot.values())


def test_a_run_that_lacks_something_writes_nothing(tmp_path: Path) -> None:
    rows = complete()
    assert unproven(rows) == []
    write(rows, tmp_path / "whole.md")
    assert list(read(tmp_path / "whole.md")) == list(ORACLES)
    rows["llava"].seen.remove("packed")
    rows["blip2-t5"].seen.add("packed")
    del rows["clip"]
    found = unproven(rows)
    assert "llava: packed is not shown" in found
    assert "clip: pixels is not shown" in found
    assert any(line.startswith("blip2-t5: packed is shown") for line in found)
    with pytest.raises(ValueError, match="llava: packed"):
        write(rows, tmp_path / "half.md")
    assert not (tmp_path / "half.md").exists()


def test_some_of_the_tests_write_their_rows_alone(tmp_path: Path) -> None:
    """All of a row, or nothing: what was not tried keeps its figures."""
    write(complete(), tmp_path / "p.md")
    before = read(tmp_path / "p.md")
    write({"lisa": Row({"weights", "made", "loss"}, 3e-6, 9.0, 20.0)}, tmp_path / "p.md", keep=True)
    after = read(tmp_path / "p.md")
    assert after.pop("lisa")[-3:] == ["1e-5", "9e+00", "1e2"] != before.pop("lisa")[-3:]
    assert after == before
    for rows, keep in (({"lisa": Row({"made"})}, True), ({}, False)):
        with pytest.raises(ValueError, match="lisa: loss is not shown"):
            write(rows, tmp_path / "p.md", keep=keep)
    with pytest.raises(ValueError, match="lisa: weights is not shown"):
        write({}, tmp_path / "new.md", keep=True)


@pytest.mark.parametrize(("oracle", "far"), [("janus-draws", 1), ("emu3-draws", 2)])
def test_bytes_are_no_further_apart_than_is_said(oracle: str, far: int, record: Callable[..., None]) -> None:
    theirs = torch.tensor([0, 7, 255 - far])
    with pytest.raises(AssertionError):
        record(oracle, "pictures", ours=theirs + torch.tensor([0, 0, far]), theirs=theirs)


def test_the_worst_difference_stands_in_the_row() -> None:
    row = Row()
    for difference, size, apart in ((2e-7, 3.0, None), (None, None, 1), (4e-8, 9.0, None), (None, None, 0)):
        row.add("values", difference, size, apart)
    assert row.figures(table_of("emu3-draws").figures) == ["1e-6", "9e+00", "1", "1e0"]


def test_figures_are_powers_of_ten() -> None:
    assert [power(x) for x in (0, 3e-7, 1e-6, 1.1e-6, 1, 7, 60)] == ["0", "1e-6", "1e-6", "1e-5", "1e0", "1e1", "1e2"]
