"""EVA2 towers against what timm's `Eva` gave (golden/make_eva2.py)."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from torch import Tensor

from sensorium.encoders.eva2 import Eva2Config

GOLDEN = Path(__file__).parent / "golden" / "eva2.safetensors.gz"
SHAPE = {"width": 16, "layers": 2, "heads": 2, "mlp_width": 24, "patch_size_px": 4,
         "feature": "cls_patch"}  # fmt: skip
CONFIGS = {
    "e": Eva2Config(**SHAPE, image_size_px=12),
    "l": Eva2Config.large(20, **SHAPE, rotary_side=3),
}
NAMES = {
    "cls_token": "cls_D", "pos_embed": "positions_LD", "patch_embed.proj": "patches",
    "attn.q_proj": "attention.q", "attn.k_proj": "attention.k", "attn.v_proj": "attention.v",
    "attn.q_bias": "attention.q.bias", "attn.v_bias": "attention.v.bias", "attn.norm": "attention.norm",
    "attn.proj": "attention.out", "norm1": "norm_1", "norm2": "norm_2", "mlp.fc1_g": "mlp.gate",
    "mlp.fc1_x": "mlp.up", "mlp.fc1": "mlp.up", "mlp.fc2": "mlp.down",
}  # fmt: skip


def renamed(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    ours: dict[str, Tensor] = {}
    for key, value in theirs.items():
        if key.startswith(("norm.", "fc_norm.")):
            continue
        if key.endswith("attn.qkv.weight"):
            block = key.removesuffix("attn.qkv.weight")
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                ours[f"{block}attention.{part}.weight"] = rows
            ours[f"{block}attention.k.bias"] = torch.zeros(len(value) // 3)
            continue
        old = next((name for name in NAMES if name in key), "blocks")
        ours[key.replace(old, NAMES.get(old, old))] = value[0] if key == "pos_embed" else value
    ours["cls_D"] = ours["cls_D"].flatten()
    return {key: value.float() for key, value in ours.items()}


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_the_tower_is_timms(name: str) -> None:
    golden = load(gzip.decompress(GOLDEN.read_bytes()))
    prefix = f"{name}.weights."
    tower = CONFIGS[name].build().eval()
    weights = {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
    tower.tower.load_state_dict(renamed(weights))
    got = tower.features(golden[f"{name}.pixels"])
    expected = golden[f"{name}.tokens"]
    torch.testing.assert_close(got.values_ND, expected.flatten(0, 1), atol=1e-5, rtol=1e-5)
    patches = CONFIGS[name].model_copy(update={"feature": "patch"}).build().eval()
    patches.load_state_dict(tower.state_dict())
    assert torch.equal(patches.features(golden[f"{name}.pixels"]).values_ND,
                       got.values_ND.reshape(2, -1, 16)[:, 1:].flatten(0, 1))  # fmt: skip
