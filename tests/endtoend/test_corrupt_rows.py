"""Ten thousand rows of which one in twenty is broken: skipped, counted exactly, listed by name."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from faults import lines, tiny, train
from PIL import Image

ROWS = 10_000
BROKEN = 500


def write_rows(folder: Path) -> tuple[Path, set[int]]:
    """Rows with and without pictures; the broken ones' numbers."""
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
    chosen = set(random.Random(2).sample(range(ROWS), BROKEN))
    kinds = iter(range(BROKEN))
    texts = [
        bad[next(kinds) % len(bad)] if i in chosen else json.dumps(row("ok.jpg" if i % 10 == 0 else None))
        for i in range(ROWS)
    ]
    path = folder / "rows.jsonl"
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path, chosen


@pytest.mark.parametrize("workers", [1, 3])
def test_one_row_in_twenty_is_broken(workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, broken = write_rows(tmp_path)
    recipe = tiny(
        f"stages=[{{name: align, objective: {{kind: instruct}}, data: [{{kind: file, path: {path}, format: samples}}], "
        "learns: [{part: projectors.image, lr: 0.001}], steps: 24, batch_size: 400, max_length: 64, "
        f"on_bad_row: skip, precision: fp32, workers: {workers}}}]",
    )  # fmt: skip
    train(recipe, tmp_path / "a")
    log = lines(tmp_path / "a")
    # 24 * 400 samples are one pass over the 9,500 whole rows, and the start of another.
    assert sum(x["samples"] for x in log) == 9600
    said = [text for x in log for text in x.get("skipped_rows", ())]
    numbers = [int(n) - 1 for n in re.findall(r"rows\.jsonl:(\d+)", " ".join(said))]
    assert set(numbers) == broken
    assert BROKEN <= len(numbers) < BROKEN + 30
    summary = json.loads((tmp_path / "a" / "skipped_rows.json").read_text())["align"]
    assert (summary["rows"], summary["times"], summary["samples_used"]) == (BROKEN, len(numbers), 9600)
    assert set(summary["list"]) == set(said)
    assert f"stage align: {BROKEN} rows could not be used" in capsys.readouterr().err
