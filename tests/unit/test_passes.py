"""A step in several passes, and activations computed again: the same numbers, chosen by memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_batches import model_and_batches, tiny

from sensorium.backbones.causal_lm import CausalLM
from sensorium.core.batch import Batch
from sensorium.interop.assemble import build_pretrained
from sensorium.model.multimodal import MultimodalModel
from sensorium.model.recompute import can_recompute, recomputing
from sensorium.processing.split import split_rows
from sensorium.training import preflight
from sensorium.training.fitting import Need, choose_fit
from sensorium.training.log import read_log
from sensorium.training.memory import Memory
from sensorium.training.objectives.next_token import next_token_losses
from sensorium.training.run import train_recipe
from sensorium.training.trainer import TrainerOptions


def gradients(model: MultimodalModel, parts: list[Batch]) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    for part in parts:
        next_token_losses(model, part).total.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("pack", ["true", "false"])
def test_rows_apart_have_the_gradients_of_all(rows: int, pack: str) -> None:
    model, [batch] = model_and_batches(1, f"stages.instruct.pack={pack}", "stages.instruct.batch_size=4")
    parts = list(split_rows(batch, rows))
    assert len(parts) == -(-len(batch.input_ids_BT) // rows) > 1
    assert [name for part in parts for name in part.ids] == list(batch.ids)
    whole, apart = gradients(model, [batch]), gradients(model, parts)
    assert whole.keys() == apart.keys()
    for name, gradient in whole.items():
        assert torch.allclose(gradient, apart[name], atol=1e-5), name


def test_layers_that_run_again_have_the_same_gradients() -> None:
    model, [batch] = model_and_batches(1)
    assert can_recompute(model)
    assert isinstance(model.backbone, CausalLM)
    runs: list[int] = []
    hook = model.backbone.decoder_layers()[0].mlp.register_forward_pre_hook(lambda *_: runs.append(1))  # pyright: ignore
    kept = gradients(model, [batch])
    assert len(runs) == 1
    with recomputing(model, True):
        again = gradients(model, [batch])
    hook.remove()
    assert len(runs) == 3
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    assert not any(layer.training for layer in model.backbone.decoder_layers())


def test_stored_features_go_with_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs with some, none and all features found in the store, in one pass and in several."""
    recipe = tiny("stages.instruct.batch_size=4", "stages.instruct.cache_features=true", "stages.instruct.pack=false")

    def run(name: str) -> list[float]:
        options = TrainerOptions(folder=tmp_path / name, cache=tmp_path / f"cache-{name}")
        train_recipe(recipe, lambda: build_pretrained(recipe.model), lambda *_: None, options)
        return [line["loss"] for line in read_log(tmp_path / name / "log.jsonl")]

    plain = run("plain")
    monkeypatch.setattr(preflight, "state_bytes", lambda *a, **k: 0)
    monkeypatch.setattr(preflight, "activation_bytes", lambda *_: 4000 << 20)
    monkeypatch.setattr(preflight, "memory_of", lambda device: Memory(3000 << 20, 3000 << 20))
    assert run("divided") == pytest.approx(plain, abs=1e-4)


@given(st.integers(1, 64), st.integers(1, 10**6), st.integers(1, 48), st.booleans(), st.booleans())
def test_the_cheapest_way_that_fits_is_chosen(
    rows: int, memory: int, layers: int, can_split: bool, recompute: bool
) -> None:
    need = Need(fixed=20_000, activations=400_000, layers=layers, inputs=4_000)
    fit = choose_fit(need, rows, memory, asked="auto", can_split=can_split, can_recompute=recompute)
    assert 1 <= fit.rows <= rows
    assert fit.passes == -(-rows // fit.rows)
    fits = fit.needed <= 0.85 * memory
    if fit.passes > 1 and fits:
        # One pass less would not have fitted.
        fewer = -(-rows // (fit.passes - 1))
        assert need.of(fewer / rows, recompute=fit.recompute) > 0.85 * memory
    if fit.recompute and fits:
        leanest = 1 if can_split else rows
        assert need.of(leanest / rows, recompute=False) > 0.85 * memory
    if not fits:
        assert fit.recompute == recompute
        assert fit.rows == (1 if can_split else rows)


def test_a_run_divided_for_memory_learns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny("stages.instruct.batch_size=4")

    def run(name: str) -> list[float]:
        options = TrainerOptions(folder=tmp_path / name, cache=tmp_path / "cache")
        plans = train_recipe(recipe, lambda: build_pretrained(recipe.model), lambda *_: None, options)
        assert (plans[-1].fit.passes > 1) == (name == "divided")
        return [line["loss"] for line in read_log(tmp_path / name / "log.jsonl")]

    plain = run("plain")
    monkeypatch.setattr(preflight, "state_bytes", lambda *a, **k: 0)
    monkeypatch.setattr(preflight, "activation_bytes", lambda *_: 4000 << 20)
    monkeypatch.setattr(preflight, "memory_of", lambda device: Memory(3000 << 20, 3000 << 20))
    divided = run("divided")
    assert divided == pytest.approx(plain, abs=1e-4)
