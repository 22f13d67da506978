"""Blending pictures: what a blend is, and that features and targets are blended alike."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.core.batch import Features, Grid
from sensorium.core.errors import ConfigError
from sensorium.core.sample import parse_sample
from sensorium.data.loader import Loader, LoaderOptions
from sensorium.data.mixture import MixtureOrder
from sensorium.data.source import ListSource
from sensorium.interop.assemble import build_pretrained
from sensorium.processing.processor import Processor
from sensorium.recipes.tiny import tiny_model
from sensorium.training.objectives import vocabulary
from sensorium.training.objectives.mixing import blend_features, draw_blend
from sensorium.training.objectives.vocabulary import VocabularyConfig

WORDS = ("a red box", "two green trees", "some old bread")


def test_a_blend_keeps_the_larger_part() -> None:
    torch.manual_seed(0)
    blend_MM = draw_blend(64, 0.5, torch.zeros(1))
    assert torch.allclose(blend_MM.sum(dim=1), torch.ones(64))
    assert bool((blend_MM.diagonal() >= 0.5).all())
    assert 0.6 < float(blend_MM.diagonal().mean()) < 0.95


def test_features_of_several_layouts_are_refused() -> None:
    features = Features(torch.zeros(7, 4), (Grid(2, 2), Grid(1, 3)))
    with pytest.raises(ConfigError, match="2 layouts"):
        blend_features(features, torch.eye(2))


def test_features_and_targets_are_blended_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = build_pretrained(tiny_model())
    pictures = [Image.fromarray(np.full((20, 20, 3), 60 * n, np.uint8)) for n in range(3)]
    source = ListSource(
        "pictures",
        [parse_sample({"messages": [{"role": "user", "content": [{"type": "image", "image": picture}]},
                                    {"role": "assistant", "content": text}]})
         for picture, text in zip(pictures, WORDS, strict=True)]
    )  # fmt: skip
    processor = Processor(model.config, tokenizer).with_template("caption")
    loader = Loader([source], MixtureOrder([3], [1.0], seed=0), processor,
                    LoaderOptions(batch_size=3, max_length=128))  # fmt: skip
    with closing(loader.batches(MixtureOrder([3], [1.0], seed=0).start())) as stream:
        batch = next(stream).batch

    def loss(mix: float) -> float:
        objective = VocabularyConfig(mix=mix).build(model, processor, [source])
        return float(objective(model, batch).total.detach())

    plain = loss(0.0)
    assert loss(0.5) == plain, "nothing is blended while the projector does not learn"
    model.projectors["image"].train()
    # Blends that only reorder the pictures reorder their losses, and the sum stays.
    turned = torch.eye(3)[[1, 2, 0]]
    monkeypatch.setattr(vocabulary, "draw_blend", lambda count, strength, like: turned)
    assert loss(0.5) == pytest.approx(plain, rel=1e-5)
    halves = (torch.eye(3) + turned) / 2
    monkeypatch.setattr(vocabulary, "draw_blend", lambda count, strength, like: halves)
    assert abs(loss(0.5) - plain) > 1e-3
