"""The table of what equals its original: drawn from a run of the tests, written as Markdown, read back."""

from __future__ import annotations

import math
import platform
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import torch
from matrix import ASPECTS, COUNTS, DRAWN, LAYOUTS, MADE, ORACLES, POSITIONS, PROCESSING, PROOFS

from sensorium.recipes import RECIPES

GROUPS = {"picture at": POSITIONS, "pictures": COUNTS, "beside others": LAYOUTS, "text": ("greedy",),
          "back": ("export",), "processing": PROCESSING}  # fmt: skip
HEAD = """# What equals its original

Each row is a system in a tiny size with random weights that the reference itself saved. Ours reads them and computes
the same; what is listed was compared, what is not has a note that says why. A cell of `function` is proven by
logits (vectors and scores where a model writes nothing) each within 1e-5 and 1e-5 of its size, greedy text that is identical,
and an exported folder that the reference loads and agrees with (where its own code does not run here: the same
tensors under the same names); one of `processing` by equal pixel values (1e-5), token ids and
places of the picture's tokens, odd aspect ratios included. A difference *below* which a row lies, and seconds of the
processor, are rounded up to powers of ten; *measured* is the largest difference itself, to one digit. Both are of the run that wrote the row: last
bits differ from one kind of processor and release of torch to another, and rows that lie near a power of ten were seen on both sides of it. What
holds everywhere is what the tests refuse, 1e-5. A difference above 1e-5 is written as a share of the
largest value, and says so.

Written by `python -m pytest tests/parity --parity-report docs/parity.md`; with `--parity-keep`, some of the tests write their rows alone.
"""
MACHINE = "Last written on "
MAKERS = """What these make is compared with the classes of transformers and diffusers, or with their authors' code as it is written a
second time in the test, because that code does not run here: `weights`, their tensors by their authors' names; `made`, the masks,
embeddings or conditions of what is drawn, each number within 1e-5 and 1e-5 of its size (seed: 1e-5 of the largest), and codes and media (bytes of pictures and
videos, as numbers from 0 to 255, and samples of sound); `loss`, what a batch of several rows is taught by; under `processing`, what stands in the
table above (`test_any_to_any_processing.py`).
"""
DRAWERS = """Pictures that a language model writes as tokens: `codes`, the tokens, which are identical; `values`, what codes are decoded to, each
within 1e-5 and 1e-5 of its size; `pictures`, those values as bytes from 0 to 255, which are identical (Emu3's at most 1 apart: the
reference cuts off what ours rounds); `guidance`, codes that are led away from those of other prompts, the likeliest and by chance
with one seed, which are identical.
"""
PROVEN = """## The four proofs of systems that make media, or write places

Of each recipe: parts as large as the original's (a class of transformers, or by parts), the same function (rows above), a tiny form of which nothing
learns but what should while its losses fall, and prompts and pictures prepared as the original prepares them.

| recipe | size | function | learning | processing |
|---|---|---|---|---|
"""
OF_LARGEST = "(of the largest)"
DIFFER, MEASURED, REACH, BYTES, SECONDS = "differ by <", "measured", "reach", "bytes differ by", "seconds <"


@dataclass(frozen=True)
class Table:
    """Of the oracles with these aspects: columns of what is compared, and of figures."""

    aspects: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]
    figures: tuple[str, ...]
    before: str = ""


TABLES = (
    Table(ASPECTS, GROUPS, (f"logits {DIFFER}", MEASURED, f"logits {REACH}", SECONDS)),
    Table(MADE, {"compared": MADE[: -len(PROCESSING)], "processing": PROCESSING}, (DIFFER, MEASURED, REACH, SECONDS), MAKERS),
    Table(DRAWN, {"compared": DRAWN}, (f"values {DIFFER}", MEASURED, f"values {REACH}", BYTES, SECONDS), DRAWERS),
)


def table_of(name: str) -> Table:
    """Where this oracle has its row."""
    return next(table for table in TABLES if table.aspects == ORACLES[name].aspects)


@dataclass
class Row:
    """What a run has shown of one oracle."""

    seen: set[str] = field(default_factory=set[str])
    difference: float = 0.0
    size: float = 0.0
    seconds: float = 0.0
    apart: int = 0
    share: float = 0.0
    """The worst difference in units of the largest value that stood beside it, where that is above 1."""

    def add(self, aspect: str, difference: float | None, size: float | None, apart: int | None = None) -> None:
        self.seen.add(aspect)
        self.apart = max(self.apart, apart or 0)
        if aspect not in PROCESSING and difference is not None:
            self.difference = max(self.difference, difference)
            self.size = max(self.size, size or 0.0)
            self.share = max(self.share, difference / max(1.0, size or 0.0))

    def figures(self, titles: Collection[str]) -> list[str]:
        """Under these titles."""
        plain = self.difference <= 1e-5
        differ = power(self.difference) if plain else f"{power(self.share)} {OF_LARGEST}"
        said = {DIFFER: differ, MEASURED: digit(self.difference if plain else self.share).replace("e-0", "e-"), REACH: digit(self.size), BYTES: str(self.apart),
                SECONDS: power(max(1.0, self.seconds))}  # fmt: skip
        return [said.get(title) or said[title.split(maxsplit=1)[1]] for title in titles]


def unproven(rows: dict[str, Row], kept: Collection[str] = ()) -> list[str]:
    """What the table of oracles promises and a run has not shown, or excuses and has shown.

    Args:
        kept: what need not be shown again, if none of it is.
    """
    found: list[str] = []
    for name, oracle in ORACLES.items():
        if name in kept and name not in rows:
            continue
        seen = rows[name].seen if name in rows else set[str]()
        found += [f"{name}: {a} is not shown" for a in oracle.proven if a not in seen]
        found += [f"{name}: {a} is shown, though it is said not to be possible" for a in oracle.cannot if a in seen]
    return found + [f"{name}: not in the table" for name in rows if name not in ORACLES]


def power(value: float) -> str:
    """Rounded up to a power of ten, so that another machine writes the same."""
    return "0" if value == 0 else f"1e{math.ceil(math.log10(value))}"


def digit(value: float) -> str:
    """To one digit."""
    return f"{value:.0e}" if value else "0"


def machine() -> str:
    """The processor and torch that a run's figures are of."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"


def write(rows: dict[str, Row], path: Path, *, keep: bool = False) -> None:
    """
    Args:
        keep: leave the figures of oracles of which nothing was shown as they are in the file.

    Raises:
        ValueError: the run has not shown all that the table promises.
    """
    before = read(path) if keep and path.exists() else {}
    kept = {name: cells[-len(table_of(name).figures) :] for name, cells in before.items() if name in ORACLES}
    if missing := unproven(rows, kept):
        raise ValueError("; ".join(missing))
    figures = kept | {name: row.figures(table_of(name).figures) for name, row in rows.items()}
    reasons: list[str] = []
    tables = [f"{table.before}\n{_table(table, figures, reasons)}".lstrip() for table in TABLES]
    notes_text = "\n".join(f"{n}. {reason}" for n, reason in enumerate(reasons, start=1))
    parts = [HEAD.rstrip(), f"{MACHINE}{machine()}.", *tables, "Not compared:", notes_text, proofs()]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def proofs() -> str:
    """Where the four proofs of each recipe lie."""
    lines: list[str] = []
    for name, proof in PROOFS.items():
        published = RECIPES.find(name)().published
        sized = f"class `{published.oracle}`" if published is not None and published.oracle else "by parts"
        oracle = ORACLES[proof.rows[0]]
        lacking = [f"not {aspect}: {oracle.cannot[aspect]}" for aspect in PROCESSING if aspect in oracle.cannot]
        prepared = "; ".join([", ".join(aspect for aspect in PROCESSING if aspect not in oracle.cannot), *lacking])
        cells = [name, f"`test_sizes.py`, {sized}", f"rows {', '.join(proof.rows)}", f"`test_learning.py`, {proof.form or name}/tiny", f"`{proof.prepared}`: {prepared}"]
        lines.append(f"| {' | '.join(cells)} |")
    return PROVEN + "\n".join(lines)


def _table(table: Table, figures: dict[str, list[str]], reasons: list[str]) -> str:
    """Of the oracles with its aspects; what excuses the others is added to the reasons."""
    titles = ["oracle", "reference", *table.groups, *table.figures]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for name, oracle in ORACLES.items():
        if oracle.aspects != table.aspects:
            continue
        cells = [name, f"`{oracle.reference}`"]
        for group in table.groups.values():
            shown = ", ".join(a for a in group if a not in oracle.cannot)
            notes: list[int] = []
            for reason in dict.fromkeys(oracle.cannot[a] for a in group if a in oracle.cannot):
                if reason not in reasons:
                    reasons.append(reason)
                notes.append(reasons.index(reason) + 1)
            cells.append(" ".join(filter(None, (shown, *(f"({n})" for n in notes)))))
        lines.append("| " + " | ".join([*cells, *figures[name]]) + " |")
    return "\n".join(lines)


def read(path: Path) -> dict[str, list[str]]:
    """The cells of each oracle's row."""
    table = path.read_text(encoding="utf-8").partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in rows if row[0] != "oracle"}


assert set(ASPECTS) == {a for group in GROUPS.values() for a in group}
