"""A CLIP that lies beside a checkpoint, a folder in transformers' layout."""

from __future__ import annotations

from pathlib import Path

from sensorium.core.errors import WeightsError
from sensorium.encoders.clip import ClipConfig
from sensorium.interop.families.clip import Clip
from sensorium.interop.originals.base import Beside, Found, read_json


def clip_folder(found: Found, beside: Beside) -> Path:
    """The folder of the tower.

    Raises:
        WeightsError: none was named, or it is no model folder.
    """
    if beside.tower is None or not (beside.tower / "config.json").is_file():
        raise WeightsError("the checkpoint holds no tower", where=str(found.path),
                           fix="name the folder of its CLIP (transformers layout) with --tower")  # fmt: skip
    return beside.tower


def clip_config(folder: Path) -> tuple[ClipConfig, int]:
    """The tower with its pooled feature, and the width of CLIP's joint space; of a whole CLIP, or of its tower alone."""
    whole = read_json(folder / "config.json")
    if "vision_config" not in whole:
        whole = {"vision_config": whole, "projection_dim": whole.get("projection_dim", 512)}
    encoder = Clip().to_ours(whole).lane("image").encoder
    assert isinstance(encoder, ClipConfig)
    return encoder, whole.get("projection_dim", 512)
