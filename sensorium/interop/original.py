"""Authors' own checkpoints: in, as a model of ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sensorium.backbones.llama_steps import PROMPT_NAME
from sensorium.core.atomic import write_json
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.interop.adapter_import import read_lora
from sensorium.interop.assemble import completed
from sensorium.interop.families import FAMILIES
from sensorium.interop.key_map import KeyMap
from sensorium.interop.locate import locate
from sensorium.interop.originals import ORIGINALS
from sensorium.interop.originals.base import Beside, Found, Original, is_pipeline, read_json
from sensorium.interop.saved import plain_name, save_model
from sensorium.interop.torch_file import file_stem, has_weights, read_checkpoint
from sensorium.model.adapter import LORA_MARK, merge_into
from sensorium.model.config import LoraConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.text.tokenizer import Tokenizer

ORIGINAL = "original.json"
IDLE = "original.safetensors"
"""What the layout has and no part of ours reads; there only if there is any."""
ADAPTER = "adapter_config.json"
PIECES = tuple(f"{name}.{end}" for names, ends in (
    (("mm_projector", "mm_input_projector", "mm_output_projector", "non_lora_trainables", "adapter_model"), ("bin", "safetensors")),
    (("pretrained_ckpt", "decision_model"), ("pth.tar", "safetensors")),
    (("pytorch_model",), ("pt", "safetensors")),
) for name in names for end in ends)  # fmt: skip
"""What training leaves in a folder that holds no whole model."""
PAIR = tuple(f"{name}.{end}" for name in ("mllm", "unet") for end in ("pt", "safetensors"))
"""MGIE's."""
GENERATOR = "generators."
"""In front of the names of what makes media; behind it the kind."""


def is_original(path: Path) -> bool:
    """Whether this is to be read here, and not a folder in transformers' layout."""
    if not path.is_dir():
        return True
    config = read_json(path / "config.json")
    known = config.get("model_type") in FAMILIES and has_weights(path)
    return not known or any(key.startswith("mm_") for key in config)


def read_original(path: Path, beside: Beside) -> MultimodalModel:
    """An original checkpoint as our model, weights loaded, in fp32; low-rank matrices merged.

    Raises:
        ConfigError: its layout is not known, or has parts that we don't have.
        WeightsError: tensors are missing, left over or of other shapes; a file needs pickled code.
    """
    model, lora, *_ = _read(path, beside)
    return _merged(model, lora)


def import_original(path: Path, out: Path, beside: Beside) -> MultimodalModel:
    """Read an original checkpoint and save it as one of ours; low-rank matrices stay apart in the folder.

    Raises:
        WeightsError: as for `read_original`; or there is no tokenizer with it or the language model.
    """
    model, lora, kept, idle = _read(path, beside)
    own = path if path.is_dir() else path.parent
    folder = own if (own / "tokenizer.json").exists() or beside.llm is None else beside.llm
    tokenizer = completed(Tokenizer.load(folder), model.config.backbone)
    _check_words(tokenizer, kept.pop("words"), folder)
    save_model(model, tokenizer, out, learnt=set(), apart=lora)
    write_json(out / ORIGINAL, kept)
    if idle:
        save_file(idle, out / IDLE, metadata={"format": "pt"})
    return _merged(model, lora)


def _check_words(tokenizer: Tokenizer, rows: dict[str, int], folder: Path) -> None:
    """Refuse a tokenizer that gives a control token another row than the checkpoint.

    Raises:
        WeightsError: naming the first.
    """
    for token, row in rows.items():
        found = tokenizer.special_id(token)
        if found != row:
            raise WeightsError(f"token {token} has number {found}", expected=f"{row}, its row of the embedding", where=str(folder),
                               fix="name the folder of the tokenizer that the language model began with with --llm")  # fmt: skip


def _kept(name: str, layout: Original, raw: Found, gathered: Found) -> dict[str, Any]:
    """What the way back needs: names, number formats and files of the tensors that were taken."""
    kept: dict[str, Any] = {"layout": name, "config": gathered.config, "tensors": {}}
    for theirs, value in sorted(raw.tensors.items()):
        if layout.canonical(theirs) in gathered.tensors or layout.canonical(theirs) in gathered.idle:
            file, form = raw.files.get(theirs, file_stem(raw.path)), str(value.dtype).removeprefix("torch.")
            kept["tensors"][theirs] = {"file": file, "dtype": form}
    kept["words"] = dict(gathered.words)
    if raw.lora is not None:
        kept["adapter"] = read_json(raw.path / ADAPTER)
    return kept


def _read(
    path: Path, beside: Beside
) -> tuple[MultimodalModel, dict[str, Tensor], dict[str, Any], dict[str, Tensor]]:
    """The model, low-rank matrices by our names, what the way back needs, and what no part reads."""
    raw = _find(path)
    name, layout = _layout(raw, beside)
    found = layout.gather(raw, beside)
    key_map = layout.key_map(found.tensors)
    plain = {k: v for k, v in found.tensors.items() if LORA_MARK not in k}
    low_rank = {k: v for k, v in found.tensors.items() if LORA_MARK in k}
    lora = {plain_name(k): v for k, v in key_map.to_ours(low_rank).items()}
    config = layout.model(found, beside)
    if found.lora is not None and lora:
        targets = sorted({k.partition(".lora_")[0].rpartition(".")[2] for k in lora})
        adapter = found.lora.model_copy(update={"targets": tuple(targets)})
        config = config.model_copy(update={"adapter": adapter})
    folders = layout.folders(found, beside)
    model = MultimodalModel(config, folders)
    model.generators.locate = locate
    ours = key_map.to_ours(plain)
    for kind in {k.split(".")[1] for k in ours if k.startswith(GENERATOR)}:
        model.generators.own(kind)
    state = model.state_dict() | model.generators.tensors()
    # Of a generator that the checkpoint holds, nothing is to come from elsewhere.
    _check(model, state, ours, key_map, {part for part in folders if not part.startswith(GENERATOR)}, path)
    with torch.no_grad():
        for key, value in ours.items():
            key_map.place(key, state[key]).copy_(value)
    if lora:
        _check_lora(state, lora, found)
    idle = {k: v.contiguous() for k, v in raw.tensors.items() if layout.canonical(k) in found.idle}
    return model.eval(), lora, _kept(name, layout, raw, found), idle


def _find(path: Path) -> Found:
    if not path.exists():
        raise WeightsError("no such file or folder", where=str(path))
    if not path.is_dir():
        return Found(path, read_json(path.parent / "config.json"), read_checkpoint(path))
    config = read_json(path / "config.json")
    if has_weights(path):
        tensors = read_checkpoint(path)
        return Found(path, config, tensors, files=dict.fromkeys(tensors, "model"))
    pieces = [path / name for name in (*PIECES, *PAIR) if (path / name).exists()]
    if not pieces:
        read_checkpoint(path)  # says what a folder may hold
    read = {file_stem(file): read_checkpoint(file) for file in pieces}
    found = Found(path, config, {k: v for part in read.values() for k, v in part.items()},
                  files={k: stem for stem, part in read.items() for k in part})  # fmt: skip
    return replace(found, lora=_lora(path)) if any(LORA_MARK in k for k in read.get("adapter_model", ())) else found


def _lora(folder: Path) -> LoraConfig:
    """The adapter's config.

    Raises:
        WeightsError: it is missing, or means more than low-rank products.
    """
    file = folder / ADAPTER
    values = read_json(file)
    if "r" not in values or "lora_alpha" not in values:
        raise WeightsError("low-rank matrices and no r and lora_alpha for them", where=str(file))
    lora = read_lora(values, str(file))
    if lora.dora:
        raise WeightsError("an adapter with use_dora", expected="plain low-rank matrices", where=str(file))
    return lora


def _layout(found: Found, beside: Beside) -> tuple[str, Original]:
    """By the checkpoint's own names, or else by those of what was named with it (SEED-LLaMA's are any LLaMA's)."""
    layouts: list[tuple[str, Original]] = [(name, ORIGINALS.find(name)()) for name in ORIGINALS]
    more = [path for path in beside.more if not is_pipeline(path)]
    for names in (lambda: found.tensors, lambda: {k for path in more for k in read_checkpoint(path)}):
        known = names()
        for name, layout in layouts:
            if layout.fits(known):
                return name, layout
    some = ", ".join(sorted(found.tensors)[:3])
    kind = f"model_type {found.config['model_type']!r}, " if "model_type" in found.config else ""
    raise ConfigError(
        f"a checkpoint of no known layout ({kind}tensors such as {some})",
        expected=f"transformers' {', '.join(FAMILIES)}, or the original {', '.join(ORIGINALS)}",
        where=str(found.path),
    )


def _check(
    model: MultimodalModel, state: dict[str, Tensor], ours: dict[str, Tensor], key_map: KeyMap, beside: set[str], path: Path
) -> None:
    """Refuse a checkpoint that does not fill the model, or does not fit into it.

    Raises:
        WeightsError: naming the tensors, as the checkpoint calls them.
    """
    tied = {v.data_ptr() for k, v in state.items() if k in ours and v.numel()}
    # What an adapter builds into the language model lies in no folder of one.
    missing = [k for k, v in state.items() if k not in ours and v.data_ptr() not in tied
               and (PROMPT_NAME in k or k in model.tuned or not any(k.startswith(f"{part}.") for part in beside))]  # fmt: skip
    left = [k for k in ours if k not in state]
    if missing or left:
        both = {"missing": missing, "left over": left}
        raise WeightsError(
            "; ".join(f"{len(v)} tensors are {what} ({_named(v, key_map)})" for what, v in both.items() if v),
            where=str(path),
            fix="name what lies elsewhere with --llm, --tower or --with; check that config.json is this model's",
        )
    for key, value in ours.items():
        place = key_map.place(key, state[key])
        if place.shape != value.shape:
            raise WeightsError(
                f"{_named([key], key_map)} has shape {tuple(value.shape)}",
                expected=str(tuple(place.shape)), where=str(path),
            )  # fmt: skip


def _named(ours: list[str], key_map: KeyMap) -> str:
    names = sorted(key_map.their_name(k) for k in ours)
    return ", ".join(names[:4]) + ", ..." * (len(names) > 4)


def _check_lora(state: dict[str, Tensor], lora: dict[str, Tensor], found: Found) -> None:
    """Refuse low-rank matrices without a layer, a partner, or numbers that say how they are scaled.

    Raises:
        WeightsError: naming the first.
    """
    if found.lora is None:
        raise WeightsError("low-rank matrices without adapter_config.json", where=str(found.path))
    halves = {k.partition(".lora_")[0] for k in lora}
    unknown = sorted(h for h in halves if f"{h}.weight" not in state
                     or {f"{h}.lora_{x}.weight" for x in "AB"} - set(lora))  # fmt: skip
    if unknown:
        raise WeightsError(f"{len(unknown)} low-rank matrices without a layer or a pair ({unknown[0]})",
                           where=str(found.path))  # fmt: skip


def _merged(model: MultimodalModel, lora: dict[str, Tensor]) -> MultimodalModel:
    """The model with low-rank products added, as `load_model` does."""
    if lora:
        assert isinstance(model.config.adapter, LoraConfig)
        merge_into(model.state_dict(), lora, model.config.adapter)
    return model
