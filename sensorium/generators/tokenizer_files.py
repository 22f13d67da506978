"""Picture tokenizers in folders: config.json beside model.safetensors, ours or as published.

Layouts of others are told by `model_type` of config.json: Chameleon, Emu3 and Janus, the whole model or its VQ model alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from sensorium.core.errors import ConfigError
from sensorium.core.picture_tokenizer import PictureTokenizer, PictureTokenizerConfig
from sensorium.generators import PICTURE_TOKENIZERS

# What config.json calls the whole model, and its VQ model alone.
PUBLISHED = {
    "chameleon": "chameleon_vq", "chameleon_vqgan": "chameleon_vq", "emu3": "emu3_vq", "emu3_vqgan": "emu3_vq",
    "janus": "janus_vq", "janus_vqgan": "janus_vq",
}  # fmt: skip


def read_tokenizer_config(folder: Path) -> PictureTokenizerConfig:
    """The config of the tokenizer that lies in a folder.

    Raises:
        ConfigError: there is no config.json, or it is none of a picture tokenizer.
    """
    said = _read(folder / "config.json")
    if said is None:
        raise ConfigError("no config.json", where=str(folder), fix="give a folder that holds a picture tokenizer")
    if "kind" in said:
        kind = PICTURE_TOKENIZERS.find(str(said["kind"]))
        return kind.from_dict(said, where=str(folder / "config.json"))
    name = PUBLISHED.get(str(said.get("model_type")))
    if name is None:
        raise ConfigError(
            f"model_type {said.get('model_type')!r}", expected=f"one of {', '.join(PUBLISHED)}, or a kind of ours",
            where=str(folder / "config.json"),
        )  # fmt: skip
    pictures = _read(folder / "preprocessor_config.json") or {}
    return PICTURE_TOKENIZERS.find(name).published(said, pictures)


def open_tokenizer(folder: Path) -> PictureTokenizer:
    """The tokenizer in a folder, with its weights.

    Raises:
        ConfigError: see `read_tokenizer_config`.
        WeightsError: its weights are missing or damaged.
    """
    return read_tokenizer_config(folder).build(folder)


def _read(path: Path) -> Mapping[str, Any] | None:
    """A JSON object; None where there is no such file."""
    if not path.is_file():
        return None
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}", where=str(path)) from None
    if not isinstance(said, dict):
        raise ConfigError("not a JSON object", where=str(path))
    return cast(Mapping[str, Any], said)
