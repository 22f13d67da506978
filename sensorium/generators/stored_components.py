"""Components of a pipeline whose weights lie in eight bits (`nn/stored_numbers.py`), which diffusers does not know how to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from sensorium.core.errors import WeightsError
from sensorium.nn.pretrained import AGAIN, read_file
from sensorium.nn.stored_numbers import SCALES


def fill_stored(pipe: Any, folder: Path) -> None:
    """Give components the numbers that multiples and scales in their files stand for.

    Raises:
        WeightsError: a file is damaged, or holds numbers of what its component has not, or scales that do not fit.
    """
    for name, component in pipe.components.items():
        if isinstance(component, nn.Module):
            for file in sorted((folder / name).glob("*.safetensors")):
                _fill(component, file)


def _fill(component: nn.Module, file: Path) -> None:
    try:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"damaged weights file: {error}", where=str(file), fix=f"{AGAIN}, or remove it if the pipeline does not use it") from None
    stored = [name.removesuffix(SCALES) for name in names if name.endswith(SCALES)]
    if not stored:
        return
    tensors, state = read_file(file), component.state_dict()
    foreign = [name for name in stored if name not in state or state[name].shape != tensors[name].shape]
    if foreign:
        raise WeightsError(f"{len(foreign)} tensors that are none of {type(component).__name__}'s ({', '.join(foreign[:3])})", where=str(file))
    # Into the tensors that are there, in their own number format.
    for name in stored:
        state[name].copy_(tensors[name])
