"""LLaMA-Adapter V2's visual path against torch's own transformer layers."""

from __future__ import annotations

import torch
from torch import nn

from sensorium.core.batch import Features, Grid
from sensorium.input_projectors.query_vit import QueryVitConfig


@torch.no_grad()
def test_query_vit() -> None:
    config = QueryVitConfig(queries=3, width=16, layers=2, heads=4, mlp_width=24)
    ours = config.build(12, 20).eval()
    for parameter in ours.parameters():
        parameter.normal_(0, 0.3)
    items = torch.randn(2, 7, 12)
    x = torch.cat([ours.queries_QD.expand(2, -1, -1), ours.norm_in(ours.enter(items))], 1)
    for block in ours.blocks:
        theirs = nn.TransformerEncoderLayer(16, 4, 24, activation="gelu", batch_first=True, norm_first=True).eval()
        mine = block.state_dict()
        state = {"self_attn.in_proj_weight": torch.cat([mine[f"attention.{p}.weight"] for p in "qkv"]),
                 "self_attn.in_proj_bias": torch.cat([mine[f"attention.{p}.bias"] for p in "qkv"])}  # fmt: skip
        for old, new in (("attention.out", "self_attn.out_proj"), ("up", "linear1"), ("down", "linear2"),
                         ("norm_1", "norm1"), ("norm_2", "norm2")):  # fmt: skip
            state |= {f"{new}.{end}": mine[f"{old}.{end}"] for end in ("weight", "bias")}
        theirs.load_state_dict(state)
        x = theirs(x)
    expected = ours.norm_out(ours.out(x[:, :3]))
    got = ours(Features(items.flatten(0, 1), (Grid(1, 7),) * 2))
    assert got.lengths == [3, 3]
    torch.testing.assert_close(got.values_ND, expected.flatten(0, 1), atol=1e-5, rtol=1e-5)


def test_published_size() -> None:
    """clip_proj, clip_proj_norm, visual_query, visual_blocks, visual_proj and visual_proj_norm."""
    with torch.device("meta"):
        size = sum(p.numel() for p in QueryVitConfig().build(768, 4096).parameters())
    block = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    assert size == 768 * 768 + 3 * 768 + 10 * 768 + 8 * block + 768 * 4096 + 3 * 4096
