"""C-Abstractor and C-Former against modules that we did not write."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5Stack

from sensorium.core.batch import Features, Grid
from sensorium.core.errors import ConfigError
from sensorium.input_projectors.c_abstractor import CAbstractorConfig
from sensorium.input_projectors.cformer import CFormerConfig

GOLDEN = Path(__file__).parent / "golden"
# Ours, and what timm and Honeybee call it.
ABSTRACTOR = (
    (r"^before\.", "net.0."), (r"^behind\.", "net.2."), (r"\.norm\.", ".bn."), (r"\.squeeze\.", ".se.fc1."),
    (r"\.excite\.", ".se.fc2."), (r"\.shortcut\.", ".downsample."),
)  # fmt: skip
FORMER = (
    (r"^layers\.", "block."), (r"\.self_attention\.", ".layer.0.SelfAttention."), (r"^norm\.", "final_layer_norm."),
    (r"\.cross_attention\.", ".layer.1.EncDecAttention."), (r"\.out\.", ".o."),
    (r"\.norm_self\.", ".layer.0.layer_norm."), (r"\.norm_cross\.", ".layer.1.layer_norm."),
    (r"\.norm_ff\.", ".layer.2.layer_norm."), (r"\.up\.", ".layer.2.DenseReluDense.wi."),
    (r"\.down\.", ".layer.2.DenseReluDense.wo."),
    (r"^near\.", "block.0.layer.0.SelfAttention.relative_attention_bias."),
)  # fmt: skip


def noise_of_golden() -> Any:
    spec = importlib.util.spec_from_file_location("golden_noise", GOLDEN / "make_qwen_vl.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name


@torch.no_grad()
def test_c_abstractor_repeats_timm() -> None:
    """Features of 12, two blocks of width 16 before and behind a pool from 6x6 to 4x4, 24 out."""
    golden = json.loads((GOLDEN / "c_abstractor.json").read_text(encoding="utf-8"))
    make = noise_of_golden()
    theirs = make.weights(golden["shapes"])
    ours = CAbstractorConfig(tokens=16, width=16, depth=2, position_side=6).build(12, 24).eval()
    state = {"positions_PC": make.noise((36, 12), 500)}
    for name in ours.state_dict():
        if name not in state:
            # timm counts its blocks from 1.
            there = re.sub(r"(net\.[02]\.)(\d+)", lambda m: f"{m[1]}b{int(m[2]) + 1}", renamed(name, ABSTRACTOR))
            state[name] = theirs.pop(there)
    assert not theirs, "tensors of theirs without a place"
    ours.load_state_dict(state)
    items_MLC = make.noise((2, 36, 12), 501)
    got = ours(Features(items_MLC.flatten(0, 1), (Grid(6, 6),) * 2)).values_ND
    torch.testing.assert_close(got[:, ::5], torch.tensor(golden["out"]), atol=1e-5, rtol=1e-5)


def test_c_abstractor_wants_a_square_and_a_map() -> None:
    with pytest.raises(ConfigError, match="10 tokens"):
        CAbstractorConfig(tokens=10).out_grid(Grid(4, 4))
    with pytest.raises(ConfigError, match="outside the grid"):
        CAbstractorConfig().out_grid(Grid(4, 4, prefix=1))


@torch.no_grad()
@pytest.mark.parametrize("furthest", [6, 128])
def test_cformer_is_a_t5_decoder(furthest: int) -> None:
    """T5's own stack, with cross-attention from another width as Emu has it."""
    config = CFormerConfig(queries=12, width=32, layers=3, heads=4, head_dim=8, mlp_width=48, buckets=8,
                           furthest=furthest)  # fmt: skip
    ours = config.build(20, 24).eval()
    arch = T5Config(
        d_model=32, d_kv=8, d_ff=48, num_layers=3, num_decoder_layers=3, num_heads=4, vocab_size=8,
        relative_attention_num_buckets=8, relative_attention_max_distance=furthest, is_decoder=True,
        is_encoder_decoder=False, use_cache=False, feed_forward_proj="relu",
    )  # fmt: skip
    theirs: Any = T5Stack(arch).eval()
    for block in theirs.block:
        for name in ("k", "v"):
            setattr(block.layer[1].EncDecAttention, name, nn.Linear(20, 32, bias=False))
    own = theirs.state_dict()
    for name, parameter in ours.named_parameters():
        if parameter.ndim == 1:
            parameter.uniform_(0.5, 1.5)
        elif not name.startswith(("queries", "out.")):
            parameter.normal_(0, 0.5)
        if not name.startswith(("queries", "out.")):
            own[renamed(name, FORMER)].copy_(parameter)
    items_MLD = torch.randn(2, 5, 20)
    hidden = theirs(inputs_embeds=ours.queries_QD.expand(2, -1, -1), encoder_hidden_states=items_MLD)
    expected = ours.out(hidden.last_hidden_state).flatten(0, 1)
    got = ours(Features(items_MLD.flatten(0, 1), (Grid(1, 5),) * 2)).values_ND
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_cformer_tokens_know_only_those_before() -> None:
    ours = CFormerConfig.tiny().build(8, 8).eval()
    items = Features(torch.randn(5, 8), (Grid(1, 5),))
    before = ours(items).values_ND
    ours.queries_QD[2] += 1
    after = ours(items).values_ND
    assert torch.equal(before[:2], after[:2])
    assert not torch.allclose(before[2:], after[2:])
