"""Our own checkpoints: config.json + model.safetensors (+ tokenizer).

Parts that name a source of weights and never learnt are left out; they come from their
source again. What learnt, and what has no source, is stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

import sensorium
from sensorium.core.atomic import atomic_folder, write_json
from sensorium.core.errors import WeightsError
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.made_weights import GENERATORS, check_generators
from sensorium.interop.onto import is_difference, read_about, read_difference, whole_tensors
from sensorium.interop.side_files import copy_side_files
from sensorium.model.adapter import LORA_MARK, inject_adapter, merge_all
from sensorium.model.check import is_quantised
from sensorium.model.config import ModelConfig
from sensorium.model.learning import own_names
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.pretrained import read_file
from sensorium.nn.stored_numbers import Numbers, stored
from sensorium.text.reader import Reader
from sensorium.text.tokenizer import Tokenizer

FORMAT = 1


def save_model(
    model: MultimodalModel,
    tokenizer: Tokenizer,
    folder: Path,
    learnt: set[str],
    numbers: Numbers | None = None,
    apart: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a model folder, atomically.

    Args:
        learnt: names of parameters that training changed.
        numbers: the format to store in; None: as they are.
        apart: low-rank matrices that no layer of the model holds, by plain names; stored as they are.
    """
    state = model.state_dict()
    names = sorted((own_names(model) | learnt) & set(state))
    tensors = {plain_name(name): state[name] for name in names}
    # Tied matrices are one tensor with two names; the first name is stored.
    seen: dict[int, str] = {}
    tied: dict[str, str] = {}
    for name in list(tensors):
        pointer = state[name].data_ptr() if name in state else 0
        if pointer and pointer in seen:
            tied[name] = seen[pointer]
            del tensors[name]
        elif pointer:
            seen[pointer] = name
    with atomic_folder(folder) as target:
        about = {"sensorium": sensorium.__version__, "format": FORMAT, "model": model.config.to_dict(), "tied": tied}
        made = model.generators.save(target / GENERATORS)
        write_json(target / "config.json", about | ({GENERATORS: made} if made else {}))
        save_file(stored(tensors, numbers) | dict(apart or {}), target / "model.safetensors", metadata={"format": "pt"})
        # Where the backbone has a source, the tokenizer comes from there as well, but not a
        # projector's reader.
        if not model.config.backbone.weights:
            tokenizer.save(target)
        elif tokenizer.reader:
            tokenizer.reader.save(target)


def plain_name(name: str) -> str:
    """peft wraps a layer's own weight; on disk it keeps its plain name."""
    return name.replace(".base_layer.", ".").replace(".default.", ".")


def load_model(folder: Path) -> tuple[MultimodalModel, Tokenizer]:
    """Read a model folder; low-rank adapters are merged into the LLM, adaption prompts stay. Beside a
    quantised LLM, low-rank adapters stay, too.

    Raises:
        WeightsError: a file is missing, damaged, or does not fit the config.
    """
    config = read_model_config(folder)
    own_tokenizer = (folder / "tokenizer.json").exists()
    model, tokenizer = build_pretrained(config, folder if own_tokenizer else None, Reader.find(folder))
    check_generators(folder)
    model.generators.saved_in(folder / GENERATORS)
    stored, rows = read_difference(folder) if is_difference(folder) else (dict(read_file(folder / "model.safetensors").items()), {})
    state = model.state_dict()
    adapter = {name: value for name, value in stored.items() if LORA_MARK in name}
    plain = {name: value for name, value in stored.items() if LORA_MARK not in name}
    unknown = sorted(set(plain) - set(state))
    missing = sorted(own_names(model) - set(plain) - set(rows) - set(tied_names(folder)))
    if unknown or missing:
        raise WeightsError(
            f"{len(unknown)} unknown and {len(missing)} missing tensors: {(unknown + missing)[:4]}",
            where=str(folder / "model.safetensors"),
            fix="the config and the weights are not of the same model",
        )
    with torch.no_grad():
        for name, value in plain.items():
            if state[name].shape != value.shape:
                raise WeightsError(
                    f"{name} has shape {tuple(value.shape)}",
                    expected=str(tuple(state[name].shape)),
                    where=str(folder),
                )
            state[name].copy_(value)
        for name, (numbers, value) in rows.items():
            state[name][numbers] = value.to(state[name])
    if is_quantised(config):
        _put_beside(model, adapter)
    if adapter:
        merge_all(state, adapter, config, str(folder))
    return model.eval(), tokenizer


def _put_beside(model: MultimodalModel, adapter: dict[str, Tensor]) -> None:
    """Let the LLM keep its low-rank adapter apart, and take it out of what is to be merged."""
    mine = {name: adapter.pop(name) for name in list(adapter) if name.startswith("backbone.")}
    if mine:
        inject_adapter(model, "backbone.")
        here = {plain_name(name): value for name, value in model.state_dict().items()}
        with torch.no_grad():
            for name, value in mine.items():
                here[name].copy_(value)


def tied_names(folder: Path) -> dict[str, str]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("tied", {})


def read_model_config(folder: Path) -> ModelConfig:
    """The model config of a folder.

    Raises:
        WeightsError: it is not a Sensorium model folder.
    """
    file = folder / "config.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError("no config.json", where=str(folder)) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"not JSON: {error}", where=str(file)) from None
    if not isinstance(values, dict) or "model" not in values or "sensorium" not in values:
        raise WeightsError(
            "not a Sensorium model folder",
            where=str(folder),
            fix="bring a foreign checkpoint in with `sensorium import`",
        )
    return ModelConfig.from_dict(values["model"], where=str(file))


def recast(folder: Path, out: Path, numbers: Numbers | None) -> None:
    """Copy a model folder, its tensors as stored or in a number format; one kept as a difference becomes whole."""
    read_model_config(folder)
    tensors = whole_tensors(folder)
    with atomic_folder(out) as target:
        save_file(stored(tensors, numbers), target / "model.safetensors", metadata={"format": "pt"})
        write_json(target / "config.json", read_about(folder))
        copy_side_files(folder, target, numbers)
