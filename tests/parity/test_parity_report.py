"""docs/parity.md has a row for every oracle, and no other; the table of a run says all it should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from matrix import ASPECTS, MADE, ORACLES, PROCESSING, PROOFS
from parity_report import BYTES, OF_LARGEST, Row, power, proofs, read, table_of, unproven, write

from sensorium.recipes import RECIPES, TINY_FORMS

DOC = Path(__file__).parents[2] / "docs" / "parity.md"
ALL, FROZEN, DRAWN = "weights, made, loss", "weights, made", "codes, values, pictures, guidance"
COMPARED = {
    "lisa": ALL, "mgie": ALL, "emu": ALL, "emu2": ALL, "seed": ALL, "fromage": ALL, "gill": ALL, "next-gpt": ALL, "next-gpt-1.5": ALL,
    "imagebind": FROZEN, "minigpt-5": ALL, "sam": FROZEN, "sam-file": FROZEN, "stable_diffusion": ALL, "stable_diffusion-2.1": ALL, "unclip": FROZEN,
    "sdxl": FROZEN, "text_to_video": FROZEN, "audioldm": FROZEN, "audioldm2": FROZEN, "instruct_pix2pix": FROZEN,
    "vits": FROZEN, "speecht5": FROZEN, "emu3-draws": DRAWN, "chameleon-draws": DRAWN, "janus-draws": DRAWN,
}  # fmt: skip
"""Of every oracle whose output is made, what docs/parity.md says of it, written down once more."""
PREPARED = {
    **dict.fromkeys(("lisa", "mgie", "emu", "emu2", "seed", "fromage", "gill", "next-gpt"), "pixels, ids, placeholders"),
    "next-gpt-1.5": "ids, placeholders", "minigpt-5": "pixels, placeholders",
}  # fmt: skip
"""And of the prompts and pictures of those that read some."""


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
        differ, measured, reach = (figures[title] for title in table.figures[:3])
        assert float(measured) <= float(differ.removesuffix(OF_LARGEST)) <= 1e-5
        assert float(reach) > 1 or not differ.endswith(OF_LARGEST)
        assert int(figures.get(BYTES, 0)) <= oracle.bytes_apart
    assert [name for name, oracle in ORACLES.items() if oracle.bytes_apart] == ["emu3-draws"], "the page says so"
    text = DOC.read_text(encoding="utf-8")
    assert all(reason in text for oracle in ORACLES.values() for reason in oracle.cannot.values())


def test_the_document_has_what_is_made() -> None:
    assert [name for name, oracle in ORACLES.items() if oracle.aspects != ASPECTS] == list(COMPARED)
    rows = read(DOC)
    said = {name: [word for word in rows[name][1].split() if not word.startswith("(")] for name in COMPARED}
    assert {name: " ".join(words) for name, words in said.items()} == COMPARED
    prepared = {name: " ".join(word for word in rows[name][2].split() if not word.startswith("(")) for name in COMPARED if COMPARED[name] != DRAWN}
    assert {name: words for name, words in prepared.items() if words} == PREPARED


def test_four_proofs_of_every_system_that_makes_media_are_there() -> None:
    """Of the named tests each is there and tries the recipe or its row; the page has the table."""
    tests = DOC.parents[1] / "tests"
    assert proofs() in DOC.read_text(encoding="utf-8")
    makes = {name for name in RECIPES if (recipe := RECIPES.find(name)()).published is not None and (recipe.model.hands or recipe.model.picture_words)}
    variants = {"emu2-chat", "emu2-gen", "seed-llama-14b"}
    assert makes - variants <= set(PROOFS)
    learning = (tests / "recipes/test_learning.py").read_text(encoding="utf-8")
    assert "@pytest.mark.parametrize(\"name\", TINY_FORMS" in learning
    for name, proof in PROOFS.items():
        assert (proof.form or name) in TINY_FORMS
        assert set(proof.rows) <= set(ORACLES)
        assert set(PROCESSING) & set(ORACLES[proof.rows[0]].proven), name
        assert "record(" in (tests / "parity" / proof.prepared).read_text(encoding="utf-8")


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
    write({"lisa": Row({*MADE}, 3e-6, 9.0, 20.0)}, tmp_path / "p.md", keep=True)
    after = read(tmp_path / "p.md")
    assert after.pop("lisa")[-4:] == ["1e-5", "3e-6", "9e+00", "1e2"] != before.pop("lisa")[-4:]
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
    assert row.figures(table_of("emu3-draws").figures) == ["1e-6", "2e-7", "9e+00", "1", "1e0"]


def test_a_large_difference_is_a_share_of_the_largest_value() -> None:
    row, titles = Row(), table_of("seed").figures
    row.add("made", 4e-5, 50.0)
    row.add("loss", 2e-7, 0.5)
    assert row.figures(titles)[:3] == [f"1e-6 {OF_LARGEST}", "8e-7", "5e+01"]
    row.add("made", 9e-5, 10.0)
    assert row.figures(titles)[0] == f"1e-5 {OF_LARGEST}"


def test_figures_are_powers_of_ten() -> None:
    assert [power(x) for x in (0, 3e-7, 1e-6, 1.1e-6, 1, 7, 60)] == ["0", "1e-6", "1e-6", "1e-5", "1e0", "1e1", "1e2"]
