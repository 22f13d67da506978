"""The route of expert models from end to end: nano looks, a language model without eyes learns from its words
and answers by them."""

from __future__ import annotations

from pathlib import Path

import torch

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.responder import Blind
from sensorium.data.config import ScenesSource
from sensorium.data.told import ExpertSource
from sensorium.evaluation.benchmarks.scenes import Attribute
from sensorium.experts.base import Panel
from sensorium.experts.responder import Told
from sensorium.inference.engine import Engine
from sensorium.interop.assemble import build_pretrained
from sensorium.model.config import ModelConfig
from sensorium.model.learning import Learn
from sensorium.processing.processor import Processor
from sensorium.recipes.expert_captions import EXPERTS
from sensorium.training.config import Recipe, StageConfig
from sensorium.training.objectives.next_token import InstructConfig
from sensorium.training.trainer import Trainer, TrainerOptions


def test_the_recipes_experts_tell_a_model_that_learns_and_answers(tmp_path: Path, data_home: Path) -> None:
    panel = Panel.of(EXPERTS)
    told = ExpertSource(source=ScenesSource(count=4), experts=EXPERTS)
    stage = StageConfig(
        name="instruct", objective=InstructConfig(), data=(told,), learns=(Learn(part="backbone", lr=1e-3),),
        steps=2, batch_size=2, max_length=512, precision="fp32",
    )  # fmt: skip
    config = ModelConfig(backbone=CausalLMConfig.tiny(), template="chatml")
    recipe = Recipe(name="told", model=config, stages=(stage,))
    model, tokenizer = build_pretrained(config)
    before = model.backbone.embedding.weight.detach().clone()
    plans = Trainer(recipe, model, tokenizer, TrainerOptions(tmp_path / "run", tmp_path / "cache")).run()
    # No picture has reached the model: its only part is the LLM.
    assert [part for part, _, _ in plans[0].parts] == ["backbone"]
    assert not torch.equal(before, model.backbone.embedding.weight)
    items = Attribute(limit=2).items()
    for item in items:
        words = panel.told(item.request.messages, item.request.root)[-1].text
        # Nano was taught these shapes, so that its caption names the colour or the shape in question.
        assert words.startswith("[Picture 1]\nCaption: ")
        assert words.endswith(item.request.messages[-1].text)
    engine = Engine(model, Processor(config, tokenizer))
    requests = [item.request for item in items]
    seeing = [answer.text for answer in Told(engine, panel).respond(requests)]
    assert len(seeing) == len([*Blind(Told(engine, panel)).respond(requests)]) == 2
