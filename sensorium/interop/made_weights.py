"""Weights of generators that have learnt, which lie beside a model's own."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree

from safetensors.torch import save_file

from sensorium.nn.pretrained import read_file
from sensorium.nn.stored_numbers import Numbers, stored

GENERATORS = "generators"
"""Their folder in a model's."""


def copy_generators(folder: Path, target: Path, numbers: Numbers | None = None) -> None:
    """Copy them into another model folder, if there are some, as they are or in a number format."""
    if not (folder / GENERATORS).is_dir():
        return
    copytree(folder / GENERATORS, target / GENERATORS)
    if numbers is None:
        return
    for file in (target / GENERATORS).rglob("*.safetensors"):
        save_file(stored(read_file(file), numbers), file, metadata={"format": "pt"})
