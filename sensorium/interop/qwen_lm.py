"""Qwen-7B, the first, by itself -> transformers' Qwen2, which computes the same.

Names are those that `families/qwen_vl.py` has for the language model of Qwen-VL.
"""

from __future__ import annotations

from pathlib import Path

from sensorium.core.errors import ConfigError
from sensorium.interop.converted import write_folder
from sensorium.interop.families.qwen_vl import LM_SPLITS, RULES, check_qwen, qwen_arch
from sensorium.interop.key_map import KeyMap
from sensorium.interop.originals.base import read_json
from sensorium.interop.torch_file import read_checkpoint
from sensorium.nn.pretrained import HARMLESS

LM = "backbone.lm."
KEYS = KeyMap(rules=RULES, splits=LM_SPLITS, left_out=(*HARMLESS, "attn.masked_bias"))


def convert_qwen(source: Path, folder: Path) -> None:
    """Write `folder` in transformers' layout, atomically. Of a Qwen-VL it is the language model.

    Raises:
        ConfigError: it is no Qwen of the first generation, or computes otherwise.
        WeightsError: there are no tensors, or others.
    """
    config = read_json(source / "config.json")
    if config.get("model_type") != "qwen":
        raise ConfigError(f"config.json of type {config.get('model_type')!r}", expected="'qwen'", where=str(source))
    check_qwen(config)
    tensors = {k: v for k, v in read_checkpoint(source).items() if not k.startswith("transformer.visual.")}
    ours = {k.removeprefix(LM): v for k, v in KEYS.to_ours(tensors).items()}
    write_folder(folder, ours, qwen_arch(config), source)
