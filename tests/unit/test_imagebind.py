"""ImageBind's eye beside its own shape written a second time, and from its own file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.weights import FileSource
from sensorium.encoders.imagebind import ImageBindConfig
from sensorium.interop.locate import locate

WIDTH, HEADS, LAYERS, JOINT, PATCH, SIDE = 32, 4, 3, 24, 8, 4


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(WIDTH, HEADS, bias=True)
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(WIDTH, 48), "fc2": nn.Linear(48, WIDTH)})

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm_2(x))))


class Original(nn.Module):
    """`modality_preprocessors`, `modality_trunks` and `modality_heads` of vision, and something beside it."""

    def __init__(self) -> None:
        super().__init__()
        vision: Any = nn.Module()
        vision.cls_token = nn.Parameter(torch.randn(1, 1, WIDTH))
        vision.rgbt_stem, vision.pos_embedding_helper = nn.Module(), nn.Module()
        vision.rgbt_stem.proj = nn.Sequential(nn.Identity(), nn.Conv3d(3, WIDTH, (2, PATCH, PATCH), stride=(2, PATCH, PATCH), bias=False))
        vision.pos_embedding_helper.pos_embed = nn.Parameter(torch.randn(1, 1 + SIDE**2, WIDTH))
        trunk: Any = nn.Module()
        trunk.pre_transformer_layer = nn.Sequential(nn.LayerNorm(WIDTH, eps=1e-6), nn.Identity())
        trunk.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        head = nn.Sequential(nn.LayerNorm(WIDTH, eps=1e-6), nn.Identity(), nn.Linear(WIDTH, JOINT, bias=False))
        self.modality_preprocessors = nn.ModuleDict({"vision": vision})
        self.modality_trunks = nn.ModuleDict({"vision": trunk})
        self.modality_heads = nn.ModuleDict({"vision": head, "audio": nn.Linear(3, 3)})

    def forward(self, pictures: Tensor) -> Tensor:
        seen: Any = self.modality_preprocessors["vision"]
        video = pictures.unsqueeze(2).repeat(1, 1, 2, 1, 1)
        tokens = seen.rgbt_stem.proj(video).flatten(2).transpose(1, 2)
        tokens = torch.cat([seen.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + seen.pos_embedding_helper.pos_embed
        trunk: Any = self.modality_trunks["vision"]
        tokens = trunk.blocks(trunk.pre_transformer_layer(tokens).transpose(0, 1)).transpose(0, 1)
        head: Any = self.modality_heads["vision"]
        return F.normalize(head[2](head[0](tokens)[:, 0]), dim=-1)


def test_its_file_is_read_and_computes_what_it_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    original = Original().eval()
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    torch.save(original.state_dict(), tmp_path / "imagebind_huge.pth")
    config = ImageBindConfig.tiny()
    assert (config.width, config.layers, config.heads, config.joint, config.patch_size_px) == (WIDTH, LAYERS, HEADS, JOINT, PATCH)
    ours = config.build(locate((FileSource(path=str(tmp_path / "imagebind_huge.pth"), format="imagebind"),))).eval()
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = original(ours.normalise(pixels))
        torch.testing.assert_close(ours(pixels).values_ND, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)
