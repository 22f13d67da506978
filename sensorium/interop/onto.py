"""A model as what differs from another one: a few rows and parts beside a model that is shipped.

A folder holds `config.json`, which names the other model and the SHA-256 of its weights, and `difference.safetensors`
with the tensors that the other model does not have, or has otherwise. Of a matrix whose source of weights provides all rows but a
few, only those rows are stored; `config.json` lists their numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sensorium.core.atomic import atomic_folder, write_json
from sensorium.core.errors import WeightsError
from sensorium.core.hashing import sha256_file
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.shipped import find_model
from sensorium.interop.side_files import copy_side_files
from sensorium.model.config import ModelConfig
from sensorium.nn.pretrained import read_file
from sensorium.nn.stored_numbers import Numbers, stored

DIFFERENCE, WHOLE, CONFIG = "difference.safetensors", "model.safetensors", "config.json"
KEYS = ("onto", "onto_sha256", "rows")
"""What `config.json` of a difference has beyond a whole model's."""
FEW = 0.1
"""Share of a matrix's rows, below which they are stored without the others."""
IMPORTED = ("original.json", "original.safetensors")
"""How a model lay in its authors' own layout, and tensors of it that mean nothing here; a difference can go out in it, too."""


def is_difference(folder: Path) -> bool:
    """Whether a model folder holds a difference."""
    return (folder / DIFFERENCE).exists()


def write_difference(folder: Path, onto: str, out: Path, numbers: Numbers | None = None) -> None:
    """Write what a saved model has beyond another one, and its generators that have learnt.

    Args:
        onto: the other model, as it is to be found later: a shipped name, a folder, or a hub id.
        numbers: the format to store in; None: as they are.

    Raises:
        WeightsError: there is no such model, one of them is a difference itself, or the other has what the saved one has not.
    """
    base = find_model(onto)
    for one in (folder, base):
        if is_difference(one):
            raise WeightsError("a difference from another model", expected="a whole model", where=str(one))
    about: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    theirs, mine = read_file(base / WHOLE), read_file(folder / WHOLE)
    lacking = sorted(set(theirs) - set(mine))
    if lacking:
        raise WeightsError(f"a model without {len(lacking)} tensors of model {onto!r}: {lacking[:3]}", where=str(folder),
                           expected="a model that was trained from that one (`start`)", fix="export it whole: --to sensorium")  # fmt: skip
    kept = {name: value for name, value in mine.items() if name not in theirs or not torch.equal(value.float(), theirs[name].float())}
    rows = _few_rows(kept, about["model"], folder)
    with atomic_folder(out) as target:
        copy_side_files(folder, target, numbers, more=IMPORTED)
        save_file(stored(kept, numbers), target / DIFFERENCE, metadata={"format": "pt"})
        write_json(target / CONFIG, about | {"onto": onto, "onto_sha256": sha256_file(base / WHOLE), "rows": rows})


def _source(model: dict[str, Any], folder: Path) -> dict[str, Tensor]:
    """What the model's sources of weights provide; its tokenizer may lie in its folder."""
    return build_pretrained(ModelConfig.from_dict(model), folder if (folder / "tokenizer.json").exists() else None)[0].state_dict()


def _few_rows(kept: dict[str, Tensor], model: dict[str, Any], folder: Path) -> dict[str, list[int]]:
    """Cut matrices down to the rows that their source does not provide; the numbers of those."""
    source = _source(model, folder)
    rows: dict[str, list[int]] = {}
    for name, value in kept.items():
        before = source.get(name)
        if not name.startswith("backbone.") or before is None or before.shape != value.shape or value.ndim != 2:
            continue
        changed = (before != value).any(dim=1).nonzero()[:, 0]
        if len(changed) < FEW * len(value):
            rows[name] = changed.tolist()
            kept[name] = value[changed].contiguous()
    return rows


def read_about(folder: Path) -> dict[str, Any]:
    """The `config.json` of a saved model, as it would be if the model were kept whole."""
    about: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return {key: value for key, value in about.items() if key not in KEYS}


def whole_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of a saved model, one kept as a difference or whole.

    Raises:
        WeightsError: as `read_difference`.
    """
    if not is_difference(folder):
        return dict(read_file(folder / WHOLE).items())
    tensors, rows = read_difference(folder)
    if rows:
        source = _source(read_about(folder)["model"], folder)
        for name, (numbers, value) in rows.items():
            tensors[name] = source[name].clone()
            tensors[name][numbers] = value.to(tensors[name])
    return tensors


def read_difference(folder: Path) -> tuple[dict[str, Tensor], dict[str, tuple[list[int], Tensor]]]:
    """All tensors of the model, whole ones, and rows of others with their numbers.

    Raises:
        WeightsError: the other model is not there, or not the same any more.
    """
    about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    base = find_model(about["onto"])
    if sha256_file(base / WHOLE) != about["onto_sha256"]:
        raise WeightsError(f"model {about['onto']!r} is not the one that this one goes on from", where=str(base / WHOLE),
                           expected=f"SHA-256 {about['onto_sha256'][:16]}…", fix="train this model again, from the present one")  # fmt: skip
    mine = dict(read_file(folder / DIFFERENCE).items())
    rows = {name: (numbers, mine.pop(name)) for name, numbers in about["rows"].items()}
    return dict(read_file(base / WHOLE).items()) | mine, rows
