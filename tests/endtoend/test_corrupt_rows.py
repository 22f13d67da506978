"""Thousands of rows of which one in twenty is broken: skipped, counted exactly, listed by name.

`SENSORIUM_FAULTS=full` takes ten thousand of them.
"""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path
from typing import Any

import pytest
from faults import lines, tiny, train
from PIL import Image

BATCH = 400
MANY = 10_000 if os.environ.get("SENSORIUM_FAULTS") == "full" else 3_600


def write_rows(folder: Path, rows: int) -> tuple[Path, set[int]]:
    """Rows with and without pictures; the numbers of the broken ones, one in twenty."""
    for name in ("ok", "cut"):
        Image.new("RGB", (32, 32), (90, 10, 10)).save(folder / f"{name}.jpg")
    whole = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "noise.jpg").write_bytes(random.Random(1).randbytes(500))
    (folder / "empty.jpg").write_bytes(b"")

    def row(image: str | None) -> dict[str, Any]:
        content: list[Any] = [{"type": "image", "image": image}] if image else []
        return {"messages": [{"role": "user", "content": [*content, {"type": "text", "text": "q"}]},
                             {"role": "assistant", "content": "a"}]}  # fmt: skip

    bad: list[str] = [
        *(json.dumps(row(name)) for name in ("cut.jpg", "noise.jpg", "empty.jpg", "gone.jpg")),
        "{oops", "[]", '{"messages": []}', '{"messages": 3}', json.dumps(row(None)).replace("user", "nobody"),
    ]  # fmt: skip
    chosen = set(random.Random(2).sample(range(rows), rows // 20))
    kinds = iter(range(rows // 20))
    texts = [
        bad[next(kinds) % len(bad)] if i in chosen else json.dumps(row("ok.jpg" if i % 10 == 0 else None))
        for i in range(rows)
    ]
    path = folder / "rows.jsonl"
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path, chosen


@pytest.mark.parametrize(("workers", "rows"), [(1, 1_600), (3, MANY)])
def test_one_row_in_twenty_is_broken(
    workers: int, rows: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, broken = write_rows(tmp_path, rows)
    # One pass over the whole rows, and the start of another.
    steps = (rows - len(broken)) // BATCH + 1
    used = steps * BATCH
    recipe = tiny(
        f"stages=[{{name: align, objective: {{kind: instruct}}, data: [{{kind: file, path: {path}, format: samples}}], "
        f"learns: [{{part: projectors.image, lr: 0.001}}], steps: {steps}, batch_size: {BATCH}, max_length: 64, "
        f"on_bad_row: skip, precision: fp32, workers: {workers}}}]",
    )  # fmt: skip
    train(recipe, tmp_path / "a")
    log = lines(tmp_path / "a")
    assert sum(x["samples"] for x in log) == used
    said = [text for x in log for text in x.get("skipped_rows", ())]
    numbers = [int(n) - 1 for n in re.findall(r"rows\.jsonl:(\d+)", " ".join(said))]
    assert set(numbers) == broken
    assert len(broken) <= len(numbers) < len(broken) + 30
    summary = json.loads((tmp_path / "a" / "skipped_rows.json").read_text())["align"]
    assert (summary["rows"], summary["times"], summary["samples_used"]) == (len(broken), len(numbers), used)
    assert set(summary["list"]) == set(said)
    assert f"stage align: {len(broken)} rows could not be used" in capsys.readouterr().err
