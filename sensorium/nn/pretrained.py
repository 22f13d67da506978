"""Weights from a folder of safetensors into a module, with nothing missing or left over."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from sensorium.core.errors import WeightsError
from sensorium.nn.stored_numbers import restored

# Buffers that older files store and newer models compute; families' own ones are known to
# transformers, which does not report them.
HARMLESS = ("rotary_emb.inv_freq", "position_ids")
AGAIN = "copy it again from where it is whole"


INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def need_weights(folder: Path, fix: str) -> None:
    """Refuse a folder that is not there, or that holds no safetensors, before anything is read of it.

    Args:
        fix: what brings them, a command where there is one.

    Raises:
        WeightsError: naming what is missing.
    """
    if not folder.is_dir():
        raise WeightsError("no such folder", where=str(folder), fix=fix)
    if not (folder / INDEX).exists() and not (folder / SINGLE).exists():
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLED)
        only = f", only {', '.join(pickled)}, which is not read" if pickled else ""
        raise WeightsError(f"no {SINGLE} and no index of shards{only}", where=str(folder), fix=fix)


def need_files(folder: Path, names: Iterable[str], fix: Callable[[str], str]) -> None:
    """Refuse a folder that is not there, or that lacks one of these files, before anything is read of it.

    Args:
        fix: what brings a file; of an empty name, all of the folder.

    Raises:
        WeightsError: naming the first one.
    """
    if not folder.is_dir():
        raise WeightsError("no such folder", where=str(folder), fix=fix(""))
    for name in names:
        if not (folder / name).is_file():
            raise WeightsError(f"no {name}", where=str(folder), fix=fix(name))


def from_hub(id: str, path: str, files: str = "model*") -> str:
    """The command that brings safetensors of a model on the hub into a folder."""
    return f"hf download {id} --include '{files}' --local-dir {path} (or another folder of this layout)"


def read_folder(folder: Path) -> dict[str, Tensor]:
    """All tensors of `model.safetensors` or of the shards its index lists.

    Raises:
        WeightsError: there are none, or a file is damaged.
    """
    index, single = folder / INDEX, folder / SINGLE
    if index.exists():
        files = [folder / name for name in _shards(index)]
    elif single.exists():
        files = [single]
    else:
        raise WeightsError(
            "no model.safetensors and no index of shards",
            where=str(folder),
            fix="convert pickled weights to safetensors first; they are not read here",
        )
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(read_file(file))
    return tensors


def _shards(index: Path) -> list[str]:
    """The files that an index lists.

    Raises:
        WeightsError: it is no index, or lists files of other folders.
    """
    try:
        names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WeightsError("not an index of shards", expected="a weight_map", where=str(index)) from None
    if any(Path(name).name != name for name in names):
        raise WeightsError("an index that lists files outside its folder", where=str(index))
    return names


def read_file(file: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    try:
        return restored(load_file(file), str(file))
    except FileNotFoundError:
        raise WeightsError("no such weights file", where=str(file), fix=AGAIN) from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"damaged weights file: {error}", where=str(file), fix=AGAIN) from None


def load_folder(module: nn.Module, folder: Path, fix: str | None = None) -> None:
    """Load a folder's tensors into a module of ours; names and shapes must match exactly.

    Args:
        fix: what brings others, for the error.
    """
    load_exact(module, read_folder(folder), where=str(folder), fix=fix)


def load_exact(module: nn.Module, tensors: dict[str, Tensor], where: str, fix: str | None = None) -> None:
    """Like `load_state_dict(strict=True)`, with an error of one line that says what to look at."""
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        wrong = _unlike(module.state_dict(), tensors) or " ".join(str(error).split())[:600]
        raise WeightsError(f"weights do not fit {type(module).__name__}: {wrong}", where=where, fix=fix) from None


def _unlike(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """What tensors lack, what they have beside, and what is of another shape; of each a few."""
    shapes = [f"{name} is {tuple(value.shape)} in place of {tuple(wanted[name].shape)}"
              for name, value in found.items() if name in wanted and value.shape != wanted[name].shape]  # fmt: skip
    kinds = {"lacking": [name for name in wanted if name not in found], "left over": [name for name in found if name not in wanted],
             "of another shape": shapes}  # fmt: skip
    return "; ".join(f"{len(names)} {said} ({', '.join(names[:5])}{', ...' * (len(names) > 5)})" for said, names in kinds.items() if names)


def load_part(module: nn.Module, folder: Path, prefix: str) -> None:
    """Load the tensors of one part of a whole checkpoint; where none has its prefix, the folder holds
    the part alone. Tied tensors may be stored once.

    Raises:
        WeightsError: tensors are missing, left over, or of another shape.
    """
    whole = {n: v for n, v in read_folder(folder).items() if not n.endswith(HARMLESS)}
    mine = {n.removeprefix(prefix): v for n, v in whole.items() if n.startswith(prefix)} or whole
    state = module.state_dict()
    stored = {state[n].data_ptr() for n in mine if n in state}
    tied = {n: v for n, v in state.items() if n not in mine and v.data_ptr() in stored}
    load_exact(module, tied | mine, where=str(folder))


def from_config(
    model_class: Any,
    config: Any,
    folder: Path | None,
    *,
    beside: Collection[str] = (),
    **options: Any,
) -> Any:
    """A transformers model with the folder's weights (see `from_folder`), or random ones."""
    if folder is None:
        return model_class(config, **options)
    return from_folder(model_class, config, folder, beside=beside, **options)


def from_folder(
    model_class: Any, config: Any, folder: Path, *, beside: Collection[str] = (), **options: Any
) -> Any:
    """A transformers model from a local folder: safetensors only, no remote code.

    Args:
        beside: modules that a whole checkpoint holds beside this model, such as CLIP's
            `text_model` beside its vision tower; their tensors are not wanted.

    Raises:
        WeightsError: tensors are missing, left over, or of another shape.
    """
    import torch

    try:
        model, info = model_class.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise WeightsError(f"cannot load weights: {error}", where=str(folder)) from None
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:5])
        raise WeightsError(
            f"{len(info['missing_keys'])} tensors are missing ({missing}, ...)",
            where=str(folder),
            fix="check that the folder holds this very architecture",
        )
    left = sorted(name for name in info["unexpected_keys"] if not _expendable(name, beside))
    if left:
        raise WeightsError(
            f"{len(left)} tensors are left over ({', '.join(left[:5])}{', ...' * (len(left) > 5)})",
            expected=f"only what {type(model).__name__} has",
            where=str(folder),
            fix="check the number of layers and the other sizes in the config, and that the "
            "folder holds this very architecture",
        )
    return model.eval()


def _expendable(name: str, beside: Collection[str]) -> bool:
    return name.endswith(HARMLESS) or not set(beside).isdisjoint(name.split("."))


def read_named(folder: Path, prefixes: Collection[str]) -> dict[str, Tensor]:
    """Tensors whose names begin with one of these, without it; nothing else of the files is read, which may be large.

    Where none has such a name, the folder holds the part alone, and all are read.

    Raises:
        WeightsError: there are no files, or one is damaged.
    """
    index = folder / INDEX
    files = [folder / name for name in _shards(index)] if index.exists() else [folder / SINGLE]
    found: dict[str, Tensor] = {}
    for file in files:
        if not file.exists():
            raise WeightsError("no such file", where=str(file), fix="give a folder with safetensors files")
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    prefix = next((p for p in prefixes if name.startswith(p)), None)
                    if prefix is not None:
                        found[name.removeprefix(prefix)] = opened.get_tensor(name)
        except SafetensorError as error:
            raise WeightsError(f"not a readable safetensors file: {error}", where=str(file)) from None
    return found or read_folder(folder)
