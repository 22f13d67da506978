"""Dropout of what the LLM's layers add: what is dropped, where it acts, and that a run resumes to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_batches import model_and_batches, tiny
from torch import nn

from sensorium.core.errors import ConfigError
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.model.dropping import check_dropping, dropping
from sensorium.model.learning import Learn
from sensorium.model.recompute import recomputing
from sensorium.nn.pretrained import read_file
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.training.log import read_log
from sensorium.training.objectives.next_token import next_token_losses
from sensorium.training.options import TrainerOptions
from sensorium.training.run import train_recipe

PACKED = ("stages.instruct.pack=true", "stages.instruct.batch_size=2")


def added(model: Any, batch: Any) -> dict[str, torch.Tensor]:
    """What each attention and feed-forward part added to the stream, as the layers saw it."""
    seen: dict[str, torch.Tensor] = {}

    def listen(name: str) -> Any:
        def keep(module: nn.Module, _: Any, output: Any) -> None:
            seen[name] = (output[0] if isinstance(output, tuple) else output).detach().flatten(0, 1)

        return keep

    parts = [(f"{i}.{name}", getattr(layer, name)) for i, layer in enumerate(model.backbone.decoder_layers()) for name in ("self_attn", "mlp")]
    handles = [part.register_forward_hook(listen(name)) for name, part in parts]
    try:
        model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return seen


@pytest.mark.parametrize("overrides", [(), PACKED], ids=["rows", "packed"])
def test_a_share_of_what_layers_add_is_dropped_while_they_learn(overrides: tuple[str, ...]) -> None:
    model, batches = model_and_batches(1, *overrides)
    batch = replace(batches[0], answers_only=bool(overrides))
    plain = added(model, batch)
    with dropping(model, 0.25):
        still = added(model, batch)
        model.backbone.train()
        torch.manual_seed(1)
        found = added(model, batch)
    assert all(torch.equal(plain[name], still[name]) for name in plain)
    for name, values in found.items():
        gone = float((values == 0).float().mean())
        # The last feed-forward part of packed rows works on learned tokens alone.
        assert gone == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / values.numel()) ** 0.5), name
    first, whole = found["0.self_attn"], plain["0.self_attn"]
    kept = first != 0
    torch.testing.assert_close(first[kept], whole[kept] / 0.75, rtol=1e-4, atol=1e-6)
    after = added(model, batch)
    assert all(torch.equal(plain[name], after[name]) for name in plain)


def test_layers_that_run_again_drop_the_same() -> None:
    model, batches = model_and_batches(1)
    model.backbone.train()
    grads: list[torch.Tensor] = []
    for again in (False, True):
        with dropping(model, 0.3), recomputing(model, again):
            torch.manual_seed(2)
            grads.append(torch.autograd.grad(next_token_losses(model, batches[0]).total, model.backbone.embedding.weight)[0])
    torch.testing.assert_close(grads[0], grads[1])


def train(folder: Path, *overrides: str, resume: bool = False) -> list[float]:
    recipe = tiny("stages.align.steps=1", "stages.instruct.steps=4", "stages.instruct.checkpoint_every=2", *PACKED, *overrides)
    options = TrainerOptions(folder=folder, cache=folder.parent / "cache", resume=resume)
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)
    return [line["loss"] for line in read_log(folder / "log.jsonl")]


def test_a_run_resumes_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped = ("stages.instruct.dropout=0.2",)
    whole, plain = train(tmp_path / "whole", *dropped), train(tmp_path / "plain")
    # The stage in front is the same, and the first step of what drops is another one.
    assert whole[0] == plain[0]
    assert whole[1] != plain[1]
    from sensorium.training import stage_run

    done, step = 0, stage_run.step_with

    def failing(*args: Any, **kwargs: Any) -> float:
        nonlocal done
        done += 1
        if done == 5:
            raise KeyboardInterrupt
        return step(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(stage_run, "step_with", failing)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut", *dropped)
    assert train(tmp_path / "cut", *dropped, resume=True) == whole
    ours, theirs = (read_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_dropout_that_would_not_act_is_refused() -> None:
    model, _ = model_and_batches(1)
    check_dropping(model, (Learn(part="backbone", lr=1.0),))
    check_dropping(model, (Learn(part="backbone", last_blocks=1, lr=1.0),))
    with pytest.raises(ConfigError, match="no layer of the LLM learns"):
        check_dropping(model, (Learn(part="projectors.image", lr=1.0),))
    other, _ = build_pretrained(TINY_FORMS.find("kosmos-2")().model)
    with pytest.raises(ConfigError, match="no self_attn and mlp"):
        check_dropping(other, (Learn(part="backbone", lr=1.0),))


def test_kosmos_2_has_its_own() -> None:
    """The paper's share, in training alone: of the config that the recipe gives."""
    assert RECIPES.find("kosmos-2")().model.backbone.arch["dropout"] == 0.1  # pyright: ignore[reportAttributeAccessIssue]
    recipe = TINY_FORMS.find("kosmos-2")()
    torch.manual_seed(0)
    model, _ = build_pretrained(recipe.model)
    backbone: Any = model.backbone
    embeds_BTD = torch.randn(1, 6, backbone.config.d_model)
    states = lambda: backbone(embeds_BTD, positions_BT=torch.arange(6)[None])  # noqa: E731
    assert torch.equal(backbone.eval() and states(), states())
    assert not torch.equal(backbone.train() and states(), states())
