"""A model with a diffusion pipeline for a hand: its signal tokens learn what the pipeline's text encoder says of captions, by
distance or through the frozen UNet, and an answer that holds them holds a picture."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.api import Model
from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.hands import Making
from sensorium.core.sample import parse_sample
from sensorium.encoders import ENCODERS
from sensorium.generators import GENERATORS
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.interop.assemble import build_pretrained
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.nn.diffusion_loss import diffusion_loss
from sensorium.output_projectors import OUTPUT_PROJECTORS
from sensorium.processing.collate import collate
from sensorium.training.objectives.generate import GenerateConfig

pytestmark = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
SIGNALS = ("[IMG0]", "[IMG1]")


@pytest.fixture(scope="module")
def model() -> Model:
    backbone = CausalLMConfig.tiny()
    backbone = backbone.model_copy(update={"arch": backbone.arch | {"vocab_size": 265}, "added_tokens": SIGNALS})
    hand = HandConfig(signals=SIGNALS, projector=OUTPUT_PROJECTORS.find("mapper").tiny(), generator=GENERATORS.find("stable_diffusion").tiny())
    lane = LaneConfig(encoder=ENCODERS.find("clip").tiny(), projector=INPUT_PROJECTORS.find("mlp").tiny())
    torch.manual_seed(0)
    return Model(*build_pretrained(ModelConfig(lanes={"image": lane}, backbone=backbone, hands={"image": hand}, template="plain")))


def example(model: Model) -> Any:
    picture = {"type": "image", "image": Image.new("RGB", (64, 64), (9, 99, 9))}
    return model.processor.encode(parse_sample({"messages": [
        {"role": "user", "content": "Draw a lawn."},
        {"role": "assistant", "content": [{"type": "text", "text": "a lawn "}, picture]},
    ]}))  # fmt: skip


def test_captions_teach_and_answers_draw(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, module = example(model), model.network
    batch = collate([[whole]], model.tokenizer.pad_id)
    objective = GenerateConfig().build(module, model.processor, [])
    learning = [weight for weight in module.parameters() if weight.requires_grad]
    optimiser = torch.optim.Adam(learning, lr=3e-3)
    distances: list[float] = []
    for _ in range(8):
        losses = objective(module, batch)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        distances.append(losses.parts["condition.image"])
    assert distances[-1] < 0.8 * distances[0]

    # Through the frozen UNet: the same states, a picture for the target.
    (wanted,) = batch.wanted
    drawing: Any = module.generators["image"]
    condition_BLC = module.condition("image", module(batch).hidden_BTD, batch.input_ids_BT, [(wanted.row, wanted.start)])
    clean = drawing.latents(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), seed=0)
    optimiser.zero_grad()
    diffusion_loss(drawing.predict, condition_BLC, clean, torch.randn_like(clean), torch.tensor([500]), drawing.alphas_T).sum().backward()
    assert any(weight.grad is not None and bool(weight.grad.abs().sum() > 0) for weight in learning)

    module.eval()
    asked = [{"role": "user", "content": "Draw a lawn."}]
    said = whole.input_ids[len(model.processor.prompt(parse_sample({"messages": asked}).messages)) : wanted.start + 2]
    monkeypatch.setattr(model.engine, "generate", lambda *_, **__: [said])
    making = Making(steps=2, guidance=1.0, seed=4)
    answer = model.answer(asked, making=making)
    assert [part.type for part in answer.content] == ["text", "image"]
    with torch.no_grad():
        condition_BLC = module.condition("image", module(batch).hidden_BTD, batch.input_ids_BT, [(wanted.row, wanted.start)])
    direct = drawing.generate(condition_BLC, making=making)[0].array
    assert np.abs(np.asarray(answer.content[1].value).astype(int) - direct).max() <= 1
