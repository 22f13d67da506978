"""LLaVA-NeXT and LLaVA-OneVision as their repository saves them: the model that transformers' layout of the same gives,
whose function `test_llava_next.py` and `test_llava_onevision.py` compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from original_layouts import IMAGE, TEXT, VISION_16, llava_repository, spread, write_folder
from test_originals import llava_config

from sensorium.interop.hf import read_hf
from sensorium.interop.original import import_original, read_original
from sensorium.interop.original_export import export_original
from sensorium.interop.originals.base import Beside
from sensorium.nn.pretrained import read_file
from sensorium.text.byte_tokenizer import byte_tokenizer

PINPOINTS = [[28, 56], [56, 28], [56, 56]]
QWEN2 = TEXT | {"model_type": "qwen2"}


def next_oracle() -> tuple[Any, dict[str, Any]]:
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

    vision = {"model_type": "clip_vision_model", **VISION_16}
    theirs = LlavaNextForConditionalGeneration(LlavaNextConfig(
        vision_config=vision, text_config=TEXT, image_token_index=IMAGE, image_grid_pinpoints=PINPOINTS,
    ))  # fmt: skip
    return theirs, llava_config(image_aspect_ratio="anyres", image_grid_pinpoints=PINPOINTS, mm_patch_merge_type="spatial_unpad")


def onevision_oracle(tower: Path) -> tuple[Any, dict[str, Any]]:
    """The repository drops SigLIP's last block and head: two blocks here, of three that the tower's own config counts."""
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    vision = {"model_type": "siglip_vision_model", **VISION_16}
    theirs = LlavaOnevisionForConditionalGeneration(LlavaOnevisionConfig(
        vision_config=vision | {"num_hidden_layers": 2, "vision_use_head": False}, text_config=QWEN2, image_token_index=IMAGE,
        image_grid_pinpoints=PINPOINTS, vision_feature_layer=-1, vision_aspect_ratio="anyres_max_9",
    ))  # fmt: skip
    tower.mkdir()
    (tower / "config.json").write_text(json.dumps(vision))
    config = QWEN2 | llava_config() | {
        "model_type": "llava_qwen", "image_aspect_ratio": "anyres_max_9", "image_grid_pinpoints": PINPOINTS,
        "mm_patch_merge_type": "spatial_unpad", "mm_vision_tower": str(tower),
    }  # fmt: skip
    return theirs, config


@pytest.mark.parametrize("kind", ["llava_next", "llava_onevision"])
def test_tiles(kind: str, tmp_path: Path) -> None:
    theirs, config = next_oracle() if kind == "llava_next" else onevision_oracle(tmp_path / "tower")
    spread(theirs)
    theirs.save_pretrained(tmp_path / "hf")
    byte_tokenizer().save(tmp_path / "hf")
    expected = read_hf(tmp_path / "hf")
    tensors = {k: v for k, v in llava_repository(theirs).items()
               if not (kind == "llava_onevision" and k.endswith("position_ids"))}  # fmt: skip
    write_folder(tmp_path / "repository", config, tensors)
    ours = read_original(tmp_path / "repository", Beside())
    mine, lane = ours.config.lane("image"), expected.config.lane("image")
    assert mine.encoder == lane.encoder
    assert mine.resolution == lane.resolution
    assert mine.projector == lane.projector
    state = expected.state_dict()
    assert set(ours.state_dict()) == set(state)
    assert "newlines.image" in state
    assert all(torch.equal(v, state[k]) for k, v in ours.state_dict().items())
    import_original(tmp_path / "repository", tmp_path / "ours", Beside())
    export_original(tmp_path / "ours", tmp_path / "back")
    back = read_file(tmp_path / "back" / "model.safetensors")
    assert torch.equal(back["model.image_newline"], tensors["model.image_newline"])
