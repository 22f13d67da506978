"""The language model of a folder or of a hub id as a backbone's config: its own config.json, and where its weights lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.backbones.seq2seq_lm import FAMILIES, Seq2SeqLMConfig
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.core.parts import BackboneConfig
from sensorium.core.weights import FolderSource, HubSource


def folder_llm(folder: Path) -> BackboneConfig:
    """The language model in a folder of transformers' layout.

    Raises:
        ConfigError: there is no config.json, or it is of another kind of model.
    """
    return _llm(folder / "config.json", FolderSource(path=str(folder)))


def hub_llm(name: str) -> BackboneConfig:
    """The language model of a hub id; its config.json alone is fetched.

    Raises:
        WeightsError: it cannot be fetched.
        ConfigError: it is of another kind of model.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        file = hf_hub_download(name, "config.json")
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise WeightsError(f"config.json of hub model {name!r} cannot be fetched ({type(error).__name__})",
                           fix="name a local folder") from None  # fmt: skip
    return _llm(Path(file), HubSource(id=name))


def _llm(file: Path, source: FolderSource | HubSource) -> BackboneConfig:
    try:
        arch: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no config.json", where=str(file.parent), expected="a language model's folder") from None
    except ValueError as error:
        raise ConfigError(f"not readable as JSON: {error}", where=str(file)) from None
    whole = [key for key in ("vision_config", "model") if isinstance(arch.get(key), dict)]
    if whole:
        raise ConfigError(f"a multimodal model (it has {whole[0]!r})", where=str(file), expected="a language model",
                          fix="go on from it with `start:`, or bring it here with `sensorium import`")  # fmt: skip
    kind = Seq2SeqLMConfig if arch.get("model_type") in FAMILIES else CausalLMConfig
    return kind(arch=arch, weights=(source,))
