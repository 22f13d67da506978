"""Writes the README's figures of training speed out of `benchmarks/results/`, in both languages.

    python benchmarks/figures.py

Between the marks nothing is written by hand; a test compares (`tests/unit/test_readme_figures.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sensorium.core.atomic import atomic_path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
MARKS = ("<!-- training figures: made by benchmarks/figures.py -->\n", "<!-- end of training figures -->\n")
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
        for key in sorted(key for key in found if key.startswith("stage ")):
            one = found[key]
            ratios = [words["one"].format(**one["ratio"][f"ours/{peer}"]) for peer in ("trainer", "trl")]
            memory = ", ".join(f"{one['peak_mb'][side] / 1024:.1f}" for side in ("ours", "trainer", "trl"))
            cells = [words["row"].format(shape=shape, stage=key.removeprefix("stage ")), *ratios,
                     f"{one['rates']['ours']['tokens_per_s']:,.0f}", f"{one['share_of_limit']:.0%}", f"{memory} GiB"]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def with_figures(page: str, words: dict[str, str], results: Path = RESULTS) -> str:
    """The page with what stands between its marks made anew.

    Raises:
        ValueError: the page has no marks.
    """
    before, opening, rest = page.partition(MARKS[0])
    _, closing, after = rest.partition(MARKS[1])
    if not opening or not closing:
        raise ValueError(f"found no {MARKS[0].strip()} ... {MARKS[1].strip()}")
    tables = ["\n".join(table(json.loads(path.read_text(encoding="utf-8")), words))
              for path in sorted(results.glob("training-*.json"))]  # fmt: skip
    return before + opening + "\n\n".join(tables) + "\n" + closing + after


def main() -> None:
    for name, words in PAGES.items():
        path = ROOT / name
        made = with_figures(path.read_text(encoding="utf-8"), words)
        with atomic_path(path) as written:
            written.write_text(made, encoding="utf-8")
        print(path.name)


if __name__ == "__main__":
    main()
