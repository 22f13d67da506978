"""Whole multimodal checkpoints in the Hugging Face layout: in, and out again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from sensorium.core.atomic import atomic_folder, write_json, write_text
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.interop.assemble import completed
from sensorium.interop.families import FAMILIES
from sensorium.interop.families.base import ByTensors, Family
from sensorium.interop.preprocessor import with_preprocessor
from sensorium.interop.processor_files import grown, processor_files, with_image_token
from sensorium.interop.saved import load_model, read_model_config, save_model
from sensorium.interop.vocabulary_map import with_vocabulary_map
from sensorium.model.check import refuse_quantised
from sensorium.model.config import AdaptionPromptConfig, ModelConfig, PrefixConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.model.written import refuse_written
from sensorium.nn.pretrained import read_folder
from sensorium.text.reader import FOLDER as READER
from sensorium.text.tokenizer import Tokenizer

FOREIGN = "foreign.json"
CLASSES = {"CogVLMForCausalLM": "cogvlm", "CogAgentForCausalLM": "cogagent"}
SIDE_FILES = ("generation_config.json", "preprocessor_config.json", "processor_config.json",
              "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
              "chat_template.jinja", "chat_template.json",
              *(f"{READER}/{name}" for name in ("tokenizer_config.json", "special_tokens_map.json")))  # fmt: skip


def read_hf(folder: Path) -> MultimodalModel:
    """A foreign checkpoint as our model, weights loaded, in fp32.

    Raises:
        ConfigError: its architecture is not known.
        WeightsError: tensors are missing, unknown, or of other shapes.
    """
    return _read(folder)[0]


def _read(folder: Path) -> tuple[MultimodalModel, dict[str, str]]:
    """The model, and the number format of each foreign tensor."""
    config = _foreign_config(folder)
    family = _family(config)
    # What is wrong with a config is said before tensors are asked for.
    meant = _ours(family, config, folder)
    key_map, theirs = family.key_map(config), read_folder(folder)
    meant = family.with_tensors(meant, theirs) if isinstance(family, ByTensors) else meant
    model = MultimodalModel(with_preprocessor(meant, folder))
    formats = {key_map.canonical(k): str(v.dtype).removeprefix("torch.") for k, v in theirs.items()}
    try:
        tensors = key_map.to_ours(theirs)
    except WeightsError as error:
        raise error.at(str(folder)) from None
    state = model.state_dict()
    _fill_tied(tensors, state)
    missing, unknown = sorted(set(state) - set(tensors)), sorted(set(tensors) - set(state))
    if missing or unknown:
        raise WeightsError(
            f"{len(missing)} tensors missing {missing[:3]}, {len(unknown)} unknown {unknown[:3]}",
            where=str(folder),
        )
    model.load_state_dict(tensors, strict=True)
    return model.eval(), formats


def _ours(family: Family, config: dict[str, Any], folder: Path) -> ModelConfig:
    """The config of ours that a foreign one means.

    Raises:
        ConfigError: it lacks a value, or holds one of another kind.
    """
    try:
        return family.to_ours(config)
    except ConfigError as error:
        raise error.at(str(folder / "config.json")) from None
    except KeyError as error:
        found = f"no {error.args[0]!r}"
    except (AttributeError, TypeError) as error:
        found = f"a value of another kind ({error})"
    raise ConfigError(
        f"{found} in a config of type {name_of(config)!r}",
        expected="the config.json that was saved with these weights",
        where=str(folder / "config.json"),
    )


def import_hf(folder: Path, out: Path) -> MultimodalModel:
    """Read a foreign checkpoint and save it as one of ours, in fp32.

    Raises:
        WeightsError: there is no tokenizer beside the weights.
    """
    model, formats = _read(folder)
    tokenizer = completed(Tokenizer.load(folder), model.config.backbone)
    save_model(model, tokenizer, out, learnt=set())
    # Kept for the way back: what we do not model must return unchanged.
    side = {name: (folder / name).read_text(encoding="utf-8")
            for name in SIDE_FILES if (folder / name).exists()}  # fmt: skip
    kept = {"config": _foreign_config(folder), "files": side, "dtypes": formats}
    write_json(out / FOREIGN, kept)
    return model


def export_hf(folder: Path, out: Path, family_name: str | None = None) -> None:
    """Write one of our models in a foreign layout; an imported one's tensors return to the
    number formats they came in.

    Args:
        family_name: needed where the model was not imported; `hf` is the one that it came in or fits.

    Raises:
        ConfigError: the model does not fit the family, or has adaption prompts.
    """
    config = read_model_config(folder)
    refuse_quantised(config, "a copy in a foreign layout", str(folder))
    refuse_written(config.written, str(folder))
    if config.tuning is not None and config.tuning.added:
        raise ConfigError(
            "a model with biases of its own in the LLM",
            expected="no adapter, LoRA, or bias_norm with `added: []`: foreign layouts have no place for the biases",
            where=str(folder),
            fix="load it with sensorium.load",
        )
    if isinstance(config.adapter, AdaptionPromptConfig | PrefixConfig):
        raise ConfigError(
            f"a model with {'adaption prompts' if isinstance(config.adapter, AdaptionPromptConfig) else 'a prefix'}",
            expected="no adapter, or LoRA, which is merged: foreign layouts have no place for prompts",
            where=str(folder),
            fix="load it with sensorium.load",
        )
    kept: dict[str, Any] | None = None
    if family_name == "hf":
        family_name = None if (folder / FOREIGN).exists() else fitting_family(config)
    if (folder / FOREIGN).exists():
        kept = json.loads((folder / FOREIGN).read_text(encoding="utf-8"))
    model, tokenizer = load_model(folder)
    formats: dict[str, str] = {}
    beside: dict[str, Any] = {}
    if kept is not None and family_name in (None, name_of(kept["config"])):
        config = kept["config"]
        family = _family(config)
        formats = kept.get("dtypes", {})
    else:
        if family_name is None:
            raise ConfigError("which layout? It was trained here and came in none", where=str(folder),
                              fix=f"--to hf, which finds the family; or one of {', '.join(FAMILIES)}")  # fmt: skip
        family = FAMILIES.find(family_name)()
        config, token = with_image_token(family.to_theirs(model.config), tokenizer)
        config = with_vocabulary_map(config, model.config, tokenizer)
        beside = processor_files(config, model.config, token, tokenizer)
    with atomic_folder(out) as target:
        write_hf(model, config, family, target, formats)
        tokenizer.save(target)
        for name, content in beside.items():
            (write_text if isinstance(content, str) else write_json)(target / name, content)
        # Only names we know: the file came from elsewhere and may list any path.
        for name in SIDE_FILES:
            text = (kept["files"] if kept else {}).get(name)
            if isinstance(text, str):
                (target / name).parent.mkdir(exist_ok=True)
                (target / name).write_text(text, encoding="utf-8")


def fitting_family(config: ModelConfig) -> str:
    """The family whose architecture a model has.

    Raises:
        ConfigError: it has none's; the reasons of those that share its encoder and projector are named.
    """
    reasons: list[str] = []
    for name in FAMILIES:
        try:
            FAMILIES.find(name)().to_theirs(config)
        except ConfigError as error:
            reasons.append(error.found.partition("layout: ")[2] or str(error))
        else:
            return name
    said = "\n".join(f"  {name}: {reason}" for name, reason in zip(FAMILIES, reasons, strict=True))
    raise ConfigError(f"this model has the architecture of no family of transformers:\n{said}\n",
                      fix="load it with sensorium.load, or choose parts that one of them has")  # fmt: skip


def write_hf(
    model: MultimodalModel,
    config: dict[str, Any],
    family: Family,
    target: Path,
    formats: Mapping[str, str] | None = None,
) -> None:
    """Write `config.json` and `model.safetensors` in the family's layout.

    Args:
        formats: number format by foreign name, as torch calls it (`bfloat16`). A tensor that
            training changed beyond what the format holds, and one without an entry, stay as
            they are in the model.
    """
    seen: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    # Embeddings come before the output layer, so that of a tied pair the embedding stays,
    # as transformers saves it.
    for name, value in sorted(model.state_dict().items(), key=lambda kv: "lm_head" in kv[0]):
        if value.data_ptr() in seen and value.numel():
            continue
        seen[value.data_ptr()] = name
        tensors[name] = value.detach().cpu().contiguous()
    theirs = family.key_map(config).to_theirs(tensors)
    wanted = formats or {}
    stored = {k: in_format(v, wanted.get(k)).contiguous() for k, v in theirs.items()}
    stored = grown(stored, config.get("text_config", {}).get("vocab_size", 0))
    save_file(stored, target / "model.safetensors", metadata={"format": "pt"})
    write_json(target / "config.json", config)


def in_format(tensor: Tensor, name: str | None) -> Tensor:
    """The tensor in a number format, if no value changes by it."""
    # The name comes from a file: nothing but a number format may be looked up.
    dtype = getattr(torch, name, None) if name else None
    if not isinstance(dtype, torch.dtype) or dtype == tensor.dtype:
        return tensor
    cast = tensor.to(dtype)
    exact = (cast.to(tensor.dtype) == tensor) | tensor.isnan()
    return cast if bool(exact.all()) else tensor


def _fill_tied(tensors: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    """A tied output layer is not in the file; it is the embedding."""
    by_pointer = {value.data_ptr(): name for name, value in state.items() if name in tensors}
    for name, value in state.items():
        if name not in tensors and value.data_ptr() in by_pointer and value.numel():
            tensors[name] = tensors[by_pointer[value.data_ptr()]]


def _foreign_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError("no config.json", where=str(folder)) from None
    except json.JSONDecodeError as error:
        raise WeightsError(f"not JSON: {error}", where=str(file)) from None
    return config


def name_of(config: Mapping[str, Any]) -> str | None:
    """A checkpoint's family: its model type, or where code beside it names none, its class."""
    classes = config.get("architectures") or [""]
    return config.get("model_type") or CLASSES.get(classes[0])


def _family(config: dict[str, Any]) -> Family:
    kind = name_of(config)
    if kind not in FAMILIES:
        raise ConfigError(
            f"checkpoint of type {kind!r}", expected=f"one of {', '.join(FAMILIES)}"
        )
    return FAMILIES.find(str(kind))()


def same_tensors(one: Path, two: Path) -> bool:
    """Whether two folders hold equal tensors, bit for bit."""
    a, b = read_folder(one), read_folder(two)
    return set(a) == set(b) and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and torch.equal(a[k], b[k]) for k in a
    )


