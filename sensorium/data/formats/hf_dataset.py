"""Hugging Face `datasets` folders, read through Arrow alone: those that `save_to_disk` wrote,
and those in the hub's layout of Parquet files (`data/train-00000-of-00002.parquet`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sensorium.core.errors import DataError, MissingDependencyError
from sensorium.core.naming import did_you_mean
from sensorium.data.formats.table import arrow_rows, read_parquet
from sensorium.data.source import Source, read_json

SPLITS = ("train", "validation", "valid", "val", "dev", "test")
SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")


def open_hf_dataset(path: Path, root: Path | None = None) -> Source:
    """A saved Dataset, the `train` split of a saved DatasetDict or of a hub folder, or all
    Parquet files of a folder that names no splits.

    Raises:
        DataError: the folder is none of these, or its files are damaged, missing or empty.
    """
    saved, left_out = path, 0
    if (path / "dataset_dict.json").exists():
        saved = path / _train_split(path / "dataset_dict.json")
    state = saved / "state.json"
    if state.exists():
        tables = [(file, _read_arrow(file)) for file in _arrow_files(state)]
    elif saved == path and (found := sorted(f for f in path.rglob("*.parquet") if f.is_file())):
        files = parquet_files(found, path)
        left_out = len(found) - len(files)
        tables = [(file, read_parquet(file)) for file in files]
        root = root or path
    else:
        raise DataError("no state.json", where=str(saved),
                        expected="a folder written by save_to_disk, or Parquet files")  # fmt: skip
    if not any(table.num_rows for _, table in tables):
        raise DataError("the dataset has no rows", where=str(saved))
    source = arrow_rows(path.name, tables, root)
    if left_out:
        source.notes.append(f"{left_out} Parquet files outside the split 'train' are left out")
    return source


def _train_split(file: Path) -> str:
    values = read_json(file.read_bytes(), str(file))
    splits = values.get("splits") if isinstance(values, dict) else None
    if not isinstance(splits, list):
        raise DataError("no list of 'splits'", where=str(file), fix="save the dataset again")
    return _train_of([str(split) for split in splits], file.parent)


def _train_of(splits: Sequence[str], path: Path) -> str:
    if "train" not in splits:
        raise DataError("no split 'train'", where=str(path), fix=did_you_mean("train", splits)
                        + "; name the split's own folder or file")  # fmt: skip
    return "train"


def _arrow_files(state: Path) -> list[Path]:
    values = read_json(state.read_bytes(), str(state))
    try:
        return [state.parent / file["filename"] for file in values["_data_files"]]
    except (KeyError, TypeError):
        raise DataError("no list of '_data_files' with their names", where=str(state),
                        fix="save the dataset again") from None  # fmt: skip


def _read_arrow(file: Path) -> Any:
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingDependencyError(
            "Hugging Face datasets need pyarrow", fix="pip install -e '.[data]' in the clone"
        ) from None
    try:
        with pa.memory_map(str(file)) as stream:
            return pa.ipc.open_stream(stream).read_all()
    except FileNotFoundError:
        raise DataError("no such file, though state.json names it", where=str(file),
                        fix="copy the folder again, whole") from None  # fmt: skip
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"not readable as Arrow: {error}", where=str(file),
                        fix="copy the folder again, whole") from None  # fmt: skip


def parquet_files(found: list[Path], path: Path) -> list[Path]:
    """The Parquet files of the `train` split, in order; all, where no name tells a split.

    Raises:
        DataError: there are other splits only, several configs, or too few shards.
    """
    split = {file: _split_of(file.relative_to(path)) for file in found}
    named = sorted({name for name in split.values() if name})
    if named:
        chosen = _train_of(named, path)
        found = [file for file in found if split[file] == chosen]
    folders = sorted({str(file.parent.relative_to(path)) for file in found})
    if len(folders) > 1:
        raise DataError(f"Parquet files in {', '.join(folders)}", expected="those of one config",
                        where=str(path), fix="name one of these folders")  # fmt: skip
    _check_shards(found)
    return found


def _split_of(file: Path) -> str | None:
    """By the hub's rules: what stands before the shard's number, a word of the file's name, or
    else a folder's whole name."""
    words = re.split(r"[-._ ]", file.stem)
    shard = SHARD.search(file.stem)
    if shard is not None and words[0] in SPLITS:
        # `train_sft` and `train_gen` are splits of their own.
        return file.stem[: shard.start()]
    return next((s for s in SPLITS if s in words), None) or next(
        (s for s in SPLITS if s in file.parts[:-1]), None
    )


def _check_shards(files: Sequence[Path]) -> None:
    for file in files:
        match = SHARD.search(file.stem)
        if match is None:
            continue
        start, total = file.stem[: match.start()], int(match[2])
        mine = {f.stem for f in files if f.parent == file.parent}
        gone = [n for n in range(total) if f"{start}-{n:05d}-of-{total:05d}" not in mine]
        if gone:
            raise DataError(
                f"shard {gone[0]} of {total} is missing", where=str(file),
                fix="download the folder again, whole",
            )  # fmt: skip
