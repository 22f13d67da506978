"""The shipped models that point, draw and find, as they lie in the package: right on easy things, and small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sensorium
from sensorium.core.masks import read_mask
from sensorium.core.responder import Request
from sensorium.core.sample import Message, Part
from sensorium.data.scenes import draw_scene, make_scene
from sensorium.evaluation.metrics.boxes import box_iou
from sensorium.evaluation.metrics.pointed import read_pointing
from sensorium.interop.shipped import SHIPPED

MIB = 2**20


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "nano"])
def test_it_is_a_difference_from_nano_in_eight_bits_with_a_card(name: str) -> None:
    folder = SHIPPED[name]
    files = {file.name: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    assert {"config.json", "difference.safetensors", "README.md"} <= set(files)
    assert sum(files.values()) < 6 * MIB
