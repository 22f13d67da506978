"""Weights of generators that have learnt, which lie beside a model's own."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

from safetensors.torch import save_file

from sensorium.core.errors import WeightsError
from sensorium.model.origin import forget_origin
from sensorium.nn.pretrained import read_file
from sensorium.nn.stored_numbers import Numbers, stored

GENERATORS = "generators"
"""Their folder in a model's, and in its `config.json` the kinds that lie there."""


def check_generators(folder: Path) -> None:
    """Refuse a saved model that has lost a generator which it has taught: one with random weights would stand in for it.

    Raises:
        WeightsError: naming the folder that is not there.
    """
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for kind in about.get(GENERATORS, ()):
        if not (folder / GENERATORS / kind).is_dir():
            raise WeightsError(f"the generator of this model's {kind} is gone", where=str(folder / GENERATORS / kind),
                               fix="copy the model's folder again from where it is whole")  # fmt: skip


def copy_generators(folder: Path, target: Path, numbers: Numbers | None = None) -> None:
    """Copy them into another model folder, if there are some, as they are or in a number format."""
    if not (folder / GENERATORS).is_dir():
        return
    copytree(folder / GENERATORS, target / GENERATORS)
    forget_origin(target / GENERATORS)
    if numbers is None:
        return
    for file in (target / GENERATORS).rglob("*.safetensors"):
        save_file(stored(read_file(file), numbers), file, metadata={"format": "pt"})
