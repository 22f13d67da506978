"""Writes the figures of training speed out of `benchmarks/results/`: the README's, in both languages, and those of `docs/speed.md`.

    python benchmarks/figures.py

Between the marks nothing is written by hand; a test compares (`tests/unit/test_readme_figures.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sensorium.core.atomic import atomic_path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PEERS = ("trainer", "trl")
NANOVLM = {"own": "its own settings", "larger": "larger batches", "own, tower learns": "its own settings, the tower learns",
           "larger, tower learns": "larger batches, the tower learns"}  # fmt: skip
MARKS = ("<!-- training figures: made by benchmarks/figures.py -->\n", "<!-- end of training figures -->\n")
LEVERS = "docs/speed.md"
LEVER_MARKS = ("<!-- lever figures: made by benchmarks/figures.py -->\n", "<!-- end of lever figures -->\n")
PAGES = {
    "README.md": {
        "head": "| {machine}, {date} | ours / Trainer | ours / TRL | samples/s: ours, Trainer, TRL | by default: Trainer, TRL | share of the limit | peak memory: ours, Trainer, TRL |",
        "machine": "{processor}, {threads} thread",
        "row": "{shape}, stage {stage}",
        "one": "{median:.2f} × ({low:.2f} – {high:.2f}) of {limit:.1f}",
    },
    "README.zh-CN.md": {
        "head": "| {machine}，{date} | 相对 Trainer | 相对 TRL | 样本/秒：我们、Trainer、TRL | 默认设置：Trainer、TRL | 占理论上限 | 峰值内存：我们、Trainer、TRL |",
        "machine": "{processor}，{threads} 线程",
        "row": "{shape}，第 {stage} 阶段",
        "one": "{median:.2f} 倍（{low:.2f} – {high:.2f}），上限 {limit:.1f}",
    },
}  # fmt: skip


def table(result: dict[str, Any], words: dict[str, str]) -> list[str]:
    """One machine's figures as lines of Markdown."""
    # Of a GPU's machine the threads are few of many, and say nothing.
    machine = result["processor"] if result["processor"].startswith("NVIDIA") else words["machine"].format(**result)
    lines = [words["head"].format(machine=machine, **result), "|---" * 7 + "|"]
    for shape, found in result["shapes"].items():
        for key in sorted(key for key in found if key.startswith("stage ") and len(found[key].get("ratio", ())) == len(PEERS)):
            one = found[key]
            ratios = [words["one"].format(**one["ratio"][f"ours/{peer}"], limit=one["limit"][f"ours/{peer}"]) for peer in PEERS]
            rates = ", ".join(f"{one['rates'][side]['samples_per_s']:.2f}" for side in ("ours", *PEERS))
            defaults = ", ".join(f"{one['defaults'][peer]:.2f}" for peer in PEERS if peer in one["defaults"]) or "–"
            memory = ", ".join(f"{one['peak_mb'][side] / 1024:.1f}" for side in ("ours", "trainer", "trl"))
            cells = [words["row"].format(shape=shape, stage=key.removeprefix("stage ")), *ratios, rates, defaults,
                     f"{one['share_of_limit']:.0%}", f"{memory} GiB"]  # fmt: skip
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


def memory_table(result: dict[str, Any]) -> list[str]:
    """Peaks of a step on long rows, ours beside TRL's."""
    lines = [f"| {result['processor']} | ours | TRL | ours / TRL |", "|---|---|---|---|"]
    for shape, found in result["shapes"].items():
        for way in (name.partition(", ")[2] for name in found["sides"] if name.startswith("ours, ")):
            ours, trl = (found["sides"][f"{who}, {way}"]["peak_mb"] for who in ("ours", "trl"))
            lines.append(f"| {shape}, {found['row_tokens']:,} tokens, {way} | {ours:,} MB | {trl:,} MB | {ours / trl:.2f} |")
    return lines


def plan_table(result: dict[str, Any]) -> list[str]:
    """How full packed rows are."""
    lines = [f"| {result['processor']}, {result['samples']:,} samples | fill | processor seconds, with drawing them | fill, all at once | seconds |", "|---" * 5 + "|"]
    for plan in result["plans"]:
        cap = f", at most {plan['max_pictures']} pictures" if plan["max_pictures"] else ""
        lines.append(f"| rows of {plan['max_length']:,}{cap} | {plan['fill']:.2%} | {plan['cpu_s']:.1f} | {plan['fill_all_at_once']:.2%} | {plan['cpu_s_all_at_once']:.2f} |")
    return lines


def store_table(result: dict[str, Any]) -> list[str]:
    """What the feature store costs and gives."""
    first, later = result["first_epoch_interval_95"], result["later_epoch_interval_95"]
    return [
        f"| {result['processor']}, {result['shape']} shape, {result['pairs']} pairs | |", "|---|---|",
        f"| an epoch in which it is written, in epochs without it | {result['first_epoch_ratio']:.2f} ({first[0]:.2f} – {first[1]:.2f}) |",
        f"| speed of later epochs | {result['later_epoch_speedup']:.2f} × ({later[0]:.2f} – {later[1]:.2f}) |",
    ]  # fmt: skip


def nanovlm_table(result: dict[str, Any]) -> list[str]:
    """Ours beside nanoVLM's own loop."""
    lines = [f"| {result['processor']} | ours / nanoVLM, samples/s | tokens/s | samples/s: ours, nanoVLM | GPU memory |", "|---" * 5 + "|"]
    for shape, found in result["shapes"].items():
        for variant, one in ((name, one) for name, one in found.items() if isinstance(one, dict)):
            samples, tokens = ("{median:.1f} × ({low:.1f} – {high:.1f})".format(**one[what]) for what in ("samples", "tokens"))
            rates = ", ".join(f"{one['rates'][side]['samples_per_s']:.0f}" for side in ("ours", "nanoVLM"))
            memory = ", ".join(f"{one['gpu_mb'][side] / 1024:.1f}" for side in ("ours", "nanoVLM"))
            lines.append(f"| {shape.removeprefix('nanovlm-')}, {NANOVLM[variant]} | {samples} | {tokens} | {rates} | {memory} GiB |")
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
    if name != LEVERS:
        return between(page, MARKS, [_tables("training", lambda machine: table(machine, PAGES[name]), results)])
    for kind, marks, made in (("training", LEVER_MARKS, lever_table), *((kind, marks_of(kind), made) for kind, made in OTHERS.items())):
        page = between(page, marks, [_tables(kind, made, results)])
    return page


def _tables(kind: str, made: Callable[[dict[str, Any]], list[str]], results: Path) -> str:
    """Those of all machines."""
    machines = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob(f"{kind}-*.json"))]
    tables = ["\n".join(made(machine)) for machine in machines]
    return "\n\n".join(one for one in tables if one)


OTHERS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "nanovlm": nanovlm_table, "memory": memory_table, "store": store_table, "plan": plan_table,
}  # fmt: skip
"""What `docs/speed.md` shows beside levers."""


def marks_of(kind: str) -> tuple[str, str]:
    return f"<!-- {kind} figures: made by benchmarks/figures.py -->\n", f"<!-- end of {kind} figures -->\n"


def main() -> None:
    for name in (*PAGES, LEVERS):
        path = ROOT / name
        made = made_anew(name, path.read_text(encoding="utf-8"))
        with atomic_path(path) as written:
            written.write_text(made, encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main()
