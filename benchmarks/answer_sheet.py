"""Draw a sheet of a model's answers, evenly spaced over each benchmark: not a selection.

    sensorium eval --model nano --out runs/eval
    python benchmarks/answer_sheet.py runs/eval/results.json docs/images/nano_answers.webp
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from sensorium.cli.evaluating import parse_benchmarks
from sensorium.media.image import load_image

KINDS = ("naming", "category", "existence", "attribute")
COLUMNS, CELL_W, CELL_H, SIDE = 6, 200, 236, 150
RIGHT, WRONG, GREY = (30, 140, 75), (200, 65, 50), (95, 105, 120)


def main(results: Path, out: Path) -> None:
    benchmarks: dict[str, Any] = json.loads(results.read_text())["benchmarks"]
    sheet = Image.new("RGB", (COLUMNS * CELL_W, len(KINDS) * CELL_H), "white")
    draw = ImageDraw.Draw(sheet)
    for line, kind in enumerate(KINDS):
        items = {i.request.id: i for i in parse_benchmarks([kind], None)[0].items()}
        rows = benchmarks[kind]["rows"]
        for column in range(COLUMNS):
            # Questions about what is there and what is not alternate: an even step shows one kind.
            row = rows[int((column + 0.5) * len(rows) / COLUMNS) - column % 2]
            request = items[row["id"]].request
            picture = next(p.value for p in request.messages[0].content if p.type == "image")
            small = load_image(picture, root=request.root).to_pil()
            small.thumbnail((SIDE, SIDE))
            x, y = column * CELL_W, line * CELL_H
            sheet.paste(small, (x + (CELL_W - small.width) // 2, y + 8))
            draw.text((x + 12, y + SIDE + 14), row["question"].split(" Answer")[0].split(" Choose")[0], GREY)
            mark = RIGHT if row["right"] else WRONG
            draw.text((x + 12, y + SIDE + 32), row["model"][:30], mark, font_size=15)
            draw.text((x + 12, y + SIDE + 54), f"right: {', '.join(row['gold'][:2])}"[:34], GREY)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, quality=90, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
