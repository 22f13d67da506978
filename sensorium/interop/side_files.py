"""What lies in a model folder beside its config and its weights."""

from __future__ import annotations

from pathlib import Path

from sensorium.interop.made_weights import copy_generators
from sensorium.nn.stored_numbers import Numbers
from sensorium.text.reader import Reader

NAMES = ("tokenizer.json", "tokenizer_config.json", "foreign.json")


def copy_side_files(folder: Path, target: Path, numbers: Numbers | None = None, *, more: tuple[str, ...] = ()) -> None:
    """Copy it; generators in a number format where asked for.

    Args:
        more: names of further files, where they are there.
    """
    for name in (*NAMES, *more):
        if (folder / name).exists():
            (target / name).write_bytes((folder / name).read_bytes())
    copy_generators(folder, target, numbers)
    reader = Reader.find(folder)
    if reader:
        reader.save(target)
