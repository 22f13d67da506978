"""Weights of generators that have learnt, which lie beside a model's own."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree

import torch
from safetensors.torch import save_file

from sensorium.nn.pretrained import read_file

GENERATORS = "generators"
"""Their folder in a model's."""


def copy_generators(folder: Path, target: Path, *, half: bool = False) -> None:
    """Copy them into another model folder, if there are some, as they are or in half precision."""
    if not (folder / GENERATORS).is_dir():
        return
    copytree(folder / GENERATORS, target / GENERATORS)
    if not half:
        return
    for file in (target / GENERATORS).rglob("*.safetensors"):
        tensors = {k: v.to(torch.float16) if v.is_floating_point() else v for k, v in read_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
