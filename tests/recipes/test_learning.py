"""Does the tiny form of every published recipe train what it says, and nothing else?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sensorium.core.patterns import Pattern
from sensorium.generators.diffusion import DiffusionConfig
from sensorium.interop.assemble import build_pretrained
from sensorium.model.adapter import inject_adapter
from sensorium.model.arch_keys import check_arch
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.pretrained import read_file
from sensorium.processing.processor import Processor
from sensorium.recipes import TINY_FORMS
from sensorium.text.tokenizer import Tokenizer
from sensorium.training.config import Recipe, StageConfig
from sensorium.training.log import read_log
from sensorium.training.objectives.owned import own_module
from sensorium.training.preflight import check_stages, prepare_stage
from sensorium.training.trainer import Trainer, TrainerOptions


def first_loss(recipe: Recipe, model: MultimodalModel, tokenizer: Tokenizer) -> float:
    """Of the first batch of a recipe's only stage."""
    plans, _ = check_stages(recipe, model, Processor(recipe.model, tokenizer))
    return plans[0].loss


def snapshot(model: MultimodalModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def named(model: MultimodalModel, stage: StageConfig) -> set[str]:
    """The parameters that a stage's `learns` names, found by their names alone."""
    places = [".".join(filter(None, (x.part, x.module))) + "." for x in stage.learns if x.part != "objective"]
    chosen = {f"^{x.part}.": [Pattern(text) for text in x.layers] for x in stage.learns if x.layers}
    adapter = model.config.adapter
    marks = {"lora": ".lora_", "adaption_prompt": ".adaption_prompt."}
    mark = marks[adapter.kind] if adapter else ""
    places = [mark if place == "adapter." else f"^{place}" for place in places]
    # A part may be one parameter: `newlines.image`.
    # Matrices of an adapter lie inside the LLM and are none of its own.
    found = {n: [_tuned(n) if place == "^tuning." else place in f"^{n}." and not (place == "^backbone." and mark and mark in n)
                 for place in places] for n, _ in model.named_parameters()}  # fmt: skip
    found = {n: [hit and (place not in chosen or any(one.fits(n) for one in chosen[place])) for hit, place in zip(hits, places, strict=True)]
             for n, hits in found.items()}  # fmt: skip
    assert all(any(column) for column in zip(*found.values(), strict=True)), stage.learns
    return {name for name, hits in found.items() if any(hits)}


def _tuned(name: str) -> bool:
    """A bias or a norm of the LLM."""
    return name.startswith("backbone.") and ("norm" in name or name.endswith(".bias"))


TOWER = "encoders.image.tower."
# What learns and reaches no answer, in the originals too.
WITHOUT_EFFECT: dict[str, tuple[str, ...]] = {
    # The condition of a sound is one vector, which attends to itself wholly whatever its query and key are.
    **dict.fromkeys(("next-gpt", "next-gpt-1.5"), tuple(f"hands.audio.mapping.decoder.0.self_attention.{one}." for one in "qk")),
    # Behind the last layer only the queries are read: what it does with words is lost.
    # The first stage is without the LLM and without the map into it.
    "blip2-opt/represent": ("projectors.image.out.",),
    "blip2-t5/represent": ("projectors.image.out.",),
    "instructblip": ("projectors.image.layers.1.text.",),
    "instructblip-t5": ("projectors.image.layers.1.text.",),
    # Features come from in front of the tower's last layer, or of its final norm.
    # Of a picture only keys and values of the last layer are read.
    "cogvlm": tuple(f"fusion.layers.1.{end}" for end in ("self_attn.q_proj", "self_attn.o_proj", "mlp")),
    "cogagent": tuple(f"fusion.layers.1.{end}" for end in ("self_attn.q_proj", "self_attn.o_proj", "mlp")),
    "llava-next": (f"{TOWER}encoder.layers.2.", f"{TOWER}post_layernorm."),
    "llava-onevision": (f"{TOWER}post_layernorm.",),
}
# Of what an objective owns: SAM's other masks, and how good it takes them to be.
OWNED_WITHOUT_EFFECT: dict[str, tuple[str, ...]] = {
    "lisa-tiny": ("iou_prediction_head.", *(f"output_hypernetworks_mlps.{i}." for i in (1, 2, 3))),
}


@pytest.mark.parametrize("name", TINY_FORMS)
def test_each_stage_trains_what_it_says(name: str, tmp_path: Path, data_home: Path) -> None:
    recipe: Recipe = TINY_FORMS.find(name)()
    check_arch(recipe.model.backbone)
    if any(isinstance(hand.generator, DiffusionConfig) for hand in recipe.model.hands.values()):
        pytest.importorskip("diffusers", reason="diffusers is not installed (extra `gen`)")
    torch.manual_seed(recipe.seed)
    model, tokenizer = build_pretrained(recipe.model)
    inject_adapter(model)
    for stage in recipe.stages:
        # One stage at a time over the same model, so that it can be looked at in between.
        owns = any(learn.part == "objective" for learn in stage.learns)
        # Masks and negatives drawn at random make its losses uneven: more steps tell.
        stage = stage.model_copy(update={"steps": 16 if recipe.model.hands else 40}) if owns else stage
        # In half precision, where a processor is fast in it, the smallest gradients are none.
        stage = stage.model_copy(update={"precision": "fp32", "keep_precision": False})
        alone = recipe.model_copy(update={"stages": (stage,)})
        loss, before, owned = first_loss(alone, model, tokenizer), snapshot(model), owned_before(alone, model, tokenizer)
        options = TrainerOptions(folder=tmp_path / stage.name, cache=tmp_path / "cache")
        Trainer(alone, model, tokenizer, options).run()
        owned_learn(alone, owned, tmp_path / stage.name)
        learning = named(model, stage)
        # Tied matrices have two names; a frozen one must not be the other name of a learning one.
        pointers = {p.data_ptr() for n, p in model.named_parameters() if n in learning}
        for key, value in model.state_dict().items():
            idle = WITHOUT_EFFECT.get(name, ()) + WITHOUT_EFFECT.get(f"{name}/{stage.name}", ())
            if key.startswith(idle):
                continue
            same = torch.equal(before[key], value)
            if value.data_ptr() in pointers:
                assert not same, f"{stage.name}: {key} learns and has not moved"
            else:
                assert same, f"{stage.name}: {key} is frozen and has moved"
        if owns:
            # What the objective owns begins anew with every stage: the run's own record tells.
            losses = [line["loss"] for line in read_log(tmp_path / stage.name / "log.jsonl")]
            assert sum(losses[-8:]) < sum(losses[:8]) - 0.04, stage.name
            continue
        after = first_loss(alone, model, tokenizer)
        assert after < loss - 0.005, stage.name


def owned_before(recipe: Recipe, model: MultimodalModel, tokenizer: Tokenizer) -> dict[str, Tensor]:
    """What the objective of a recipe's only stage owns, as it is in the beginning."""
    (stage,) = recipe.stages
    module = own_module(prepare_stage(stage, model, Processor(recipe.model, tokenizer)).objective)
    return {} if module is None else {name: value.detach().clone() for name, value in module.named_parameters()}


def owned_learn(recipe: Recipe, before: dict[str, Tensor], folder: Path) -> None:
    """What the objective of a recipe's only stage owns has moved where it learns, and only there."""
    (stage,) = recipe.stages
    if not before:
        return
    taught = read_file(folder / "checkpoint" / "weights.safetensors")
    places = tuple(f"{x.module}." if x.module else "" for x in stage.learns if x.part == "objective")
    # A slower copy of the model follows it without learning.
    places += ("slow.",)
    for key, first in before.items():
        moved = not torch.equal(first, taught[f"objective.{key}"])
        if key.startswith(OWNED_WITHOUT_EFFECT.get(recipe.name, ())):
            continue
        assert moved == key.startswith(places), f"{stage.name}: objective.{key}"
