"""Pictures that add to the LLM's adaption prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from sensorium.api import Model
from sensorium.backbones.adaption_prompt import AdaptionPrompt
from sensorium.core.errors import ConfigError
from sensorium.core.sample import parse_sample
from sensorium.encoders.vit import VitConfig
from sensorium.fusion.visual_prompt import VisualPromptConfig
from sensorium.input_projectors.qformer import QFormerConfig
from sensorium.interop.assemble import build_pretrained
from sensorium.media.anyres import AnyResolution
from sensorium.model.config import AdaptionPromptConfig, LaneConfig, ModelConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.recipes.tiny import tiny_model

LENGTH = 4


def config(features: int) -> ModelConfig:
    """One feature of the whole picture, or one for each vector of a prompt."""
    projector = QFormerConfig.tiny().model_copy(update={"queries": features})
    lane = LaneConfig(encoder=VitConfig.tiny(), projector=projector)
    return tiny_model().model_copy(update={
        "lanes": {"image": lane}, "fusion": VisualPromptConfig(),
        "adapter": AdaptionPromptConfig(layers=2, length=LENGTH)})  # fmt: skip


def make(features: int, gate: float = 0.8) -> Model:
    network, tokenizer = build_pretrained(config(features))
    with torch.no_grad():
        for module in network.backbone.lm.modules():
            if isinstance(module, AdaptionPrompt):
                module.gate.fill_(gate)
    return Model(network, tokenizer)


def picture(grey: int) -> dict[str, Any]:
    return {"type": "image", "image": Image.new("RGB", (30, 30), (grey, 40, 90))}


@pytest.mark.parametrize("features", [1, LENGTH])
@torch.no_grad()
def test_a_picture_adds_to_every_prompt_for_every_token(features: int) -> None:
    """The same as a text model whose prompts hold the sum (LLaMA-Adapter, section 3.3)."""
    model = make(features)
    content = [{"type": "text", "text": "look: "}, picture(200), {"type": "text", "text": " so?"}]
    example = model.processor.encode(parse_sample({"messages": [{"role": "user", "content": content}]}))
    batch = collate([[example]], 0)
    got = model.network(batch).hidden_BTD
    added_KD = model.network.features(batch.media)["image"].values_ND
    assert len(added_KD) == features
    ids_BT = batch.input_ids_BT
    blind = model.network.backbone(model.network.backbone.embed(ids_BT), positions_BT=batch.positions_BT)
    for module in model.network.backbone.lm.modules():
        if isinstance(module, AdaptionPrompt):
            module.vectors.add_(added_KD)
    expected = model.network.backbone(model.network.backbone.embed(ids_BT), positions_BT=batch.positions_BT)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(got[0, 0], blind[0, 0], atol=1e-3), "the first token sees no picture"


@torch.no_grad()
def test_a_later_picture_takes_over_from_its_place_on() -> None:
    model = make(1)
    content = [{"type": "text", "text": "one "}, picture(10), {"type": "text", "text": " two "}, picture(250)]
    example = model.processor.encode(parse_sample({"messages": [{"role": "user", "content": content}]}))
    assert example.slots == {"image": []}
    assert sorted(set(example.media_index)) == [1, 2]
    later = example.media_index.index(2)
    batch = collate([[example]], 0)
    changed = model.network(batch).hidden_BTD
    batch.media["image"].pixels_NCHW[1] = 0
    other = model.network(batch).hidden_BTD
    assert torch.equal(changed[0, :later], other[0, :later])
    assert not torch.allclose(changed[0, later:], other[0, later:], atol=1e-3)


def test_shut_gates_leave_the_language_model_alone_and_learn_first() -> None:
    model = make(LENGTH, gate=0.0).network
    processor = Model(model, build_pretrained(config(LENGTH))[1]).processor
    example = processor.encode(parse_sample({"messages": [{"role": "user", "content": [picture(3)]}]}))
    hidden_BTD = model(collate([[example]], 0)).hidden_BTD
    with torch.no_grad():
        plain = build_pretrained(tiny_model())[0].backbone
        plain.load_state_dict(model.backbone.state_dict(), strict=False)
        ids = torch.tensor([example.input_ids])
        assert torch.equal(hidden_BTD, plain.lm.base_model(input_ids=ids).last_hidden_state)
    (hidden_BTD**3).sum().backward()
    prompts = [m for m in model.modules() if isinstance(m, AdaptionPrompt)]
    assert all(p.gate.grad is not None and p.gate.grad.abs().sum() > 0 for p in prompts)
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in model.projectors.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter": None}, "without adaption prompts"),
        ({"adapter": AdaptionPromptConfig(layers=2, length=5)}, "4 features of image for prompts of 5"),
        ({"lanes": {"image": config(4).lanes["image"].model_copy(
            update={"resolution": AnyResolution.tiny()})}}, "resolution anyres with fusion visual_prompt"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MultimodalModel(config(4).model_copy(update=changes))
