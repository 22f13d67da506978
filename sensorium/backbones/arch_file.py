"""`arch` of a backbone whose weights lie in a folder: the folder's own config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from sensorium.core.config import as_mapping
from sensorium.core.errors import ConfigError


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
