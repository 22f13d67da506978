"""NExT-GPT's losses beside those of its own code, written a second time over the same weights: words, the distance of each medium,
and of version 1.5 the noise in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from sensorium.api import Model
from sensorium.core.hands import Made
from sensorium.core.sample import parse_sample
from sensorium.interop.assemble import build_pretrained
from sensorium.nn.log_mel import MelShape, log_mel
from sensorium.processing.collate import collate
from sensorium.recipes import TINY_FORMS
from sensorium.training.objectives.generate import GenerateConfig

CAPTIONS = {"image": "a cat", "video": "a running dog", "audio": "rain"}


def asked(kind: str, medium: Any = "y") -> Any:
    return parse_sample({"messages": [
        {"role": "user", "content": "generate a caption"},
        {"role": "assistant", "content": [{"type": "text", "text": CAPTIONS[kind]}, {"type": kind, kind: medium}]},
    ]})  # fmt: skip


@pytest.mark.parametrize("name", ["next-gpt", "next-gpt-1.5"])
@torch.no_grad()
def test_losses_are_the_originals(name: str, record: Callable[..., None]) -> None:
    """`_train_with_mode`, or `compute_image_loss` and its like: states and embeddings of the signal tokens (of version 1.5 with the spaces
    between), which an answer's caption stands in front of, and the length of each difference to what the generator's text encoder
    makes of the caption; and the mean over all words that are learned, signals among them."""
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra `gen`)")
    torch.manual_seed(0)
    model = Model(*build_pretrained(TINY_FORMS.find(name)().model))
    lm: Any = model.network.backbone.lm
    rows = [[model.processor.encode(asked(kind))] for kind in CAPTIONS]
    objective = GenerateConfig().build(model.network, model.processor, ())
    found = objective(model.network, collate(rows, model.tokenizer.pad_id))
    scores_KV, words_K = [], []
    for (kind, caption), [example] in zip(CAPTIONS.items(), rows, strict=True):
        ids, learned = torch.tensor([example.input_ids]), torch.tensor(example.learn[1:])
        signals = list(model.processor.signals[kind])
        number = {"image": 4, "video": 24, "audio": 8}[kind]
        assert len(signals) == (number if name == "next-gpt" else 2 * number - 1)
        start = example.input_ids.index(signals[0])
        assert example.input_ids[start : start + len(signals)] == signals
        assert all(example.learn[start : start + len(signals)])
        said = lm(input_ids=ids, output_hidden_states=True)
        states = said.hidden_states[-1][:, start : start + len(signals)]
        mapped = model.network.hands[kind](states + lm.get_input_embeddings()(ids[:, start : start + len(signals)]))
        wanted = model.network.generators[kind].encode_text([caption])  # pyright: ignore[reportAttributeAccessIssue]
        distance = (((mapped - wanted) ** 2).sum(dim=-1) ** 0.5).mean()
        record(name, "loss", ours=torch.tensor(found.parts[f"condition.{kind}"]), theirs=distance)
        scores_KV.append(said.logits[0, :-1][learned])
        words_K.append(ids[0, 1:][learned])
    words = F.cross_entropy(torch.cat(scores_KV), torch.cat(words_K))
    record(name, "loss", ours=torch.tensor(found.parts["next_token"]), theirs=words)


HELD: dict[str, Any] = {
    "image": Image.new("RGB", (64, 64), (9, 99, 200)),
    "video": Made("video", np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8), fps=1.0),
    "audio": Made("audio", np.random.default_rng(1).normal(0, 0.1, 128), sample_rate_hz=4000),
}


@pytest.mark.parametrize("kind", HELD)
@torch.no_grad()
def test_noise_is_the_originals(kind: str, record: Callable[..., None]) -> None:
    """`compute_image_loss` and its like with a batch of one, where its mean of weights times its mean of errors is their product, for UNets that
    foretell noise: weights of `compute_snr` for pictures, none for others; a sound steers by `class_labels`."""
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra `gen`)")
    torch.manual_seed(0)
    recipe = TINY_FORMS.find("next-gpt-1.5")()
    model = Model(*build_pretrained(recipe.model))
    processor = model.processor.with_template(None)
    objective = recipe.stages[1].objective.build(model.network, processor, ())
    batch = collate([[processor.encode(asked(kind, HELD[kind]))]], model.tokenizer.pad_id)
    torch.manual_seed(3)
    found = objective(model.network, batch)

    torch.manual_seed(3)
    seed = int(torch.randint(2**31, ()))
    pipe: Any = model.network.generators[kind].pipe  # pyright: ignore[reportAttributeAccessIssue]
    [one] = batch.wanted
    if kind == "audio":
        values = log_mel(one.medium[None], MelShape(rate_hz=4000, bands=16, hop=4, window=64))[:, None]
    else:
        pixels = one.medium[None] if kind == "image" else one.medium
        values = pixels / 127.5 - 1
    latents = pipe.vae.encode(values).latent_dist.sample(torch.Generator().manual_seed(seed)) * pipe.vae.config.scaling_factor
    if kind == "video":
        latents = latents.reshape(1, 2, *latents.shape[1:]).permute(0, 2, 1, 3, 4)
    noise, steps_B = torch.randn(latents.shape), torch.randint(0, 1000, (1,))
    hidden = model.network(batch).hidden_BTD
    projected = model.network.condition(kind, hidden, batch.input_ids_BT, [(0, one.start)])
    noisy = pipe.scheduler.add_noise(latents, noise, steps_B)
    if kind == "audio":
        said = pipe.unet(noisy, steps_B, class_labels=projected.squeeze(1), encoder_hidden_states=None).sample
    else:
        said = pipe.unet(noisy, steps_B, projected).sample
    loss = F.mse_loss(said, noise)
    if kind == "image":
        ratio_B = (pipe.scheduler.alphas_cumprod[steps_B] ** 0.5 / (1 - pipe.scheduler.alphas_cumprod[steps_B]) ** 0.5) ** 2
        loss = loss * (torch.stack([ratio_B, 5 * torch.ones_like(steps_B)], dim=1).min(dim=1)[0] / ratio_B).mean()
    record("next-gpt-1.5", "loss", ours=torch.tensor(found.parts[f"diffusion.{kind}"]), theirs=loss)
