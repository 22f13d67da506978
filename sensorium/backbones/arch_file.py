"""`arch` of a backbone: where its weights lie in a folder, the folder's own config.json; and what transformers makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from sensorium.core.config import as_mapping
from sensorium.core.errors import ConfigError
from sensorium.core.naming import nearest


def with_arch(values: Any) -> Any:
    """Raw values of a backbone, `arch` filled in from the first folder of `weights` where it is left out.

    Raises:
        ConfigError: there is no such folder, or no config.json in it.
    """
    node = as_mapping(values)
    if node is None or "arch" in node:
        return values
    for source in cast(list[Any], node.get("weights") or []):
        path = (as_mapping(source) or {}).get("path") or getattr(source, "path", None)
        file = Path(str(path)) / "config.json"
        if path and file.is_file():
            return {**node, "arch": json.loads(file.read_text(encoding="utf-8"))}
    raise ConfigError(
        "the backbone has no `arch`, and no folder with a config.json under `weights`",
        where="model.backbone",
        fix="copy the language model's config.json to `arch`, or let `sensorium recipe new NAME --llm FOLDER|HUB_ID` do it",
    )


def transformers_config(arch: dict[str, Any]) -> Any:
    """The transformers config object for `arch`.

    Raises:
        ConfigError: no model type is named, transformers does not know it, or a value does not fit.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING, AutoConfig

    values = {k: v for k, v in arch.items() if k not in ("auto_map", "transformers_version")}
    model_type = values.pop("model_type", None)
    if not isinstance(model_type, str):
        raise ConfigError("backbone config names no 'model_type'")
    if model_type not in CONFIG_MAPPING:
        near = nearest(model_type, CONFIG_MAPPING)
        raise ConfigError(f"transformers knows no model of type {model_type!r}", where="model_type",
                          fix=f"did you mean {near!r}?" if near else "see the language model's own config.json")  # fmt: skip
    try:
        return AutoConfig.for_model(model_type, **values)
    except (ValueError, KeyError, StrictDataclassError) as error:
        raise ConfigError(f"transformers cannot build {model_type!r}: {error}", where="backbone.arch") from None
