"""The rows that training left out, counted and listed when a run ends."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from sensorium.core.atomic import write_json
from sensorium.training.disk import writing

SHOWN = 3


def write_skipped(lines: list[dict[str, Any]], folder: Path) -> None:
    """Write `skipped_rows.json` from a log's lines, and say how many rows it lists; nothing where none was left out.

    A row is left out once in each pass over the data; it is listed once, with how often.
    """
    stages: dict[str, Counter[str]] = {}
    samples: Counter[str] = Counter()
    for line in lines:
        samples[line["stage"]] += line["samples"]
        stages.setdefault(line["stage"], Counter()).update(line.get("skipped_rows", ()))
    listed = {name: rows for name, rows in stages.items() if rows}
    if not listed:
        return
    path = folder / "skipped_rows.json"
    with writing(path):
        write_json(path, {
            name: {"rows": len(rows), "times": rows.total(), "samples_used": samples[name], "list": dict(rows)}
            for name, rows in listed.items()
        })  # fmt: skip
    for name, rows in listed.items():
        print(f"stage {name}: {len(rows):,} rows could not be used and were skipped, {rows.total():,} times beside "
              f"{samples[name]:,} samples used; skipped_rows.json lists them. The first:", file=sys.stderr)  # fmt: skip
        for text in list(rows)[:SHOWN]:
            print(f"  {text}", file=sys.stderr)
