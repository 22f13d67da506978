"""The reference EfficientNet-Lite `.pth` -> our tower's layout.

The map is data and runs both ways. Reference: the `efficientnet-lite-pytorch` package.
"""

from __future__ import annotations

import re
from pathlib import Path

from safetensors.torch import save_file

from sensorium.core.atomic import atomic_folder
from sensorium.core.errors import WeightsError
from sensorium.interop.torch_file import read_torch

# (pattern of a reference name, ours); `#` stands for a block number, `*` for the leaf.
# Block 0 has no expansion; elsewhere `_bn0` follows it.
KEY_MAP = (
    ("_conv_stem.*", "stem.conv.*"),
    ("_bn0.*", "stem.norm.*"),
    ("_blocks.#._expand_conv.*", "blocks.#.expand.conv.*"),
    ("_blocks.#._bn0.*", "blocks.#.expand.norm.*"),
    ("_blocks.#._depthwise_conv.*", "blocks.#.depthwise.conv.*"),
    ("_blocks.#._bn1.*", "blocks.#.depthwise.norm.*"),
    ("_blocks.#._project_conv.*", "blocks.#.project.conv.*"),
    ("_blocks.#._bn2.*", "blocks.#.project.norm.*"),
    ("_conv_head.*", "head.conv.*"),
    ("_bn1.*", "head.norm.*"),
)
CLASSIFIER = ("_fc.weight", "_fc.bias")


def convert_efficientnet(file: Path, folder: Path) -> None:
    """Read the reference weights (tensors only) and write `folder/model.safetensors`.

    Raises:
        WeightsError: the file is damaged or holds other names.
    """
    reference = read_torch(file)
    tensors = {
        to_ours(name): value.contiguous()
        for name, value in reference.items()
        if name not in CLASSIFIER
    }
    with atomic_folder(folder) as target:
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def to_ours(name: str) -> str:
    """Our name of a reference tensor."""
    return _translate(name, [(theirs, ours) for theirs, ours in KEY_MAP])


def to_reference(name: str) -> str:
    """The reference's name of one of our tensors."""
    return _translate(name, [(ours, theirs) for theirs, ours in KEY_MAP])


def _translate(name: str, pairs: list[tuple[str, str]]) -> str:
    for source, target in pairs:
        pattern = re.escape(source).replace(r"\#", r"(\d+)").replace(r"\*", r"(\w+)")
        match = re.fullmatch(pattern, name)
        if match:
            for group, mark in zip(match.groups(), re.findall(r"[#*]", target), strict=True):
                target = target.replace(mark, group, 1)
            return target
    raise WeightsError(f"unknown tensor {name!r} in EfficientNet-Lite weights")
