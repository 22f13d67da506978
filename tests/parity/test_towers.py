"""Towers read in other ways than their own classes do, against those classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium.core.errors import ConfigError, WeightsError
from sensorium.encoders.clip import ClipConfig
from sensorium.encoders.idefics_vit import IdeficsVitConfig
from sensorium.encoders.siglip import SiglipConfig

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "image_size": 32,
         "patch_size": 8}  # fmt: skip
OURS = {"width": 32, "mlp_width": 48, "heads": 4, "image_size_px": 32, "patch_size_px": 8}


def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)


@torch.no_grad()
def test_clip_normed_as_a_whole(tmp_path: Path) -> None:
    """mPLUG-Owl's tower: CLIP's last layer, then the final norm on all 17 tokens, at 1e-6."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    theirs = CLIPVisionModel(CLIPVisionConfig(**SHAPE, num_hidden_layers=3, layer_norm_eps=1e-6)).eval()
    # Features so small that the norm's epsilon is seen.
    for name, parameter in theirs.named_parameters():
        parameter.normal_(0, 1e-3 if parameter.ndim > 1 or "class" in name else 1.0)
    theirs.save_pretrained(tmp_path)
    config = ClipConfig(**OURS, layers=3, feature="cls_patch", norm_eps=1e-6, norm_tokens=True)
    tower = config.build(tmp_path)
    raw = pixels()
    states = theirs(tower.normalise(raw)).last_hidden_state
    expected = theirs.post_layernorm(states)
    got = tower(raw).values_ND.reshape(2, 17, 32)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    plain = config.model_copy(update={"norm_tokens": False}).build(tmp_path)
    torch.testing.assert_close(plain(raw).values_ND.reshape(2, 17, 32), states, atol=1e-5, rtol=1e-5)


def test_the_final_norm_is_not_for_inner_layers() -> None:
    with pytest.raises(ConfigError, match="final norm on the tokens of an inner layer"):
        ClipConfig(**OURS, layers=3, select_layer=-2, norm_tokens=True).build()


def siglip(folder: Path) -> Any:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    theirs = SiglipVisionModel(SiglipVisionConfig(**SHAPE, num_hidden_layers=3)).eval()
    theirs.save_pretrained(folder)
    return theirs


@torch.no_grad()
def test_siglip_without_its_last_block_and_head(tmp_path: Path) -> None:
    """LLaVA-OneVision's tower, from SigLIP's own checkpoint."""
    theirs = siglip(tmp_path)
    tower = SiglipConfig(**OURS, layers=2, select_layer=-1, pooling_head=False).build(tmp_path)
    raw = pixels()
    expected = theirs(tower.normalise(raw), output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(tower(raw).values_ND.reshape(2, 16, 32), expected)


def test_more_blocks_too_many_are_refused(tmp_path: Path) -> None:
    siglip(tmp_path)
    with pytest.raises(WeightsError, match="left over"):
        SiglipConfig(**OURS, layers=1, select_layer=-1, pooling_head=False).build(tmp_path)
    with pytest.raises(WeightsError, match="left over"):
        SiglipConfig(**OURS, layers=2, select_layer=-1).build(tmp_path)


@torch.no_grad()
def test_idefics_tower_out_of_a_whole_clip(tmp_path: Path) -> None:
    """IDEFICS began with the tower of a CLIP; its own last norm is not used."""
    from transformers import CLIPConfig, CLIPModel

    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "vocab_size": 20}  # fmt: skip
    vision = SHAPE | {"num_hidden_layers": 3, "hidden_act": "gelu"}
    theirs = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    theirs.save_pretrained(tmp_path)
    tower = IdeficsVitConfig(**OURS, layers=3).build(tmp_path)
    raw = pixels()
    expected = theirs.vision_model(tower.normalise(raw)).last_hidden_state
    torch.testing.assert_close(tower(raw).values_ND.reshape(2, 17, 32), expected, atol=1e-5, rtol=1e-5)
