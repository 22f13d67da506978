"""What saved parts tell of the machine that they were saved on, which is nobody else's business."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ORIGIN = ("_name_or_path", "name_or_path")
"""Where diffusers and transformers write the folder that a part was read from."""


def forget_origin(folder: Path) -> None:
    """Take out of the top level of all configs in a folder that is being written where their parts were read."""
    for file in sorted(folder.rglob("*.json")):
        values: Any = json.loads(file.read_bytes())
        if isinstance(values, dict) and not values.keys().isdisjoint(ORIGIN):
            kept = {key: value for key, value in values.items() if key not in ORIGIN}
            file.write_text(json.dumps(kept, indent=2) + "\n")
