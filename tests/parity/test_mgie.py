"""MGIE beside a second writing of mgie_llava.py: its mapper by its names, its loss, and an edit as its demo makes it with diffusers' pipeline.

Shape legend: B rows, K signal tokens, D LLM width, L condition tokens, C condition width, H/W pixels.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.api import Model
from sensorium.core.batch import Batch
from sensorium.core.errors import DataError
from sensorium.core.hands import Making
from sensorium.core.sample import parse_sample
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.output_projectors import PROJECTOR_KEYS
from sensorium.processing.collate import collate
from sensorium.processing.square import square_pixels
from sensorium.recipes import TINY_FORMS
from sensorium.training.objectives.diffuse import DiffuseConfig
from sensorium.training.objectives.next_token import next_token_losses

pytestmark = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
SEED = 7
"""With it, of six rows four are below 0.6, of which two are above 0.3: some are steered and others not, some look and others do not."""


class EditMapper(nn.Module):
    """mgie_llava.py's, of other sizes."""

    def __init__(self, d_model: int, length: int, width: int) -> None:
        super().__init__()
        self.llm2hid = nn.Linear(d_model, 16)
        self.query = nn.Parameter(torch.randn(1, length, 16))
        self.mapper = nn.Transformer(16, 2, 1, 1, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.hid2feat = nn.Linear(16, width)

    def forward(self, states_BKD: Tensor, embeddings_BKD: Tensor) -> Tensor:
        inside = self.llm2hid(states_BKD + embeddings_BKD)
        return self.hid2feat(self.mapper(inside, self.query.expand(len(inside), -1, -1)))


@pytest.fixture(scope="module")
def pair() -> tuple[Model, EditMapper]:
    torch.manual_seed(0)
    model = Model(*build_pretrained(TINY_FORMS.find("mgie")().model))
    shape = model.network.config.hands["image"].generator.condition
    second = EditMapper(model.network.config.backbone.d_model, shape.length, shape.width).eval()
    theirs = {f"edit_head.{name}": value for name, value in second.state_dict().items()}
    hand = model.network.hands["image"]
    hand.load_state_dict(PROJECTOR_KEYS["mgie"].to_ours(theirs))
    return model, second


def row(seed: int) -> dict[str, Any]:
    before, after = np.random.default_rng(seed).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    asked = [{"type": "text", "text": "what will this image be like if 'it snows'\n"}, {"type": "image", "image": Image.fromarray(before)}]
    said = [{"type": "text", "text": "White roofs. "}, {"type": "image", "image": Image.fromarray(after)}]
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}


def second_conditions(pair: tuple[Model, EditMapper], batch: Batch) -> tuple[Tensor, Tensor]:
    """What MGIE steers by, (B, L, C), and what it leads away from, (1, L, C)."""
    network, second = pair[0].network, pair[1]
    ids = torch.tensor(pair[0].processor.signals["image"])
    embeddings_1KD = network.backbone.embedding.weight[ids][None]
    states = [hidden_TD[ids_T.tolist().index(int(ids[0])) - 1 :][:8]
              for hidden_TD, ids_T in zip(network(batch).hidden_BTD, batch.input_ids_BT, strict=True)]  # fmt: skip
    steered_BLC = second(torch.stack(states), embeddings_1KD.expand(len(states), -1, -1))
    return steered_BLC, second(torch.zeros_like(embeddings_1KD), embeddings_1KD)


def test_no_tensor_is_lost_there_and_back(pair: tuple[Model, EditMapper], record: Callable[..., None]) -> None:
    theirs = {f"edit_head.{name}": value for name, value in pair[1].state_dict().items()}
    back = PROJECTOR_KEYS["mgie"].to_theirs(pair[0].network.hands["image"].state_dict())
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], value) for name, value in theirs.items())
    record("mgie", "weights")


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_the_loss_is_the_originals(share: float, pair: tuple[Model, EditMapper], record: Callable[..., None]) -> None:
    model, _ = pair
    network, processor = model.network, model.processor
    batch = collate([[processor.encode(parse_sample(row(seed)))] for seed in range(6)], processor.tokenizer.pad_id)
    objective = DiffuseConfig(weight=0.5, gamma=None, unsteered=share, unseen=share / 2).build(network, processor, ())
    pipe: Any = network.generators["image"].pipe  # pyright: ignore[reportAttributeAccessIssue]
    schedule: Any = importlib.import_module("diffusers").DDPMScheduler.from_config(pipe.scheduler.config)
    with torch.no_grad():
        torch.manual_seed(SEED)
        losses = objective(network, batch)
        torch.manual_seed(SEED)
        chance = torch.rand(6)
        before, after = (torch.stack([square_pixels(one, 64) for one in pictures]) / 127.5 - 1 for pictures in
                         ([one.picture for one in batch.wanted], [one.medium for one in batch.wanted]))  # fmt: skip
        drawn = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        clean = pipe.vae.encode(after).latent_dist.sample(drawn) * pipe.vae.config.scaling_factor
        looked = pipe.vae.encode(before).latent_dist.mode()
        noise = torch.randn(clean.shape)
        steps = torch.randint(1000, (6,))
        steered, null = second_conditions(pair, batch)
        steered = torch.where((chance < share)[:, None, None], null, steered)
        looked = looked * (1 - ((chance >= share / 2) & (chance < share)).float())[:, None, None, None]
        said = pipe.unet(torch.cat([schedule.add_noise(clean, noise, steps), looked], dim=1), steps, steered).sample
        words = next_token_losses(network, batch).parts["next_token"]
    record("mgie", "loss", ours=losses.total / losses.count, theirs=words + 0.5 * F.mse_loss(said, noise))


def test_an_edit_is_what_the_demo_makes(pair: tuple[Model, EditMapper], monkeypatch: pytest.MonkeyPatch, record: Callable[..., None]) -> None:
    model, _ = pair
    asked = row(9)["messages"][:1]
    ids = model.processor.signals["image"]
    monkeypatch.setattr(model.engine, "generate", lambda *_, **__: [[*model.tokenizer.encode("Snow. "), *ids]])
    answer = model.answer(asked, making=Making(steps=2, guidance=4.0, picture_guidance=1.7, seed=5))
    assert [part.type for part in answer.content] == ["text", "image"]
    example = model.processor.encode(parse_sample({"messages": [*asked, {"role": "assistant", "content": [
        {"type": "text", "text": "Snow. "}, {"type": "image", "image": Image.new("RGB", (8, 8))}]}]}))  # fmt: skip
    batch = collate([[example]], model.tokenizer.pad_id)
    with torch.no_grad():
        steered, null = second_conditions(pair, batch)
        own = model.network.condition("image", model.network(batch).hidden_BTD, batch.input_ids_BT, [(one.row, one.start) for one in batch.wanted])
    pipe: Any = model.network.generators["image"].pipe  # pyright: ignore[reportAttributeAccessIssue]
    made = pipe(image=asked[0]["content"][1]["image"], prompt_embeds=steered, negative_prompt_embeds=null, num_inference_steps=2,
                guidance_scale=4.0, image_guidance_scale=1.7, generator=torch.Generator().manual_seed(5), output_type="np").images[0]  # fmt: skip
    # Conditions agree to the last digits of a sum.
    assert np.abs(np.asarray(answer.content[1].value).astype(int) - (made * 255).round()).max() <= 1
    assert made.std() > 0
    record("mgie", "made", ours=own, theirs=steered)


def test_an_edit_of_nothing_is_named(pair: tuple[Model, EditMapper], monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = pair
    monkeypatch.setattr(model.engine, "generate", lambda *_, **__: [list(model.processor.signals["image"])])
    answer = model.answer([{"role": "user", "content": "Draw."}], making=Making(steps=1))
    (part,) = answer.content
    assert part.type == "missing"
    assert "edited picture" in part.value["error"]
    DiffuseConfig().build(model.network, model.processor, ())
    with pytest.raises(DataError, match="without one in front of it"):
        model.processor.encode(parse_sample({"messages": [
            {"role": "user", "content": "Draw."},
            {"role": "assistant", "content": [{"type": "image", "image": Image.new("RGB", (8, 8))}]}]}))  # fmt: skip
