"""What converters of whole folders share: what they write beside the tensors."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from sensorium.core.atomic import atomic_folder, write_json
from sensorium.text.rank_file import QWEN

TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", QWEN)


def write_folder(
    folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None = None, words: Path | None = None
) -> None:
    """Write a folder in transformers' layout, atomically.

    Args:
        words: a folder whose tokenizer is copied.
    """
    with atomic_folder(folder) as target:
        plain = {k: v.contiguous().clone() for k, v in tensors.items()}
        save_file(plain, target / "model.safetensors", metadata={"format": "pt"})
        if config is not None:
            write_json(target / "config.json", config)
        for name in TOKENIZERS:
            if words is not None and (words / name).is_file():
                shutil.copyfile(words / name, target / name)
