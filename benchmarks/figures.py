"""Writes the figures of training speed out of `benchmarks/results/`: the README's, in both languages, and those of `docs/speed.md`.

    python benchmarks/figures.py

Between the marks nothing is written by hand; a test compares (`tests/unit/test_readme_figures.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sensorium.core.atomic import atomic_path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PEERS = ("trainer", "trl")
MARKS = ("<!-- training figures: made by benchmarks/figures.py -->\n", "<!-- end of training figures -->\n")
LEVERS = "docs/speed.md"
LEVER_MARKS = ("<!-- lever figures: made by benchmarks/figures.py -->\n", "<!-- end of lever figures -->\n")
PAGES = {
    "README.md": {
        "head": "| {processor}, {threads} thread, {date} | ours / Trainer | ours / TRL | tokens/s | share of the limit | peak memory: ours, Trainer, TRL |",
        "row": "{shape}, stage {stage}",
        "one": "{median:.2f} × ({low:.2f} – {high:.2f})",
    },
    "README.zh-CN.md": {
        "head": "| {processor}，{threads} 线程，{date} | 相对 Trainer | 相对 TRL | 词元/秒 | 占理论上限 | 峰值内存：我们、Trainer、TRL |",
        "row": "{shape}，第 {stage} 阶段",
        "one": "{median:.2f} 倍（{low:.2f} – {high:.2f}）",
    },
}  # fmt: skip


def table(result: dict[str, Any], words: dict[str, str]) -> list[str]:
    """One machine's figures as lines of Markdown."""
    lines = [words["head"].format(**result), "|---|---|---|---|---|---|"]
    for shape, found in result["shapes"].items():
        for key in sorted(key for key in found if key.startswith("stage ") and len(found[key].get("ratio", ())) == len(PEERS)):
            one = found[key]
            ratios = [words["one"].format(**one["ratio"][f"ours/{peer}"]) for peer in PEERS]
            memory = ", ".join(f"{one['peak_mb'][side] / 1024:.1f}" for side in ("ours", "trainer", "trl"))
            cells = [words["row"].format(shape=shape, stage=key.removeprefix("stage ")), *ratios,
                     f"{one['rates']['ours']['tokens_per_s']:,.0f}", f"{one['share_of_limit']:.0%}", f"{memory} GiB"]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def lever_table(result: dict[str, Any]) -> list[str]:
    """What training does without each lever, on one machine."""
    measured = {f"{shape}, {key}": one["levers"] for shape, found in result["shapes"].items()
                for key, one in sorted(found.items()) if key.startswith("stage ") and "levers" in one}  # fmt: skip
    if not measured:
        return []
    lines = [f"| {result['processor']}, {result['threads']} thread | " + " | ".join(measured) + " |", "|---" * (len(measured) + 1) + "|"]
    for lever in dict.fromkeys(name for levers in measured.values() for name in levers):
        cells = ["{median:.2f} ({low:.2f} – {high:.2f}), {peak_mb:,} MB".format(**levers[lever]) if lever in levers else ""
                 for levers in measured.values()]  # fmt: skip
        lines.append("| " + " | ".join([lever, *cells]) + " |")
    return lines


def between(page: str, marks: tuple[str, str], lines: Iterable[str]) -> str:
    """The page with these lines between its marks.

    Raises:
        ValueError: the page has no marks.
    """
    before, opening, rest = page.partition(marks[0])
    _, closing, after = rest.partition(marks[1])
    if not opening or not closing:
        raise ValueError(f"found no {marks[0].strip()} ... {marks[1].strip()}")
    return before + opening + "".join(f"{line}\n" for line in lines) + closing + after


def made_anew(name: str, page: str, results: Path = RESULTS) -> str:
    """A page with all that stands between its marks made of the results."""
    machines = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("training-*.json"))]
    if name == LEVERS:
        return between(page, LEVER_MARKS, (line for machine in machines for line in lever_table(machine)))
    tables = ["\n".join(table(machine, PAGES[name])) for machine in machines]
    return between(page, MARKS, ["\n\n".join(tables)])


def main() -> None:
    for name in (*PAGES, LEVERS):
        path = ROOT / name
        made = made_anew(name, path.read_text(encoding="utf-8"))
        with atomic_path(path) as written:
            written.write_text(made, encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main()
