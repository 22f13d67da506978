"""Foreign formats -> Samples: one file each."""

from __future__ import annotations

from pathlib import Path

from sensorium.core.errors import DataError
from sensorium.core.tables import NameTable
from sensorium.data.source import Source

FORMATS = NameTable(
    "data format",
    {
        "samples": "sensorium.data.formats.samples:open_samples",
        "llava": "sensorium.data.formats.llava:open_llava",
        "messages": "sensorium.data.formats.messages:open_messages",
        "coco": "sensorium.data.formats.coco:open_coco",
        "vqa": "sensorium.data.formats.vqa:open_vqa",
        "table": "sensorium.data.formats.table:open_table",
        "folder": "sensorium.data.formats.folder:open_folder",
        "webdataset": "sensorium.data.formats.webdataset:open_webdataset",
        "hf_dataset": "sensorium.data.formats.hf_dataset:open_hf_dataset",
    },
)


def open_path(path: Path, name: str = "auto", root: Path | None = None) -> Source:
    """Open data in a named format, or find out which it is.

    Raises:
        DataError: there is nothing at `path`, its format cannot be told, or it cannot be read.
        ConfigError: the name is unknown.
    """
    if not path.exists():
        raise DataError("no such file or folder", where=str(path))
    if name == "auto":
        from sensorium.data.formats.detect import detect_format

        name = detect_format(path)
    try:
        return FORMATS.find(name)(path, root)
    except OSError as error:
        raise DataError(
            f"not readable as {name}: {error.strerror or error}", where=str(path),
            fix="check the path, its permissions, and --format",
        ) from None  # fmt: skip
