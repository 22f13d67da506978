"""Broken and odd files: what can be read is read, and nothing goes missing in silence."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sensorium.core.errors import DataError
from sensorium.data.check import check_source
from sensorium.data.formats import open_path
from sensorium.data.formats.detect import detect_format
from sensorium.data.source import Source
from sensorium.evaluation.benchmarks.vqa_file import VqaFile
from sensorium.interop.assemble import build_pretrained
from sensorium.processing.processor import Processor
from sensorium.recipes.tiny import tiny_model

MODEL, TOKENIZER = build_pretrained(tiny_model())
TALK = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHARED = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 10, 10)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(png())
    return tmp_path


def problems(source: Source) -> list[str]:
    """What `data check` lists; the rest must be good."""
    report = check_source(source, Processor(MODEL.config, TOKENIZER), max_length=200)
    assert len(report.problems) + len(report.lengths) == len(source)
    return report.problems


@pytest.mark.parametrize("broken", ["{oops", "[oops", "null", '"x"', '{"other": 1}', "{" * 50_000])
@pytest.mark.parametrize(
    ("row", "format"), [({"messages": TALK}, "samples"), ({"conversations": SHARED}, "llava")]
)
def test_a_broken_first_line_is_a_row(broken: str, row: Any, format: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([broken, json.dumps(row), "", json.dumps(row)]))
    assert detect_format(path) == format
    source = open_path(path)
    assert len(source) == 3
    assert [p.startswith(f"{path}:1: ") for p in problems(source)] == [True]
    assert source[2].messages[1].text == "a"


def test_files_that_are_not_lines_are_still_told(folder: Path) -> None:
    coco = {"images": [{"id": 7, "file_name": "a.png"}],
            "annotations": [{"id": 1, "image_id": 7, "caption": "A box."}]}  # fmt: skip
    path = folder / "c.json"
    for text in (json.dumps(coco, indent=2), "\ufeff" + json.dumps(coco)):
        path.write_text(text, encoding="utf-8")
        assert detect_format(path) == "coco"
        assert open_path(path)[0].messages[1].text == "A box."
    path.write_text("\ufeff" + json.dumps([None, {"messages": TALK}]), encoding="utf-8")
    assert detect_format(path) == "messages"
    assert [p.startswith(f"{path}, row 1: ") for p in problems(open_path(path))] == [True]
    path.write_text('[\n{"messages": [},\n' + json.dumps({"messages": TALK}) + "\n]")
    with pytest.raises(DataError, match=r"not JSON.*line 2"):
        open_path(path)
    path.write_text("")
    with pytest.raises(DataError, match="not JSON"):
        open_path(path)
    with pytest.raises(DataError, match="not readable as coco"):
        open_path(folder, "coco")


def test_a_byte_that_is_no_text_costs_its_row_alone(folder: Path) -> None:
    path = folder / "t.csv"
    long = b"x" * 200_000
    path.write_bytes(b"image,caption\na.png,one\na.png,caf\xe9\na.png," + long + b"\nb.png,caf\xc3\xa9\n")
    source = open_path(path)
    said = problems(source)
    assert [p.split(": ")[0] for p in said] == [f"{path}, row 2", f"{path}, row 3"]
    assert "column 'caption' is not UTF-8" in said[0]
    assert "field larger" in said[1]
    assert source[3].messages[1].text == "café"
    path.write_bytes(b"image,caption\xe9\na.png,one\n")
    with pytest.raises(DataError, match="names are not UTF-8"):
        open_path(path)


def test_an_arrow_row_that_does_not_convert_is_named(folder: Path) -> None:
    text = pa.array([b"one", b"caf\xe9", b"three"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"image": ["a.png"] * 3, "caption": text}), folder / "t.parquet")
    assert [p.split(": ")[0] for p in problems(open_path(folder / "t.parquet"))] == [
        f"{folder / 't.parquet'}, row 2"
    ]


def test_coco_names_what_is_malformed_and_counts_what_has_no_caption(folder: Path) -> None:
    path = folder / "c.json"
    images: list[Any] = [{"id": i, "file_name": "a.png"} for i in range(4)]
    images += [{"id": [9], "file_name": "a.png"}, {"id": 10}, "a.png"]
    notes: list[Any] = [{"image_id": 0, "caption": "x"}, {"image_id": [9], "caption": "x"},
                        {"caption": "x"}, None, {"image_id": 1}]  # fmt: skip
    path.write_text(json.dumps({"images": images, "annotations": notes}))
    source = open_path(path)
    assert [p.split(": ")[0] for p in problems(source)] == [
        f"{path}, {place}" for place in ("annotation 2", "annotation 3", "annotation 4",
                                         "annotation 5", "image 5", "image 6", "image 7")
    ]  # fmt: skip
    report = check_source(source, Processor(MODEL.config, TOKENIZER), max_length=200)
    assert report.to_json()["notes"] == ["2 of 7 images have no caption and are left out"]
    for bad in ({"images": [], "annotations": {}}, {"images": 1, "annotations": []}, []):
        path.write_text(json.dumps(bad))
        with pytest.raises(DataError, match="not COCO captions"):
            open_path(path, "coco")


def test_a_folder_hides_nothing(folder: Path) -> None:
    for name in ("a", "b", "lone", "phone", "README"):
        (folder / f"{name}.txt").write_text("words")
    (folder / "sub").mkdir()
    (folder / "sub" / "lone.txt").write_text("words")
    for name in ("phone.heic", "camera.AVIF"):
        (folder / name).write_bytes(b"x")
    source = open_path(folder)
    assert [source[i].id for i in range(2)] == ["a.png", "b.png"]
    said = problems(source)
    places = ["camera.AVIF", "phone.heic", "lone.txt", "sub/lone.txt"]
    assert [p.split(": ")[0] for p in said] == [str(folder / place) for place in places]
    assert ".heic pictures are not read" in said[1]
    assert "no image beside lone.txt" in said[2]


def test_a_repeated_name_in_a_shard_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "00.tar", "w") as archive:
        for name, content in (("one.png", png()), ("one.txt", b"A"), ("two.png", png()),
                              ("two.txt", b"B"), ("one.PNG", png()), ("x/one.png", png()),
                              ("x/one.txt", b"C")):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    source = open_path(tmp_path)
    said = problems(source)
    assert len(said) == 1
    assert said[0].startswith(f"{tmp_path / '00.tar'}, sample one: two files are called 'one.PNG'")
    assert [source[i].messages[1].text for i in (1, 2)] == ["B", "C"]


def test_what_is_known_of_a_row_survives(folder: Path) -> None:
    row = {"id": "1", "meta": {"accepted": ["b", "c"]}, "messages": TALK}
    path = folder / "m.json"
    path.write_text(json.dumps([row, {"meta": "some column", "conversations": SHARED}]))
    assert VqaFile(path=str(path)).items()[0].gold == ("a", "b", "c")
    assert open_path(path)[1].meta == {}
    table = pa.table({"image": ["a.png"], "caption": ["x"], "meta": [{"accepted": ["y"]}]})
    pq.write_table(table, folder / "t.parquet")
    assert VqaFile(path=str(folder / "t.parquet")).items()[0].gold == ("x", "y")


def test_placeholders_stand_in_bare_text_only(folder: Path) -> None:
    typed = [{"role": "user", "content": [{"type": "text", "text": "What does <image> mean?"}]},
             {"role": "assistant", "content": [{"type": "text", "text": "<image> is a tag."}]}]  # fmt: skip
    bare = [{"role": "user", "content": ["See <image> now", {"type": "text", "text": "<image>"}]}, TALK[1]]
    path = folder / "m.json"
    path.write_text(json.dumps([{"images": ["a.png"], "messages": m} for m in (typed, bare)]))
    source = open_path(path)
    assert [[p.type for p in source[i].messages[0].content] for i in range(2)] == [
        ["image", "text"], ["text", "image", "text", "text"]
    ]  # fmt: skip
    assert source[0].messages[1].text == "<image> is a tag."
    assert source[1].messages[0].text == "See  now<image>"
    path.write_text(json.dumps([{"images": ["a.png", "b.png"], "messages": bare}]))
    with pytest.raises(DataError, match=r"2 images but 1 <image> placeholder;"):
        open_path(path)[0]


def test_a_data_url_of_other_letters_is_named(tmp_path: Path) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,é"}}
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": [part]}, TALK[1]]}))
    assert "malformed data URL" in problems(open_path(path))[0]
