"""What samples have in common at their beginning is worked out once: who owns what, and that losses and gradients are those of samples of their own.

Shape legend: B rows, T tokens, N real tokens, K states that are worked out, C numbers of a state, D width.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_batches import model_and_batches
from torch import Tensor

from sensorium.backbones import causal_lm, shared_beginnings
from sensorium.backbones.causal_lm import CausalLM, CausalLMConfig
from sensorium.backbones.segments import FAMILIES
from sensorium.backbones.shared_beginnings import owners, share_beginnings
from sensorium.core.batch import Batch
from sensorium.nn.segment_attention import Layout, layout_of
from sensorium.nn.shared_rows import Shared
from sensorium.training.objectives.next_token import next_token_losses

SIZES: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
                         "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "pad_token_id": 0}  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=8), min_size=1, max_size=6))
def test_a_token_is_the_first_ones_that_stands_behind_the_same(samples: list[list[tuple[int, bool]]]) -> None:
    flat = [token for sample in samples for token in sample]
    found = owners([i for i, _ in flat], [own for _, own in flat], tuple(map(len, samples))).tolist()
    begun: dict[tuple[int, ...], int] = {}
    place = 0
    for sample in samples:
        ids: list[int] = []
        alone = False
        for token, own in sample:
            alone = alone or own
            ids.append(token)
            assert found[place] == (place if alone else begun.setdefault(tuple(ids), place))
            place += 1


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=40))
def test_spreading_and_picking_are_gathers(wishes: list[int]) -> None:
    owner: list[int] = []
    for place, wish in enumerate(wishes):
        owner.append(owner[wish] if wish < place else place)
    owner_N = torch.tensor(owner)
    shared = Shared.of(owner_N)
    assert torch.equal(shared.kept_K[shared.of_N], owner_N)
    x_1KC = torch.randn(1, len(shared.kept_K), 2, 3, dtype=torch.float64, requires_grad=True)
    x_1NC = torch.randn(1, len(owner), 2, 3, dtype=torch.float64, requires_grad=True)
    for ours, plain, x in ((shared.spread(x_1KC), x_1KC[:, shared.of_N], x_1KC), (shared.pick(x_1NC), x_1NC[:, shared.kept_K], x_1NC)):
        upstream = torch.randn_like(plain)
        assert torch.equal(ours, plain)
        assert torch.allclose(torch.autograd.grad(ours, x, upstream)[0], torch.autograd.grad(plain, x, upstream)[0])


def prompted(count: int, beginning: int) -> Batch:
    """Two rows of samples that begin alike, go on with words of their own, and learn their last ones."""
    draw = torch.Generator().manual_seed(3)
    rows: list[list[int]] = []
    segments: list[list[int]] = []
    learns: list[list[bool]] = []
    for _ in range(2):
        row, numbers, learn = list[int](), list[int](), list[bool]()
        for number in range(1, count + 1):
            rest = torch.randint(20, 60, (int(torch.randint(2, 9, (), generator=draw)),), generator=draw).tolist()
            row += [*range(1, beginning + 1), *rest]
            numbers += [number] * (beginning + len(rest))
            learn += [False] * (beginning + 1) + [True] * (len(rest) - 1)
        rows.append(row)
        segments.append(numbers)
        learns.append(learn)
    width = max(map(len, rows)) + 2
    ids_BT, segments_BT, learn_BT = (torch.tensor([[*row, *[0] * (width - len(row))] for row in one]) for one in (rows, segments, learns))
    starts = torch.cat([torch.ones(2, 1, dtype=torch.bool), segments_BT[:, 1:] != segments_BT[:, :-1]], dim=1)
    at_BT = torch.arange(width).expand(2, -1)
    positions_BT = at_BT - at_BT.masked_fill(~starts, 0).cummax(dim=1).values
    return Batch(ids_BT, learn_BT.bool(), segments_BT, positions_BT, torch.zeros_like(ids_BT), {}, {}, torch.zeros_like(ids_BT), packed=True)


def states(lm: CausalLM, batch: Batch, answers_only: bool) -> tuple[Tensor, dict[str, Tensor]]:
    batch.answers_only = answers_only
    lm.zero_grad(set_to_none=True)
    hidden_BTD = lm.teacher_forced(lm.embed(batch.input_ids_BT), batch)
    asked_BT = batch.in_front_of_learned() if answers_only else batch.segments_BT > 0
    asked = hidden_BTD[asked_BT]
    (asked * torch.linspace(-1, 1, asked.numel()).view_as(asked)).sum().backward()
    return asked.detach(), {name: p.grad.clone() for name, p in lm.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("answers_only", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_gradients_are_those_of_samples_of_their_own(family: str, answers_only: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    lm = CausalLMConfig(arch={"model_type": family} | SIZES | ({"sliding_window": None} if family == "mistral" else {}), tokenizer="bytes").build()
    batch, seen = prompted(4, 9), list[Layout]()

    def watched(*given: Any) -> Layout:
        seen.append(share_beginnings(*given))
        return seen[-1]

    with monkeypatch.context() as patch:
        patch.setattr(causal_lm, "share_beginnings", watched)
        shared = states(lm, batch, answers_only)
        with torch.no_grad():
            lm.teacher_forced(lm.embed(batch.input_ids_BT), batch)
    assert seen[0].shared is not None
    # Seven of eight times nine tokens, at least: what follows may begin alike, too.
    assert len(seen[0].shared.of_N) - len(seen[0].shared.kept_K) >= 7 * 9
    assert seen[1].shared is None
    monkeypatch.setattr(causal_lm, "share_beginnings", lambda lm, layout, embeds, batch: layout)
    alone = states(lm, batch, answers_only)
    assert torch.allclose(shared[0], alone[0], atol=1e-5)
    assert shared[1].keys() == alone[1].keys()
    for name, wanted in alone[1].items():
        assert torch.allclose(shared[1][name], wanted, atol=1e-4 * float(wanted.abs().max()) + 1e-7), name


def test_a_models_losses_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Media in between, and a projector that learns."""
    model, batches = model_and_batches(2, "stages.instruct.pack=true", "stages.instruct.batch_size=2", "model.template=vicuna")
    seen: list[Layout] = []
    found: list[tuple[float, dict[str, Tensor]]] = []

    def watched(*given: Any) -> Layout:
        seen.append(share_beginnings(*given))
        return seen[-1]

    for share in (watched, lambda lm, layout, embeds, batch: layout):
        monkeypatch.setattr(causal_lm, "share_beginnings", share)
        model.zero_grad(set_to_none=True)
        totals = [next_token_losses(model, batch).total for batch in batches]
        torch.stack(totals).sum().backward()
        found.append((float(sum(totals)), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}))
    assert any(layout.shared is not None for layout in seen)
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for name, wanted in found[1][1].items():
        assert torch.allclose(found[0][1][name], wanted, atol=1e-4 * float(wanted.abs().max()) + 1e-7), name


@pytest.mark.parametrize("why", ["embeddings of their own", "places of their own", "dropout", "a hook", "separate turns", "nothing in common"])
def test_what_is_not_the_same_is_not_shared(why: str) -> None:
    torch.manual_seed(0)
    lm = CausalLMConfig(arch={"model_type": "llama"} | SIZES, tokenizer="bytes").build()
    batch = prompted(4, 0 if why == "nothing in common" else 9)
    embeds_BTD = lm.embed(batch.input_ids_BT)
    if why == "embeddings of their own":
        embeds_BTD = embeds_BTD + torch.randn_like(embeds_BTD)
    if why == "places of their own":
        batch.positions_BT = torch.arange(batch.input_ids_BT.shape[1]).expand(2, -1)
    if why == "dropout":
        lm.lm.model.layers[1].mlp.down_proj = torch.nn.Sequential(torch.nn.Dropout(0.1), lm.lm.model.layers[1].mlp.down_proj)
    if why == "a hook":
        lm.lm.model.layers[1].mlp.register_forward_hook(lambda *_: None)
    if why == "separate turns":
        batch.branches_BT[:, 3] = 1
    layout = layout_of(batch.segments_BT, batch.branches_BT)
    assert share_beginnings(lm.lm.train(), layout, embeds_BTD, batch).shared is None
    if why == "dropout":
        assert share_beginnings(lm.lm.eval(), layout, embeds_BTD, batch).shared is not None


def test_few_tokens_are_not_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = CausalLMConfig(arch={"model_type": "llama"} | SIZES, tokenizer="bytes").build()
    batch = prompted(4, 9)
    layout = layout_of(batch.segments_BT)
    assert share_beginnings(lm.lm, layout, lm.embed(batch.input_ids_BT), batch).shared is not None
    monkeypatch.setattr(shared_beginnings, "WORTH", 1)
    assert share_beginnings(lm.lm, layout, lm.embed(batch.input_ids_BT), batch).shared is None
