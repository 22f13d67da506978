"""Checkpoints as their authors published them: `.bin`, `.pth`, safetensors; one file or shards.

Files of torch are read by its restricted unpickler, which makes tensors and plain containers and
runs nothing that a file asks for. What needs more is refused.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensorium.core.errors import WeightsError
from sensorium.nn.pretrained import read_file

TORCH_ENDINGS = (".bin", ".pth", ".pt", ".ckpt", ".tar")
"""`.pth.tar` is what some call torch's own zip files."""
WRAPPERS = ("model", "state_dict", "module", "model_state_dict")
"""Keys under which trainers put a model's tensors, beside those of an optimiser."""
WHOLE = ("model.safetensors", "pytorch_model.bin")
"""A folder's one file of weights, or with `.index.json` behind it the list of its shards."""


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, or of a folder's `model.safetensors` or `pytorch_model.bin`, shards too.

    Raises:
        WeightsError: there are none, a file is damaged, or it needs pickled code.
    """
    if path.is_dir():
        tensors: dict[str, Tensor] = {}
        for file in _files(path):
            tensors.update(read_checkpoint(file))
        return tensors
    if path.suffix == ".safetensors":
        return read_file(path)
    if path.suffix in TORCH_ENDINGS:
        return read_torch(path)
    raise WeightsError(
        f"a weights file ending in {path.suffix!r}",
        expected=", ".join((".safetensors", *TORCH_ENDINGS)),
        where=str(path),
    )


def file_stem(file: Path) -> str:
    """A weights file's name without its ending, be it `.pth.tar`."""
    return file.name.removesuffix(".tar").removesuffix(".pth") if file.suffix == ".tar" else file.stem


def has_weights(folder: Path) -> bool:
    """Whether a folder holds a whole model's tensors."""
    return any((folder / f"{name}{end}").exists() for name in WHOLE for end in ("", ".index.json"))


def _files(folder: Path) -> list[Path]:
    for name in WHOLE:
        index = folder / f"{name}.index.json"
        if index.exists():
            names = _weight_map(index).values()
            # The list came with the checkpoint: it may name files of this folder, no others.
            if any(Path(str(n)).name != n for n in names):
                raise WeightsError("the index lists paths outside of its folder", where=str(index))
            return [folder / n for n in sorted(set(names))]
        if (folder / name).exists():
            return [folder / name]
    raise WeightsError(
        "no weights", expected=" or ".join(WHOLE) + ", whole or with an index of shards",
        where=str(folder),
    )  # fmt: skip


def _weight_map(index: Path) -> dict[str, str]:
    try:
        return dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"not an index of shards: {error!r}", where=str(index)) from None


def read_torch(file: Path) -> dict[str, Tensor]:
    """The tensors of a file that torch saved.

    Raises:
        WeightsError: the file is missing, damaged, needs pickled code, or holds something else than
            named tensors.
    """
    content = _unpickled(file)
    for name in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping):
        raise WeightsError(f"a {type(content).__name__}", expected="named tensors", where=str(file))
    other = [str(k) for k, v in content.items() if not isinstance(v, Tensor)]
    if other or not content:
        raise WeightsError(
            f"{len(other)} entries are no tensors ({', '.join(other[:3])})" if other else "nothing",
            expected=f"named tensors, at most inside {' or '.join(map(repr, WRAPPERS))}",
            where=str(file),
        )
    return {str(k): v for k, v in content.items()}


def entry(file: Path, name: str) -> Any:
    """What a file of torch has under a name beside its tensors; None: nothing, or another kind of file.

    Raises:
        WeightsError: the file is damaged, or needs pickled code.
    """
    if file.suffix not in TORCH_ENDINGS or not file.is_file():
        return None
    content = _unpickled(file)
    return content.get(name) if isinstance(content, Mapping) else None


def _unpickled(file: Path) -> Any:
    if not file.is_file():
        raise WeightsError("no such weights file", where=str(file))
    try:
        with file.open("rb") as stream:
            zipped = stream.read(2) == b"PK"
        # Only zip files, torch's format since 1.6, can be mapped into memory.
        return torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"refused: the file needs pickled code, or is damaged ({_first_line(error)})",
            expected="tensors in plain containers, which is all that is read here",
            where=str(file),
            fix="save its state_dict alone, where you trust the file: "
            "torch.save(torch.load(FILE, weights_only=False)['model'], NEW), or ['state_dict'] of it",
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"damaged weights file: {_first_line(error)}", where=str(file)) from None


def _first_line(error: Exception) -> str:
    """What torch found, without its advice to load the file unsafely."""
    text = str(error)
    found = text.partition("WeightsUnpickler error:")[2] or text
    return found.strip().partition("\n")[0][:200]
