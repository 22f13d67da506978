"""`compile: true` of a stage: the same gradients and names, one program for all lengths, or a refusal that says what is missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from tiny_batches import model_and_batches, tiny
from torch import Tensor
from torch._dynamo.utils import counters

from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.model.compiled import compilable, compiling
from sensorium.model.half_frozen import frozen_layers, half_frozen
from sensorium.model.multimodal import MultimodalModel
from sensorium.model.recompute import recomputing
from sensorium.training.checkpoint import load_checkpoint
from sensorium.training.log import read_log
from sensorium.training.objectives.next_token import next_token_losses
from sensorium.training.options import TrainerOptions
from sensorium.training.run import plan_recipe, train_recipe

needs_compiler = pytest.mark.skipif(shutil.which(os.environ.get("CXX") or "g++") is None, reason="no C++ compiler")


def gradients(model: MultimodalModel, batch: Batch) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    next_token_losses(model, batch).total.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@needs_compiler
def test_gradients_names_and_programs() -> None:
    model, batches = model_and_batches(4, "stages.instruct.pack=true", "stages.instruct.batch_size=2")
    plain, names = [gradients(model, batch) for batch in batches], list(model.state_dict())
    assert len({int((batch.segments_BT > 0).sum()) for batch in batches}) > 1, "lengths must differ"
    programs: list[int] = []
    counters.clear()
    for recompute in (False, True):
        with compiling(model, True), recomputing(model, recompute):
            assert list(model.state_dict()) == names
            for batch, wanted in zip(batches, plain, strict=True):
                found = gradients(model, batch)
                assert found.keys() == wanted.keys()
                # Some gradients are rounding alone: a bias of keys moves no attention.
                faint = 1e-7 * max(float(value.abs().max()) for value in wanted.values())
                for name, value in wanted.items():
                    limit = 1e-5 * float(value.abs().max()) + faint
                    torch.testing.assert_close(found[name], value, rtol=0, atol=limit, msg=lambda m, name=name: f"{name}: {m}")
                programs.append(counters["stats"]["unique_graphs"])
    # Norms and feed-forward parts, and both once more in training mode: no other length makes another program.
    assert 0 < programs[0] == programs[3]
    assert programs[4] == programs[7]
    assert all(module._compiled_call_impl is None for module in compilable(model))


@needs_compiler
def test_programs_see_weights_in_half_precision() -> None:
    """In either order: a program made for fp32 would read bytes of bf16 as numbers, and past their end, and one made for bf16 the other way round."""
    model, (batch,) = model_and_batches(1, "stages.instruct.pack=true")
    model.requires_grad_(False)
    model.projectors["image"].requires_grad_(True)
    bf16 = lambda: torch.autocast("cpu", dtype=torch.bfloat16)  # noqa: E731
    with bf16():
        eager = gradients(model, batch)
    with compiling(model, True):
        found: list[dict[str, Tensor]] = []
        for halves in ([], frozen_layers(model, ()), []):
            with bf16(), half_frozen(halves):
                found.append(gradients(model, batch))
    for name, wanted in eager.items():
        for each in found:
            assert float((each[name] - wanted).norm() / wanted.norm()) < 0.05, name
        assert torch.equal(found[0][name], found[2][name])


@needs_compiler
def test_a_stage_runs_compiled(tmp_path: Path) -> None:
    losses: list[float] = []
    for compile in ("false", "true"):
        made = tiny(f"stages.instruct.compile={compile}", "stages.align.steps=1", "stages.instruct.steps=2")
        folder = tmp_path / compile
        plans = train_recipe(made, lambda made=made: build_pretrained(made.model), save_model,
                             TrainerOptions(folder=folder, cache=tmp_path / "cache"))  # fmt: skip
        assert bool(plans[-1].compiled) == bool(plans[-1].to_json()["compiled"]) == (compile == "true")
        assert plans[-1].compiling == plans[-1].to_json()["compiling"]
        assert plans[-1].compiling.startswith("compile is off: the stage" if compile == "false" else f"{plans[-1].compiled} parts of")
        losses.append(read_log(folder / "log.jsonl")[-1]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    saved = [load_checkpoint(tmp_path / compile / "checkpoint") for compile in ("false", "true")]
    assert saved[0] is not None
    assert saved[1] is not None
    assert saved[0].weights.keys() == saved[1].weights.keys()


def test_without_a_compiler_it_is_refused_before_step_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    made = tiny("stages.instruct.compile=true")
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler.*no-such-compiler.*apt-get install"):
        plan_recipe(made, lambda: build_pretrained(made.model), TrainerOptions(folder=tmp_path, cache=tmp_path))


def test_what_is_reached_into_from_outside_is_refused() -> None:
    model, _ = build_pretrained(tiny().model)
    model.config = model.config.model_copy(update={"fusion": model.config.fusion.model_copy(update={"kind": "gated"})})
    with pytest.raises(ConfigError, match="nothing in this model's LLM to compile"):
        compilable(model)
