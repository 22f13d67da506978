"""Every format people own becomes Samples; every bad row is named."""

from __future__ import annotations

import base64
import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sensorium.core.errors import DataError
from sensorium.core.sample import Sample
from sensorium.data.formats import open_path
from sensorium.data.formats.detect import detect_format
from sensorium.media.image import load_image


def png(color: tuple[int, int, int] = (200, 10, 10)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(png())
    return tmp_path


def shape(sample: Sample) -> list[tuple[str, list[str]]]:
    return [(m.role, [p.type for p in m.content]) for m in sample.messages]


def decodes(sample: Sample) -> None:
    for part in sample.media():
        assert load_image(part.value, root=sample.root).shape.width_px == 8


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_samples(folder: Path) -> None:
    row = {"id": "1", "messages": [
        {"role": "user", "content": [{"type": "image", "image": "a.png"},
                                     {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "A square."}]}  # fmt: skip
    path = folder / "x.jsonl"
    path.write_text(json.dumps(row) + "\n\n" + json.dumps(row) + "\n")
    source = open_path(path)
    assert len(source) == 2
    assert detect_format(path) == "samples"
    assert shape(source[1]) == [("user", ["image", "text"]), ("assistant", ["text"])]
    assert source[0].to_json()["messages"][0] == row["messages"][0]
    decodes(source[0])


def test_llava(folder: Path) -> None:
    rows = [
        {"id": "1", "image": "a.png", "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "Red."},
            {"from": "human", "value": "Sure?"}, {"from": "gpt", "value": "Yes."}]},
        {"id": "2", "image": ["a.png", "b.png"], "conversations": [
            {"from": "human", "value": "Compare <image> with <image>."},
            {"from": "gpt", "value": "Alike."}]},
        {"id": "3", "conversations": [{"from": "human", "value": "Hi"},
                                      {"from": "gpt", "value": "Hello."}]},
    ]  # fmt: skip
    source = open_path(write(folder / "l.json", rows))
    assert shape(source[0])[0] == ("user", ["image", "text"])
    assert shape(source[1])[0] == ("user", ["text", "image", "text", "image", "text"])
    assert shape(source[2])[0] == ("user", ["text"])
    assert "<image>" not in json.dumps(source[1].to_json())
    decodes(source[1])


def test_two_images_and_one_placeholder_is_named(folder: Path) -> None:
    rows = [{"id": "1", "image": ["a.png", "b.png"], "conversations": [
        {"from": "human", "value": "<image> What?"}, {"from": "gpt", "value": "Red."}]}]  # fmt: skip
    source = open_path(write(folder / "l.json", rows))
    with pytest.raises(DataError, match=r"row 1.*2 images but 1 <image> placeholder"):
        source[0]
    rows[0]["image"], rows[0]["conversations"][0]["value"] = ["a.png"], "<image><image>"
    source = open_path(write(folder / "l.json", rows))
    with pytest.raises(DataError, match="more <image> placeholders"):
        source[0]


@pytest.mark.parametrize("key", ["messages", "conversations"])
def test_sharegpt_and_openai(folder: Path, key: str) -> None:
    url = "data:image/png;base64," + base64.b64encode(png()).decode()
    rows = [
        {key: [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "Red."}],
         "images": ["a.png"]},
        {key: [{"role": "user", "content": [{"type": "text", "text": "What?"},
                                            {"type": "image_url", "image_url": {"url": url}}]},
               {"role": "assistant", "content": "Red."}]},
        {key: [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "Red."}],
         "images": ["a.png", "b.png"]},
    ]  # fmt: skip
    path = folder / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    source = open_path(path)
    assert shape(source[0])[0] == ("user", ["image", "text"])
    assert shape(source[1])[0] == ("user", ["text", "image"])
    assert shape(source[2])[0] == ("user", ["image", "image", "text"])
    for i in range(3):
        decodes(source[i])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "empty"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "unknown role 'wizard'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {
            "url": "https://example.org/x.png"}}]}]}, "remote medium"),
        ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "hologram"),
        ({"messages": "hello"}, "list"),
        ({"other": 1}, "no turns"),
    ],
)  # fmt: skip
def test_bad_rows_are_named(tmp_path: Path, row: Any, reason: str) -> None:
    path = tmp_path / "bad.jsonl"
    good = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    path.write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n{not json\n")
    source = open_path(path, "messages")
    assert len(source) == 3
    assert source[0].messages[1].text == "a"
    with pytest.raises(DataError, match=reason) as caught:
        source[1]
    assert "bad.jsonl:2" in str(caught.value)
    with pytest.raises(DataError, match=r"bad\.jsonl:3.*not JSON"):
        source[2]


def test_openai_vision_and_arrays_are_told_from_our_own(folder: Path) -> None:
    url = "data:image/png;base64," + base64.b64encode(png()).decode()
    openai = {"messages": [
        {"role": "user", "content": [{"type": "text", "text": "q"},
                                     {"type": "image_url", "image_url": {"url": url}}]},
        {"role": "assistant", "content": "a"}]}  # fmt: skip
    plain = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    (folder / "o.jsonl").write_text(json.dumps(openai))
    assert shape(open_path(folder / "o.jsonl")[0])[0] == ("user", ["text", "image"])
    for indent in (None, 2):
        (folder / "a.json").write_text(json.dumps([plain, plain], indent=indent))
        assert len(open_path(folder / "a.json")) == 2


def test_one_object_over_several_lines_is_one_row(folder: Path) -> None:
    boxes = {"messages": [{"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "q"}]},
                          {"role": "assistant", "content": [{"type": "boxes", "boxes": [[1, 1, 3, 4]]}]}]}  # fmt: skip
    openai = {"messages": [{"role": "user", "content": "<image>q"}, {"role": "assistant", "content": "a"}], "images": ["a.png"]}
    for name in ("x.json", "x.jsonl"):
        for row, format in ((boxes, "samples"), (openai, "messages")):
            for indent in (None, 1):
                (folder / name).write_text(json.dumps(row, indent=indent) + "\n")
                assert detect_format(folder / name) == format
                source = open_path(folder / name)
                assert len(source) == 1
                assert shape(source[0])[0] == ("user", ["image", "text"])
                decodes(source[0])
    # Lines are lines, whatever their file is called, and a broken one costs no other.
    (folder / "x.json").write_text("{\n" + json.dumps(openai) + "\n")
    source = open_path(folder / "x.json")
    assert (len(source), shape(source[1])[0]) == (2, ("user", ["image", "text"]))
    with pytest.raises(DataError, match=r"x\.json:1.*not JSON"):
        source[0]


@pytest.mark.parametrize("own", [
    {"content": [{"type": "boxes", "boxes": [[1, 1, 3, 4]]}]}, {"content": [{"type": "mask", "mask": "a.png"}]},
    {"content": [{"type": "image", "image": "b.png", "prompt": "a box"}]},
])  # fmt: skip
def test_a_list_of_samples_is_told_by_what_no_other_format_has(folder: Path, own: dict[str, Any]) -> None:
    plain = {"messages": [{"role": "user", "content": "<image>q"}, {"role": "assistant", "content": "a"}]}
    ours = {"messages": [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}, {"role": "assistant", **own}]}
    assert detect_format(write(folder / "s.json", [plain | {"images": ["a.png"]}, {"messages": 1}])) == "messages"
    source = open_path(write(folder / "s.json", [plain, {"messages": 1}, ours]))
    assert source[2].to_json()["messages"] == ours["messages"]
    with pytest.raises(DataError, match=r"s\.json, row 2.*'messages' is int"):
        source[1]


def test_unquoted_comma_is_named_not_cut(folder: Path) -> None:
    (folder / "t.csv").write_text("image,caption\na.png,A cat, on a mat\n")
    with pytest.raises(DataError, match="more cells than columns"):
        open_path(folder / "t.csv")[0]


def test_coco(folder: Path) -> None:
    value = {"images": [{"id": 7, "file_name": "a.png"}],
             "annotations": [{"id": 1, "image_id": 7, "caption": "A red box. "},
                             {"id": 2, "image_id": 8, "caption": "?"}]}  # fmt: skip
    source = open_path(write(folder / "c.json", value))
    assert source[0].messages[1].text == "A red box."
    decodes(source[0])
    with pytest.raises(DataError, match=r"annotation 2.*no image with id 8"):
        source[1]


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_csv(folder: Path, suffix: str) -> None:
    path = folder / f"t.{suffix}"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, delimiter="," if suffix == "csv" else "\t")
        writer.writerows([["image", "caption"], ["a.png", "red, box"], ["b.png", ""], ["", "x"]])
    source = open_path(path)
    assert source[0].messages[1].text == "red, box"
    decodes(source[0])
    with pytest.raises(DataError, match="row 3"):
        source[2]


def test_parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({
        "image": [{"bytes": png(), "path": None}, {"bytes": None, "path": "b.png"}],
        "question": ["What color?", "What shape?"],
        "answer": ["red", "square"],
    })  # fmt: skip
    pq.write_table(table, folder / "t.parquet")
    source = open_path(folder / "t.parquet")
    assert shape(source[0]) == [("user", ["image", "text"]), ("assistant", ["text"])]
    decodes(source[0])
    decodes(source[1])


def test_hf_dataset(folder: Path) -> None:
    """Written by the datasets library itself."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    made = datasets.Dataset.from_dict(
        {"image": [str(folder / "a.png"), str(folder / "b.png")], "caption": ["one", "two"]},
        features=features,
    )
    made.save_to_disk(folder / "ds")
    datasets.DatasetDict({"train": made}).save_to_disk(folder / "dd")
    for name in ("ds", "dd"):
        source = open_path(folder / name)
        assert [source[i].messages[1].text for i in range(2)] == ["one", "two"]
        decodes(source[1])
    datasets.DatasetDict({"dev": made}).save_to_disk(folder / "nope")
    with pytest.raises(DataError, match="no split 'train'"):
        open_path(folder / "nope")


def test_folder_with_texts(folder: Path) -> None:
    (folder / "a.txt").write_text("A red box.\n")
    source = open_path(folder)
    assert source[0].messages[1].text == "A red box."
    decodes(source[0])
    with pytest.raises(DataError, match=r"no b\.txt"):
        source[1]


def test_webdataset(tmp_path: Path) -> None:
    def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))

    talk = {"conversations": [{"from": "human", "value": "<image>What?"},
                              {"from": "gpt", "value": "Red."}]}  # fmt: skip
    with tarfile.open(tmp_path / "00.tar", "w") as archive:
        add(archive, "one.png", png())
        add(archive, "one.txt", b"A red box.")
    with tarfile.open(tmp_path / "01.tar", "w") as archive:
        add(archive, "two.png", png())
        add(archive, "two.json", json.dumps(talk).encode())
    source = open_path(tmp_path)
    assert len(source) == 2
    assert source[0].messages[1].text == "A red box."
    assert source[1].messages[1].text == "Red."
    for i in range(2):
        decodes(source[i])
    with tarfile.open(tmp_path / "02.tar", "w:gz") as archive:
        add(archive, "x.txt", b"x")
    with pytest.raises(DataError, match=r"02\.tar.*uncompressed"):
        open_path(tmp_path)


def test_unknown_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        open_path(tmp_path / "gone.json")
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(DataError, match="cannot tell"):
        open_path(tmp_path / "x.bin")
    (tmp_path / "x.json").write_text('{"rows": []}')
    with pytest.raises(DataError, match=r"keys \['rows'\]"):
        open_path(tmp_path / "x.json")
