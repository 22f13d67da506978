"""MiniGPT-5's loss beside that of its first stage (model.py, train_eval.py), written a second time over diffusers' parts.

Shape legend: B rows, K signal tokens, D LLM width, L condition tokens, C condition width.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from any_to_any_originals import MiniGpt5
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sensorium.api import Model
from sensorium.core.sample import parse_sample
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.output_projectors import PROJECTOR_KEYS
from sensorium.processing.collate import collate
from sensorium.processing.square import square_pixels
from sensorium.recipes import TINY_FORMS
from sensorium.recipes.minigpt5 import ALIGN
from sensorium.recipes.minigpt5_parts import IMG

pytestmark = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
SEED = 4
"""With it, of six rows four are below a half."""
CAPTIONS = ("a red ball", "hills", "a boat at sea", "two dogs", "rain", "an old house by the road")


def row(seed: int) -> Any:
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    said = [{"type": "text", "text": f"{CAPTIONS[seed]} "}, {"type": "image", "image": picture}]
    return parse_sample({"messages": [{"role": "user", "content": "Draw."}, {"role": "assistant", "content": said}]})


@pytest.fixture(scope="module")
def pair() -> tuple[Model, MiniGpt5]:
    torch.manual_seed(0)
    model = Model(*build_pretrained(TINY_FORMS.find("minigpt-5")().model))
    hand = model.network.config.hands["image"]
    shape = hand.generator.condition
    told: Any = hand.projector
    second = MiniGpt5(model.network.config.backbone.d_model, shape.length, shape.width, told.layers, nhead=told.heads,
                      dim_feedforward=told.mlp_factor * shape.width)  # fmt: skip
    model.network.hands["image"].load_state_dict(PROJECTOR_KEYS["minigpt5"].to_ours(second.state_dict()))
    return model, second


@torch.no_grad()
def test_what_is_led_away_from_is_what_zeros_become(pair: tuple[Model, MiniGpt5], record: Callable[..., None]) -> None:
    model, second = pair
    zeros_1KD = torch.zeros(1, len(IMG), model.network.config.backbone.d_model)
    ours = model.network.negative("image", model.processor.signals["image"])
    assert ours is not None
    record("minigpt-5", "made", ours=ours, theirs=second(zeros_1KD))


@pytest.mark.parametrize("share", [0.0, 0.5])
@torch.no_grad()
def test_the_loss_is_the_originals(share: float, pair: tuple[Model, MiniGpt5], record: Callable[..., None]) -> None:
    """A hundredth of the words', that of the noise with min-SNR 5, a tenth of the distance to the caption's own condition; of some rows, zeros
    steer, and the caption is empty."""
    model, second = pair
    network, processor = model.network, model.processor
    rows = [[processor.encode(row(seed))] for seed in range(6)]
    batch = collate(rows, processor.tokenizer.pad_id)
    objective = ALIGN.model_copy(update={"unsteered": share, "size_px": None}).build(network, processor, ())
    pipe: Any = network.generators["image"].pipe  # pyright: ignore[reportAttributeAccessIssue]
    schedule: Any = importlib.import_module("diffusers").DDPMScheduler.from_config(pipe.scheduler.config)
    torch.manual_seed(SEED)
    losses = objective(network, batch)

    torch.manual_seed(SEED)
    gone_B = torch.rand(6) < share
    assert bool(gone_B.any()) == bool(share)
    assert not gone_B.all()
    drawn = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
    pixels = torch.stack([square_pixels(one.medium, 64) for one in batch.wanted]) / 127.5 - 1
    clean = pipe.vae.encode(pixels).latent_dist.sample(drawn) * pipe.vae.config.scaling_factor
    noise, steps_B = torch.randn(clean.shape), torch.randint(1000, (6,))
    words, states_BKD = read(model, [example for [example] in rows])
    condition_BLC = second(states_BKD * ~gone_B[:, None, None])
    said = pipe.unet(schedule.add_noise(clean, noise, steps_B), steps_B, condition_BLC).sample
    alphas_B = schedule.alphas_cumprod[steps_B]
    ratio_B = alphas_B / (1 - alphas_B)
    picture = ((said - noise).square().mean(dim=(1, 2, 3)) * ratio_B.clamp(max=5.0) / ratio_B).mean()
    captions = ["" if gone else caption for gone, caption in zip(gone_B.tolist(), CAPTIONS, strict=True)]
    caption = F.mse_loss(condition_BLC, pipe.encode_prompt(captions, "cpu", 1, False)[0])
    record("minigpt-5", "loss", ours=losses.total / losses.count, theirs=0.01 * words + picture + 0.1 * caption)


def read(model: Model, examples: list[Any]) -> tuple[Tensor, Tensor]:
    """The mean cross-entropy of all words that are learned, and the states that foretell the vokens, (B, K, D); a row at a time."""
    first = model.processor.signals["image"][0]
    scores_NV, words_N, states_KD = [], [], []
    for example in examples:
        ids_1T, learned = torch.tensor([example.input_ids]), torch.tensor(example.learn[1:])
        said = model.network.backbone.lm(input_ids=ids_1T, output_hidden_states=True)
        start = example.input_ids.index(first)
        states_KD.append(said.hidden_states[-1][0, start - 1 : start - 1 + len(IMG)])
        scores_NV.append(said.logits[0, :-1][learned])
        words_N.append(ids_1T[0, 1:][learned])
    return F.cross_entropy(torch.cat(scores_NV), torch.cat(words_N)), torch.stack(states_KD)
