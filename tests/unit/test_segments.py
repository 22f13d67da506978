"""Packed rows sample by sample: the same states, losses and gradients as with a mask over whole rows."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from sensorium.backbones.causal_lm import CausalLM, CausalLMConfig
from sensorium.backbones.lean_layer import FAMILIES as LEAN
from sensorium.backbones.segments import FAMILIES, PLAIN, can_segment, run_segments
from sensorium.nn import answer_loss as answer_loss_module
from sensorium.nn.answer_loss import answer_loss
from sensorium.nn.segment_attention import layout_of

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MORE: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": None},
    "phi3": {"sliding_window": None},
    "smollm3": {"no_rope_layers": [1, 0]},
}
SEGMENTS = [[1, 1, 1, 2, 2, 2, 2, 3, 0, 0], [0, 0, 1, 1, 1, 1, 1, 1, 2, 2]]
BRANCHES = [[0, 1, 2, 0, 0, 1, 1, 0, 0, 0], [0] * 10]


def lm_of(family: str) -> CausalLM:
    torch.manual_seed(0)
    return CausalLMConfig(arch={"model_type": family} | SIZES | MORE.get(family, {}), tokenizer="bytes").build()


def positions_of(segments_BT: torch.Tensor) -> torch.Tensor:
    places = torch.zeros_like(segments_BT)
    for b, row in enumerate(segments_BT.tolist()):
        for t in range(1, len(row)):
            places[b, t] = places[b, t - 1] + 1 if row[t] == row[t - 1] else 0
    return places


@pytest.mark.parametrize("branched", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_samples_alone_equal_masked_rows(family: str, branched: bool) -> None:
    lm = lm_of(family)
    assert can_segment(lm.lm)
    segments_BT = torch.tensor(SEGMENTS)
    branches_BT = torch.tensor(BRANCHES) if branched else torch.zeros_like(segments_BT)
    positions_BT = positions_of(segments_BT)
    embeds_BTD = torch.randn(2, 10, 32, requires_grad=True)
    real = segments_BT > 0
    masked_BTD = lm(embeds_BTD, positions_BT=positions_BT, segments_BT=segments_BT, branches_BT=branches_BT)
    ours_BTD = run_segments(lm.lm, embeds_BTD, positions_BT, layout_of(segments_BT, branches_BT))
    assert torch.allclose(ours_BTD[real], masked_BTD[real], atol=1e-5)
    assert not ours_BTD[~real].any()
    wanted, found = (torch.autograd.grad(x[real].square().sum(), embeds_BTD)[0] for x in (masked_BTD, ours_BTD))
    assert torch.allclose(wanted, found, atol=1e-4)
    # Behind a packed row the model still answers as before.
    alone_BTD = embeds_BTD[:1, :3].detach()
    again = lm(alone_BTD, positions_BT=torch.arange(3)[None])
    fresh = lm_of(family)(alone_BTD, positions_BT=torch.arange(3)[None])
    assert torch.equal(again, fresh)


@pytest.mark.parametrize("family", FAMILIES)
def test_wanted_tokens_alone_have_the_states_and_gradients_of_all(family: str) -> None:
    lm = lm_of(family)
    segments_BT = torch.tensor(SEGMENTS)
    wanted_BT = (torch.arange(20).view(2, 10) % 3 == 1) & (segments_BT > 0)
    positions_BT = positions_of(segments_BT)
    embeds_BTD = torch.randn(2, 10, 32, requires_grad=True)
    given = [embeds_BTD, *lm.lm.base_model.layers.parameters()]
    found = []
    for wanted in (None, wanted_BT):
        hidden_BTD = run_segments(lm.lm, embeds_BTD, positions_BT, layout_of(segments_BT, None, wanted))
        kept = hidden_BTD[wanted_BT]
        found.append((kept.detach(), *torch.autograd.grad(kept.square().sum(), given)))
        if wanted is not None and family in PLAIN:
            assert not hidden_BTD[~wanted_BT].any()
    for whole, narrow in zip(*found, strict=True):
        assert torch.allclose(whole, narrow, atol=1e-4)
    # A copy is narrowed by its own weights.
    twin = copy.deepcopy(lm)
    torch.nn.init.zeros_(twin.lm.base_model.layers[-1].mlp.down_proj.weight)
    other_BTD = run_segments(twin.lm, embeds_BTD, positions_BT, layout_of(segments_BT, None, wanted_BT))
    assert not torch.allclose(other_BTD[wanted_BT], found[1][0], atol=1e-3)


@pytest.mark.parametrize("family", LEAN)
def test_who_listens_inside_a_layer_is_heard(family: str) -> None:
    segments_BT = torch.tensor(SEGMENTS)
    layout, positions_BT, embeds_BTD = layout_of(segments_BT), positions_of(segments_BT), torch.randn(2, 10, 32)
    lm, heard = lm_of(family), list[str]()
    lean_BTD = run_segments(lm.lm, embeds_BTD, positions_BT, layout)
    layers: list[Any] = lm.decoder_layers()
    for layer in layers:
        layer.self_attn.register_forward_hook(lambda *_: heard.append("attention"))
        layer.post_attention_layernorm.register_forward_hook(lambda *_: heard.append("norm"))
    assert torch.allclose(run_segments(lm.lm, embeds_BTD, positions_BT, layout), lean_BTD, atol=1e-5)
    assert heard == ["attention", "norm"] * 2


def test_layers_that_reach_otherwise_are_left_to_their_masks() -> None:
    windowed = {"sliding_window": 4, "use_sliding_window": True, "layer_types": ["sliding_attention"] * 2}
    for arch in ({"model_type": "mistral", "sliding_window": 4}, {"model_type": "qwen2", **windowed},
                 {"model_type": "gpt_neox"}):  # fmt: skip
        assert not can_segment(CausalLMConfig(arch=SIZES | arch, tokenizer="bytes").build().lm)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 3), st.booleans())
@settings(max_examples=40, deadline=None)
def test_layout_finds_every_sample(lengths: list[int], padding: int, left: bool) -> None:
    numbers = [n for n, length in enumerate(lengths, start=1) for _ in range(length)]
    row = [0] * padding + numbers if left else numbers + [0] * padding
    layout = layout_of(torch.tensor([row, row]))
    assert layout.lengths == tuple(lengths) * 2
    x = torch.arange(2 * len(row)).view(2, -1, 1).float() + 1
    real = torch.tensor([row, row])[..., None] > 0
    assert torch.equal(layout.rows(layout.flat(x)), torch.where(real, x, 0.0))


@given(st.integers(0, 40), st.booleans(), st.booleans(), st.floats(0.1, 3.0), st.sampled_from([1, 5, 23, 512]), st.sampled_from([0.0, 1e-5, 0.3]))
@settings(max_examples=120, deadline=None)
def test_answer_loss_equals_cross_entropy(count: int, weighted: bool, learns: bool, scale: float, block: int, z_loss: float) -> None:
    module = answer_loss_module
    kept = module.BUFFER_SCORES, module.CHUNK_TOKENS, module.BLOCK_WORDS
    module.BUFFER_SCORES, module.CHUNK_TOKENS, module.BLOCK_WORDS = 7 * 23, 11, block
    try:
        hidden_ND = torch.randn(count, 8, requires_grad=True)
        weight_VD = torch.randn(23, 8, requires_grad=learns)
        targets_N = torch.randint(0, 23, (count,))
        weights_N = torch.rand(count) if weighted else None
        total, losses_N, logs_N = answer_loss(hidden_ND, weight_VD, targets_N, weights_N, scale=scale, z_loss=z_loss)
        plain_N = F.cross_entropy(hidden_ND @ weight_VD.t() * scale, targets_N, reduction="none")
        normalisers_N = torch.logsumexp(hidden_ND @ weight_VD.t() * scale, dim=-1)
        each_N = plain_N + z_loss * normalisers_N.square()
        wanted = (each_N if weights_N is None else each_N * weights_N).sum()
    finally:
        module.BUFFER_SCORES, module.CHUNK_TOKENS, module.BLOCK_WORDS = kept
    assert torch.allclose(losses_N, plain_N, atol=1e-5)
    assert (logs_N is None) == (not z_loss)
    assert logs_N is None or torch.allclose(logs_N, normalisers_N, atol=1e-5)
    assert torch.allclose(total, wanted, atol=1e-4)
    inputs = [hidden_ND, weight_VD] if learns else [hidden_ND]
    for ours, theirs in zip(torch.autograd.grad(3 * total, inputs), torch.autograd.grad(3 * wanted, inputs), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_hopeless_targets_have_their_true_loss() -> None:
    hidden_ND = torch.tensor([[200.0], [1000.0]])
    weight_VD = torch.tensor([[1.0], [0.0], [-1.0]])
    losses_N = answer_loss(hidden_ND, weight_VD, torch.tensor([2, 1])).losses_N
    assert losses_N.tolist() == pytest.approx([400.0, 1000.0])


@pytest.mark.parametrize("block", [1, 7, 64])
def test_maxima_that_come_late_scale_down_what_came_before(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_loss_module, "BLOCK_WORDS", block)
    # Scores from -300 to 300 in either order: each block's powers alone would vanish, or overflow.
    for ends in ((-300.0, 300.0), (300.0, -300.0)):
        weight_VD = torch.linspace(*ends, 64)[:, None].requires_grad_()
        hidden_ND, targets_N = torch.ones(3, 1, requires_grad=True), torch.tensor([0, 31, 63])
        total, losses_N, _ = answer_loss(hidden_ND, weight_VD, targets_N)
        plain_N = F.cross_entropy(hidden_ND @ weight_VD.t(), targets_N, reduction="none")
        assert torch.allclose(losses_N, plain_N, rtol=1e-6, atol=1e-4)
        for ours, theirs in zip(torch.autograd.grad(total, (hidden_ND, weight_VD)),
                                torch.autograd.grad(plain_N.sum(), (hidden_ND, weight_VD)), strict=True):  # fmt: skip
            assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-4)


def test_scores_that_are_no_numbers_are_seen() -> None:
    hidden_ND = torch.tensor([[1.0, 0.0], [float("nan"), 0.0], [float("inf"), 1.0]])
    losses_N = answer_loss(hidden_ND, torch.randn(5, 2), torch.tensor([0, 1, 2])).losses_N
    assert torch.isfinite(losses_N).tolist() == [True, False, False]


def test_bf16_answer_loss_is_near() -> None:
    hidden_ND, weight_VD = torch.randn(9, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    targets_N = torch.randint(0, 50, (9,))
    wanted = F.cross_entropy(hidden_ND @ weight_VD.t(), targets_N, reduction="sum")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = answer_loss(hidden_ND, weight_VD, targets_N).total
    assert abs(float(total - wanted)) < 0.02 * float(wanted)
    for ours, theirs in zip(torch.autograd.grad(total, (hidden_ND, weight_VD)),
                            torch.autograd.grad(wanted, (hidden_ND, weight_VD)), strict=True):  # fmt: skip
        assert ours.dtype == torch.float32
        assert torch.allclose(ours, theirs, atol=0.1)
