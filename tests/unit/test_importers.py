"""Every importer meets every kind of bad row: its place is named, and the good rows survive."""

from __future__ import annotations

import csv
import io
import json
import re
import tarfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sensorium.core.batch import Example
from sensorium.core.errors import DataError
from sensorium.data.check import check_source
from sensorium.data.formats import open_path
from sensorium.data.formats.detect import detect_format
from sensorium.data.loader import Loader, LoaderOptions
from sensorium.data.mixture import MixtureOrder, Pick
from sensorium.interop.assemble import build_pretrained
from sensorium.processing.processor import Processor
from sensorium.recipes.tiny import tiny_model

MODEL, TOKENIZER = build_pretrained(tiny_model())
PROCESSOR = Processor(MODEL.config, TOKENIZER)


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Row:
    """A conversation over pictures; a picture without bytes is a file that is not there."""

    name: str
    images: tuple[tuple[str, bytes | None], ...]
    question: str = "<image>\nWhat is it?"
    answer: str = "A red box."
    asker: str = "user"
    turns: int = 2

    def talk(self, role: str, said: str, roles: dict[str, str]) -> list[dict[str, Any]]:
        asker = roles.get(self.asker, self.asker)
        return [{role: asker, said: self.question},
                {role: roles["assistant"], said: self.answer}][: self.turns]  # fmt: skip

    def files(self, folder: Path) -> list[str]:
        """The pictures, written where they have bytes."""
        for name, content in self.images:
            if content is not None:
                (folder / name).write_bytes(content)
        return [name for name, _ in self.images]

    def cells(self, folder: Path) -> list[dict[str, Any]]:
        return [{"bytes": content, "path": None if content else str(folder / name)}
                for name, content in self.images]  # fmt: skip


def good(number: int) -> Row:
    return Row(f"r{number}", ((f"r{number}.jpg", picture(number)),), answer=f"Thing {number}.")


BAD: dict[str, tuple[Row, str]] = {
    "missing file": (replace(good(1), images=(("r1.jpg", None),)), "no such file"),
    "truncated JPEG": (replace(good(1), images=(("r1.jpg", picture(1)[:400]),)), "truncated|damaged"),
    "placeholders": (
        replace(good(1), images=(*good(1).images, ("x1.jpg", picture(9)))),
        "2 images but 1 <image> placeholder",
    ),
    "role": (replace(good(1), asker="wizard"), "unknown role 'wizard'"),
    "empty": (replace(good(1), turns=0), "the conversation is empty"),
}
GPT = {"user": "human", "assistant": "gpt"}
CHAT = {"user": "user", "assistant": "assistant"}


def lines(folder: Path, rows: list[Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def llava(folder: Path, rows: list[Row]) -> Path:
    path = folder / "rows.json"
    path.write_text(json.dumps([
        {"id": r.name, "image": r.files(folder), "conversations": r.talk("from", "value", GPT)}
        for r in rows]))  # fmt: skip
    return path


def sharegpt(folder: Path, rows: list[Row]) -> Path:
    return lines(folder, [
        {"conversations": r.talk("from", "value", GPT), "images": r.files(folder)} for r in rows])  # fmt: skip


def openai(folder: Path, rows: list[Row]) -> Path:
    """Typed parts; there are no placeholders."""
    made: list[Any] = []
    for row in rows:
        turns = replace(row, question="What is it?").talk("role", "content", CHAT)
        for turn in turns[:1]:
            parts = [{"type": "image_url", "image_url": {"url": name}} for name in row.files(folder)]
            turn["content"] = [*parts, {"type": "text", "text": turn["content"]}]
        made.append({"messages": turns})
    return lines(folder, made)


def messages(folder: Path, rows: list[Row]) -> Path:
    return lines(folder, [
        {"messages": r.talk("role", "content", CHAT), "images": r.files(folder)} for r in rows])  # fmt: skip


def coco(folder: Path, rows: list[Row]) -> Path:
    path = folder / "captions.json"
    images = [{"id": i, "file_name": r.files(folder)[0]} for i, r in enumerate(rows)]
    captions = [{"id": i, "image_id": i, "caption": r.answer} for i, r in enumerate(rows)]
    path.write_text(json.dumps({"images": images, "annotations": captions}))
    return path


def table(folder: Path, rows: list[Row]) -> Path:
    path = folder / "rows.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [("image", "caption"), *((r.files(folder)[0], r.answer) for r in rows)]
        )
    return path


def arrow(folder: Path, rows: list[Row]) -> Any:
    turn = pa.struct([("from", pa.string()), ("value", pa.string())])
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table({
        "images": pa.array([r.cells(folder) for r in rows], pa.list_(cell)),
        "conversations": pa.array([r.talk("from", "value", GPT) for r in rows], pa.list_(turn)),
    })  # fmt: skip


def parquet(folder: Path, rows: list[Row]) -> Path:
    pq.write_table(arrow(folder, rows), folder / "rows.parquet")
    return folder / "rows.parquet"


def hub(folder: Path, rows: list[Row]) -> Path:
    (folder / "data").mkdir()
    pq.write_table(arrow(folder, rows), folder / "data" / "train-00000-of-00001.parquet")
    return folder


def saved(folder: Path, rows: list[Row]) -> Path:
    datasets.Dataset(arrow(folder, rows)).save_to_disk(folder / "ds")
    return folder / "ds"


def pictures(folder: Path, rows: list[Row]) -> Path:
    for row in rows:
        row.files(folder)
        (folder / f"{row.name}.txt").write_text(row.answer)
    return folder


def webdataset(folder: Path, rows: list[Row]) -> Path:
    with tarfile.open(folder / "00.tar", "w") as archive:
        for row in rows:
            # One picture is a member; more of them stand in the JSON, as paths.
            inside = [content for _, content in row.images if content]
            talk: dict[str, Any] = {"conversations": row.talk("from", "value", GPT)}
            members = {"jpg": inside[0]} if len(row.images) == len(inside) == 1 else {}
            if not members:
                talk["images"] = [str(folder / name) for name in row.files(folder)]
            for extension, content in (members | {"json": json.dumps(talk).encode()}).items():
                info = tarfile.TarInfo(f"{row.name}.{extension}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return folder / "00.tar"


Write = Callable[[Path, list[Row]], Path]
FILES, TURNS = ("missing file", "truncated JPEG"), ("role", "empty")
SLOTS = (*FILES, *TURNS, "placeholders")
IMPORTERS: list[tuple[Write, str, tuple[str, ...], str]] = [
    # (writes the format, its name, the kinds of bad rows that it can hold, place of the second)
    (llava, "llava", SLOTS, "rows.json, row 2"),
    (sharegpt, "llava", SLOTS, "rows.jsonl:2"),
    (messages, "messages", SLOTS, "rows.jsonl:2"),
    (openai, "messages", (*FILES, *TURNS), "rows.jsonl:2"),
    (coco, "coco", FILES, "captions.json, annotation 2"),
    (table, "table", FILES, "rows.csv, row 2"),
    (parquet, "table", SLOTS, "rows.parquet, row 2"),
    (pictures, "folder", FILES, "r1."),
    (webdataset, "webdataset", SLOTS, "00.tar, sample r1"),
    (saved, "hf_dataset", SLOTS, "data-00000-of-00001.arrow, row 2"),
    (hub, "hf_dataset", SLOTS, "train-00000-of-00001.parquet, row 2"),
]
CASES = [pytest.param(write, format, kind, place, id=f"{write.__name__}-{kind}")
         for write, format, kinds, place in IMPORTERS for kind in kinds]  # fmt: skip


def content(example: Example) -> tuple[list[int], list[bool], list[int]]:
    pixels = [m.pixels_NCHW.flatten().tolist() for m in example.media.values()]
    return example.input_ids, example.learn, [p for values in pixels for p in values]


@pytest.mark.parametrize(("write", "format", "kind", "place"), CASES)
def test_a_bad_row_is_named_and_the_good_ones_survive(
    write: Write, format: str, kind: str, place: str, tmp_path: Path
) -> None:
    bad, reason = BAD[kind]
    if (write, kind) == (pictures, "missing file"):
        reason = "no image beside r1.txt"
    (tmp_path / "whole").mkdir()
    alone = open_path(write(tmp_path / "whole", [good(0), good(2)]))
    (tmp_path / "bad").mkdir()
    path = write(tmp_path / "bad", [good(0), bad, good(2)])
    assert detect_format(path) == format
    source = open_path(path)
    assert len(source) == 3

    report = check_source(source, PROCESSOR, max_length=200)
    assert len(report.lengths) == 2
    assert len(report.problems) == 1
    _is_named(report.problems[0], place, reason)

    expected = [content(PROCESSOR.encode(alone[i], max_length=200)) for i in range(2)]
    order = MixtureOrder([3], [1.0], seed=0)
    options = LoaderOptions(batch_size=1, max_length=200, skip_bad=True)
    skipping = Loader([source], order, PROCESSOR, options)
    survivors = [i for i in range(3) if _loads(skipping, i)]
    assert [content(skipping.examples(Pick(0, i, 0, 0))[0]) for i in survivors] == expected
    with closing(skipping.batches(order.start())) as stream:
        loaded = [next(stream) for _ in range(4)]
    said = [p for b in loaded for p in b.problems]
    assert said
    for problem in said:
        _is_named(problem, place, reason)
    seen = [b.batch.input_ids_BT[0].tolist() for b in loaded]
    assert all(ids in seen for ids, _, _ in expected)

    stopping = Loader([source], order, PROCESSOR, replace(options, skip_bad=False))
    with pytest.raises(DataError) as caught:
        list(stopping.batches(order.start()))
    _is_named(str(caught.value), place, reason)


def _is_named(problem: str, place: str, reason: str) -> None:
    assert place in problem
    assert re.search(reason, problem)


def _loads(loader: Loader, row: int) -> bool:
    try:
        loader.examples(Pick(0, row, 0, 0))
    except DataError:
        return False
    return True
