"""ViT-22B's block, written out a second time head by head, and its positions on other pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sensorium.encoders.vit_22b import Vit22bConfig


def rms(x: Tensor, scale: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * scale


@torch.no_grad()
def test_a_block_adds_attention_and_feed_forward_of_the_same_tokens() -> None:
    tower: Any = Vit22bConfig.tiny().build().tower
    block: Any = tower.layers[0]
    for parameter in block.parameters():
        parameter.normal_(0, 0.5)
    x = torch.randn(5, 32)
    normed = rms(x, block.norm.weight)
    q, k, v = (normed @ w.T for w in block.qkv.weight.chunk(3))
    heads: list[Tensor] = []
    for h in range(4):
        one = slice(8 * h, 8 * h + 8)
        scores = rms(q[:, one], block.norm_q.weight) @ rms(k[:, one], block.norm_k.weight).T / 8**0.5
        heads.append(scores.softmax(-1) @ v[:, one])
    attended = torch.cat(heads, dim=1) @ block.out.weight.T + block.out.bias
    inner = torch.nn.functional.gelu(normed @ block.up.weight.T + block.up.bias)
    expected = x + attended + inner @ block.down.weight.T + block.down.bias
    torch.testing.assert_close(block(x[None])[0], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_positions_stretch_and_weights_stay() -> None:
    small = Vit22bConfig.tiny().at_size(24)
    tower = small.build().eval()
    large = small.at_size(48).build().eval()
    large.load_state_dict(tower.state_dict())
    pixels = torch.randint(0, 256, (1, 3, 48, 48), dtype=torch.uint8)
    assert large(pixels).values_ND.shape == (36, 32)
