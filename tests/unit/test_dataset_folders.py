"""Hugging Face folders: what `save_to_disk` wrote, and the hub's layout of Parquet files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sensorium.core.errors import DataError
from sensorium.data.formats import open_path
from sensorium.data.formats.detect import detect_format
from sensorium.data.source import place_of
from sensorium.media.image import load_image


def table(*texts: str) -> Any:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, "PNG")
    return pa.table({"image": [{"bytes": buffer.getvalue(), "path": None}] * len(texts),
                     "caption": pa.array(texts, pa.string())})  # fmt: skip


def parquet(path: Path, *texts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(*texts), path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    datasets.Dataset(table("one", "two", "three")).save_to_disk(tmp_path / "ds", num_shards=2)
    return tmp_path / "ds"


def texts(path: Path) -> list[str]:
    assert detect_format(path) == "hf_dataset"
    source = open_path(path)
    for i in range(len(source)):
        part = next(source[i].media())
        assert load_image(part.value, root=source[i].root).shape.width_px == 8
    return [source[i].messages[1].text for i in range(len(source))]


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"_data_files": [7]}', '{"_data_files": null}'])
def test_a_broken_state_is_named(damage: str, saved: Path) -> None:
    (saved / "state.json").write_text(damage)
    with pytest.raises(DataError, match=r"state\.json"):
        open_path(saved)


@pytest.mark.parametrize("damage", ["{", "[]", '{"splits": "train"}'])
def test_a_broken_dict_of_splits_is_named(damage: str, saved: Path) -> None:
    (saved / "dataset_dict.json").write_text(damage)
    with pytest.raises(DataError, match=r"dataset_dict\.json"):
        open_path(saved)


def test_damaged_missing_and_empty_files_are_named(saved: Path, tmp_path: Path) -> None:
    assert texts(saved) == ["one", "two", "three"]
    file = sorted(saved.glob("*.arrow"))[1]
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"something else"):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{file.name}: not readable as Arrow"):
            open_path(saved)
    file.unlink()
    with pytest.raises(DataError, match=f"{file.name}: no such file"):
        open_path(saved)
    datasets.Dataset(table()).save_to_disk(tmp_path / "empty")
    with pytest.raises(DataError, match="no rows"):
        open_path(tmp_path / "empty")
    (saved / "state.json").write_text(json.dumps({"_data_files": []}))
    with pytest.raises(DataError, match="no rows"):
        open_path(saved)


def test_rows_are_named_by_their_own_file(saved: Path) -> None:
    source = open_path(saved)
    assert place_of(source, 2).endswith("data-00001-of-00002.arrow, row 1")


@pytest.mark.parametrize(
    ("first", "second"),
    [("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"),
     ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet"),
     ("default/train/0000.parquet", "default/train/0001.parquet"),
     ("a.parquet", "b.parquet"), ("part-00000-of-00002.parquet", "part-00001-of-00002.parquet")],
)  # fmt: skip
def test_the_hubs_layout_is_read(first: str, second: str, tmp_path: Path) -> None:
    root = tmp_path / "hub"
    parquet(root / first, "one", "two")
    parquet(root / second, "three")
    (root / "README.md").write_text("A card.")
    Image.new("RGB", (8, 6)).save(root / "banner.png")
    assert texts(root) == ["one", "two", "three"]
    assert place_of(open_path(root), 2) == f"{root / second}, row 1"


def test_other_splits_are_left_out_and_counted(tmp_path: Path) -> None:
    parquet(tmp_path / "data" / "train-00000-of-00001.parquet", "one")
    parquet(tmp_path / "data" / "test-00000-of-00001.parquet", "two")
    assert texts(tmp_path) == ["one"]
    assert getattr(open_path(tmp_path), "notes", []) == [
        "1 Parquet files outside the split 'train' are left out"
    ]


@pytest.mark.parametrize(
    ("files", "reason"),
    [(["data/test-00000-of-00001"], "no split 'train'"),
     (["data/train_sft-00000-of-00001", "data/train_gen-00000-of-00001"], "did you mean 'train_"),
     (["en/train-00000-of-00001", "fr/train-00000-of-00001"], "expected those of one config"),
     (["data/train-00000-of-00003", "data/train-00002-of-00003"], "shard 1 of 3 is missing")],
)  # fmt: skip
def test_hub_folders_that_would_be_read_wrongly_are_refused(
    files: list[str], reason: str, tmp_path: Path
) -> None:
    for file in files:
        parquet(tmp_path / f"{file}.parquet", "one")
    with pytest.raises(DataError, match=reason):
        open_path(tmp_path)


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    file = tmp_path / "train-00000-of-00001.parquet"
    parquet(file, "one")
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError, match=f"{file.name}: not readable as Parquet"):
        open_path(tmp_path)


def test_parquet_beside_captioned_pictures_does_not_hide_them(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", "one")
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("two")
    assert detect_format(tmp_path) == "folder"
