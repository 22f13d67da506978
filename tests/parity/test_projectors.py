"""Input projectors against modules that we did not write."""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers import Kosmos2Config, LlamaConfig
from transformers.models.kosmos2.modeling_kosmos2 import Kosmos2ImageToTextProjection
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.models.qwen2_vl.modeling_qwen2_vl import PatchMerger

from sensorium.core.batch import Features, Grid
from sensorium.input_projectors.abstractor import AbstractorConfig
from sensorium.input_projectors.glu import GluConfig
from sensorium.input_projectors.group_concat import GroupConcatConfig
from sensorium.input_projectors.latent_query import LatentQueryConfig
from sensorium.input_projectors.patch_merger import PatchMergerConfig
from sensorium.input_projectors.position_aware import PositionAwareConfig, sincos_positions

GRID = Grid(4, 6)


def features(width: int, items: int = 2) -> tuple[torch.Tensor, Features]:
    torch.manual_seed(0)
    values_MLD = torch.randn(items, GRID.tokens, width)
    return values_MLD, Features(values_MLD.flatten(0, 1), (GRID,) * items)


def copy(theirs: nn.Module, ours: nn.Module, names: dict[str, str]) -> None:
    """Give our module the other's weights, by prefixes of names."""
    state = {
        next(key.replace(old, new, 1) for old, new in names.items() if key.startswith(old)): value
        for key, value in theirs.state_dict().items()
    }
    ours.load_state_dict(state)


@torch.no_grad()
def test_patch_merger() -> None:
    values_MLD, packed = features(16)
    theirs, ours = PatchMerger(24, 16), PatchMergerConfig().build(16, 24)
    copy(theirs, ours, {"ln_q.": "norm.", "mlp.": "layers."})
    # Qwen2-VL's processor orders patches so that each 2 x 2 stand one after the other.
    blocks = values_MLD.view(2, 2, 2, 3, 2, 16).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16)
    torch.testing.assert_close(ours(packed).values_ND, theirs(blocks), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_latent_query() -> None:
    values_MLD, packed = features(16)
    text = {"embed_dim": 32, "attention_heads": 4, "layers": 1, "ffn_dim": 16, "vocab_size": 8}
    vision = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16}
    theirs = Kosmos2ImageToTextProjection(
        Kosmos2Config(text_config=text, vision_config=vision, latent_query_num=5)
    ).eval()
    ours = LatentQueryConfig(latents=5, heads=4).build(16, 32)
    copy(theirs, ours, {
        "dense.": "dense.", "latent_query": "latents_QD", "x_attn.q_proj.": "attention.q.",
        "x_attn.k_proj.": "attention.k.", "x_attn.v_proj.": "attention.v.",
        "x_attn.out_proj.": "attention.out.",
    })  # fmt: skip
    expected_MQD = theirs(values_MLD)[0]
    torch.testing.assert_close(ours(packed).values_ND, expected_MQD.flatten(0, 1), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_glu() -> None:
    values_MLD, packed = features(16)
    ours = GluConfig(mlp_width=48, ends=True).build(16, 24)
    assert ours.ends_2D is not None
    ours.ends_2D.normal_()
    mlp = LlamaMLP(LlamaConfig(hidden_size=24, intermediate_size=48, hidden_act="silu", num_attention_heads=4))
    mlp.gate_proj.weight.copy_(ours.gate.weight)
    mlp.up_proj.weight.copy_(ours.up.weight)
    mlp.down_proj.weight.copy_(ours.down.weight)
    before = nn.Sequential(nn.Linear(16, 24, bias=False), nn.LayerNorm(24), nn.GELU())
    before[0].weight.copy_(ours.proj.weight)
    out_MLD = ours(packed).values_ND.view(2, GRID.tokens + 2, 24)
    torch.testing.assert_close(out_MLD[:, 1:-1], mlp(before(values_MLD)), atol=1e-6, rtol=1e-5)
    assert torch.equal(out_MLD[:, 0], ours.ends_2D[:1].expand(2, -1))
    assert torch.equal(out_MLD[:, -1], ours.ends_2D[1:].expand(2, -1))


@torch.no_grad()
def test_position_aware() -> None:
    values_MLD, packed = features(16)
    ours = PositionAwareConfig(side=3, heads=4).build(16, 32)
    theirs = nn.MultiheadAttention(32, 4, batch_first=True)
    mine = ours.attention
    theirs.in_proj_weight.copy_(torch.cat([mine.q.weight, mine.k.weight, mine.v.weight]))
    theirs.in_proj_bias.copy_(torch.cat([mine.q.bias, mine.k.bias, mine.v.bias]))
    theirs.out_proj.weight.copy_(mine.out.weight)
    theirs.out_proj.bias.copy_(mine.out.bias)
    table_SSD = sincos_positions(3, ours.queries_QD)
    spread_DHW = nn.functional.interpolate(
        table_SSD.permute(2, 0, 1)[None], (GRID.h, GRID.w), mode="bicubic", align_corners=False
    )[0]
    values_MLD = ours.norm_kv(values_MLD @ ours.kv_proj.weight.T)
    keys_MLD = values_MLD + spread_DHW.flatten(1).T
    queries_MQD = (ours.norm_q(ours.queries_QD) + table_SSD.flatten(0, 1)).expand(2, -1, -1)
    mixed_MQD = theirs(queries_MQD, keys_MLD, values_MLD)[0]
    expected_MQD = ours.norm_out(mixed_MQD) @ ours.out.weight.T
    torch.testing.assert_close(ours(packed).values_ND, expected_MQD.flatten(0, 1), atol=1e-5, rtol=1e-4)


def test_positions_are_sines_and_cosines_of_column_and_row() -> None:
    table_SSD = sincos_positions(3, torch.zeros(1, 8))
    for row in range(3):
        for column in range(3):
            expected = [wave(place / 10_000 ** (i / 2)) for place in (column, row)
                        for wave in (math.sin, math.cos) for i in range(2)]  # fmt: skip
            torch.testing.assert_close(table_SSD[row, column], torch.tensor(expected))


@torch.no_grad()
def test_group_concat() -> None:
    values_MLD, packed = features(16)
    ours = GroupConcatConfig(group=3).build(16, 24)
    together = torch.stack([torch.cat(list(row.split(1)[i : i + 3]), dim=1)[0]
                            for row in values_MLD for i in range(0, GRID.tokens, 3)])  # fmt: skip
    torch.testing.assert_close(ours(packed).values_ND, ours.out(together))


# What the abstractor of github.com/X-PLUG/mPLUG-Owl (commit 0f3068f) makes of the same weights: every
# fifth value of three queries of two pictures.
OWL = (
    (-3.635719, -4.156182, 2.150058, -5.639788), (0.907216, 0.744513, 1.713236, -0.010209),
    (0.853586, -0.917698, 2.401792, 0.72932), (-4.217452, -4.825126, 2.012492, -5.509959),
    (0.054465, 0.273571, 1.131433, -0.618055), (0.847296, -0.898596, 2.575154, 0.901246),
)  # fmt: skip


def wave(shape: tuple[int, ...], phase: float) -> torch.Tensor:
    """Numbers that any program can write down again."""
    steps = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(0.7 * steps + phase).reshape(shape).float()


@torch.no_grad()
def test_abstractor_repeats_the_original() -> None:
    ours = AbstractorConfig(queries=3, layers=2, heads=4, mlp_width=24).build(16, 16)
    layers = [name for name, _ in ours.named_parameters() if name.startswith("layers.")]
    for name, parameter in ours.named_parameters():
        if name in layers:
            value = wave(tuple(parameter.shape), sorted(layers).index(name))
            is_scale = ".norm" in name and name.endswith("weight")
            parameter.copy_(1 + 0.1 * value if is_scale else 0.3 * value)
    ours.queries_QD.copy_(wave((3, 16), 100.0))
    ours.out.weight.copy_(torch.eye(16))
    ours.out.bias.zero_()
    pictures = Features(wave((10, 16), 200.0), (Grid(1, 5),) * 2)
    out_MQD = ours(pictures).values_ND.view(2, 4, 16)
    got = out_MQD[:, :3, ::5].flatten(0, 1)
    torch.testing.assert_close(got, torch.tensor(OWL), atol=2e-5, rtol=1e-5)
    assert torch.equal(out_MQD[:, 3], ours.end_D.expand(2, -1))
