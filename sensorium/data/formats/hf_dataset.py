"""Hugging Face `datasets` folders on disk (`save_to_disk`), read through Arrow alone."""

from __future__ import annotations

import json
from pathlib import Path

from sensorium.core.errors import DataError, MissingDependencyError
from sensorium.core.naming import did_you_mean
from sensorium.data.formats.table import arrow_rows
from sensorium.data.source import Source


def open_hf_dataset(path: Path, root: Path | None = None) -> Source:
    """A saved Dataset, or the `train` split of a saved DatasetDict.

    Raises:
        DataError: the folder is not one that `save_to_disk` wrote.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingDependencyError(
            "Hugging Face datasets need pyarrow", fix="pip install -e '.[data]' in the clone"
        ) from None
    if (path / "dataset_dict.json").exists():
        splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        if "train" not in splits:
            raise DataError("no split 'train'", where=str(path), fix=did_you_mean("train", splits)
                            + "; name the split's own folder")  # fmt: skip
        path = path / "train"
    state = path / "state.json"
    if not state.exists():
        raise DataError("no state.json", expected="a folder written by save_to_disk",
                        where=str(path))  # fmt: skip
    files = [f["filename"] for f in json.loads(state.read_text(encoding="utf-8"))["_data_files"]]
    tables = []
    for name in files:
        with pa.memory_map(str(path / name)) as stream:
            tables.append(pa.ipc.open_stream(stream).read_all())
    return arrow_rows(path, pa.concat_tables(tables), root)
