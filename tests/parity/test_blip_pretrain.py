"""BLIP's pretraining against transformers' modules with the same weights: contrast by this file's own
arithmetic on their vectors, matching by their encoder, writing by their decoder and its loss."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.sample import parse_sample
from sensorium.interop.assemble import build_pretrained
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn import contrastive
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.recipes import TINY_FORMS
from sensorium.training.objectives import matching
from sensorium.training.objectives.blip_pretrain import BlipPretrain, BlipPretrainConfig
from sensorium.training.objectives.matching import MatchingConfig
from sensorium.training.objectives.slow_copy import SlowConfig

TEXTS = ("a cat", "two red trucks", "dog", "an arrow that points up")
ROWS, QUEUE = 8, 6


@dataclass
class Theirs:
    """Transformers' modules and BLIP's heads."""

    vision: Any
    encoder: Any
    decoder: Any
    vision_proj: Any
    text_proj: Any
    itm_head: Any

    @classmethod
    def of(cls, model: MultimodalModel) -> Theirs:
        """New modules of transformers' classes, with a model's weights."""
        from transformers import BlipTextLMHeadModel, BlipTextModel

        def made(module: nn.Module, ours: Any) -> Any:
            module.load_state_dict(ours.state_dict())
            return module.eval()

        tower: Any = model.encoders["image"].tower
        lm: Any = model.backbone.lm
        arch = copy.deepcopy(lm.config)
        arch.label_smoothing = 0.1
        return cls(
            made(type(tower)(tower.config), tower),
            made(BlipTextModel(arch, add_pooling_layer=False), lm.text_encoder),
            made(BlipTextLMHeadModel(arch), lm.text_decoder),
            *(copy.deepcopy(m) for m in (model.fusion.vision_proj, lm.text_proj, lm.itm_head)),
        )

    def vectors(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        pictures = self.vision_proj(self.vision(pixel_values=pixels).last_hidden_state[:, 0])
        texts = self.text_proj(self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0])
        return nn.functional.normalize(pictures, dim=-1), nn.functional.normalize(texts, dim=-1)


def random_model() -> tuple[MultimodalModel, Processor]:
    torch.manual_seed(3)
    config = TINY_FORMS.find("blip")().model
    model, tokenizer = build_pretrained(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1)
    return model.eval(), Processor(config, tokenizer).with_template("pair")


def batch_of(processor: Processor, seeds: tuple[int, ...] = (0, 1, 2, 3)) -> Batch:
    """Pairs of noise and a text."""
    rows: list[Any] = []
    for seed, text in zip(seeds, TEXTS, strict=True):
        noise = np.random.default_rng(seed).integers(0, 256, (40, 30, 3), dtype=np.uint8)
        rows.append([processor.encode(parse_sample({"messages": [
            {"role": "user", "content": [{"type": "image", "image": Image.fromarray(noise)}]},
            {"role": "assistant", "content": text}]}))])  # fmt: skip
    return collate(rows, processor.tokenizer.pad_id)


def objective(model: MultimodalModel, processor: Processor, **more: Any) -> BlipPretrain:
    config = BlipPretrainConfig(slow=SlowConfig(queue=QUEUE, momentum=0.9, rise_epochs=2.0), **more)
    return BlipPretrain(config, model, processor, ROWS)


def changed(model: MultimodalModel) -> None:
    """As after a step of training."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


@dataclass
class Inputs:
    pixels: Tensor
    ids: Tensor
    mask: Tensor


def inputs(model: MultimodalModel, batch: Batch) -> Inputs:
    pixels = model.encoders["image"].normalise(batch.media["image"].pixels_NCHW)  # pyright: ignore
    return Inputs(pixels, batch.input_ids_BT, (batch.segments_BT > 0).long())


def cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    return -(targets * scores.log_softmax(dim=1)).sum(dim=1).mean()


@torch.no_grad()
def test_three_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the second step: the copy lags behind, the queue holds the first batch, the share has risen."""
    model, processor = random_model()
    made = objective(model, processor)
    made.begin(model)
    first, second = batch_of(processor, (10, 11, 12, 13)), batch_of(processor)
    slow, start = Theirs.of(model), made.module
    assert start is not None
    queue = [start.pictures_QJ.clone(), start.texts_QJ.clone()]
    begun = int(model.backbone.begin_id)  # pyright: ignore
    assert made(model, first).count == 4
    changed(model)
    made.stepped(model)
    theirs = Theirs.of(model)
    # What the copy saw in the first batch it saw before it followed.
    one = inputs(model, first)
    for held, seen in zip(queue, slow.vectors(one.pixels, one.ids, one.mask), strict=True):
        held[:4] = seen
    for part in ("vision", "encoder", "vision_proj", "text_proj"):
        pairs = zip(getattr(slow, part).parameters(), getattr(theirs, part).parameters(), strict=True)
        for mine, new in pairs:
            mine.copy_(0.9 * mine + 0.1 * new)

    asked: list[Tensor] = []

    def next_one(scores: Tensor, **more: Any) -> Tensor:
        assert more == {"floor": 1e-4, "right_NN": None}
        asked.append(scores)
        return torch.tensor([1, 2, 3, 0])

    monkeypatch.setattr(matching, "hard_negatives", next_one)
    losses = made(model, second)

    two = inputs(model, second)
    pictures, texts = theirs.vectors(two.pixels, two.ids, two.mask)
    slow_pictures, slow_texts = slow.vectors(two.pixels, two.ids, two.mask)
    all_pictures, all_texts = torch.cat([slow_pictures, queue[0]]), torch.cat([slow_texts, queue[1]])
    # One batch of 4 in 2 epochs of 8 rows: a quarter of 0.4.
    alpha, own = 0.1, torch.eye(4, 4 + QUEUE)
    to_texts, to_pictures = pictures @ all_texts.T / 0.07, texts @ all_pictures.T / 0.07
    contrast = [
        cross_entropy(scores, alpha * (slow_scores / 0.07).softmax(dim=1) + (1 - alpha) * own)
        for scores, slow_scores in ((to_texts, slow_pictures @ all_texts.T), (to_pictures, slow_texts @ all_pictures.T))
    ]
    assert losses.parts["contrastive"] == pytest.approx(float(sum(contrast)) / 2, abs=1e-5)
    torch.testing.assert_close(asked[0], to_texts[:, :4], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(asked[1], to_pictures[:, :4], atol=1e-5, rtol=1e-4)

    seen = theirs.vision(pixel_values=two.pixels).last_hidden_state
    wrong = [1, 2, 3, 0]
    read = [theirs.encoder(input_ids=ids, attention_mask=mask, encoder_hidden_states=media).last_hidden_state[:, 0]
            for ids, mask, media in ((two.ids, two.mask, seen), (two.ids, two.mask, seen[wrong]),
                                     (two.ids[wrong], two.mask[wrong], seen))]  # fmt: skip
    right = torch.tensor([1] * 4 + [0] * 8)
    expected = nn.functional.cross_entropy(theirs.itm_head(torch.cat(read)), right)
    assert losses.parts["matching"] == pytest.approx(float(expected), abs=1e-5)

    ids = two.ids.clone()
    ids[:, 0] = begun
    labels = ids.masked_fill(two.mask == 0, -100)
    expected = theirs.decoder(input_ids=ids, attention_mask=two.mask, encoder_hidden_states=seen, labels=labels).loss
    assert losses.parts["writing"] == pytest.approx(float(expected), abs=1e-5)
    total = sum(losses.parts[name] for name in ("contrastive", "matching", "writing"))
    assert float(losses.total) / 4 == pytest.approx(total, rel=1e-5)


def test_all_but_self_attention_is_shared() -> None:
    model, _ = random_model()
    lm: Any = model.backbone.lm
    reads = dict(lm.text_encoder.named_parameters())
    writes = {n.removeprefix("bert."): p for n, p in lm.text_decoder.named_parameters() if n.startswith("bert.")}
    assert set(reads) == set(writes)
    apart = {n for n in reads if reads[n].data_ptr() != writes[n].data_ptr()}
    assert apart == {n for n in reads if ".attention." in n}
    assert lm.text_decoder.cls.predictions.decoder.weight is reads["embeddings.word_embeddings.weight"]


@torch.no_grad()
def test_captions_of_one_picture_are_all_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """BLIP's retrieval: the first and the third pair, and two places of the queue, show one picture."""
    model, processor = random_model()
    config = MatchingConfig(slow=SlowConfig(queue=QUEUE, share=0.0), captions_share=True)
    made = matching.MatchingObjective(config, model, processor, ROWS)
    made.begin(model)
    batch = batch_of(processor, (5, 6, 5, 7))
    asked: list[Any] = []
    real = contrastive.hard_negatives

    def noted(scores: Tensor, **more: Any) -> Tensor:
        asked.append((scores, more))
        return real(scores, **more)

    monkeypatch.setattr(matching, "hard_negatives", noted)
    made(model, batch)
    made.stepped(model)
    held = [made.module.pictures_QJ.clone(), made.module.texts_QJ.clone()]  # pyright: ignore
    losses = made(model, batch)
    theirs, two = Theirs.of(model), inputs(model, batch)
    pictures, texts = theirs.vectors(two.pixels, two.ids, two.mask)
    same = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]).float()
    right = torch.cat([same, same, torch.zeros(4, QUEUE - 4)], dim=1)
    right = right / right.sum(dim=1, keepdim=True)
    to_texts, to_pictures = (mine @ torch.cat([other, queue]).T / 0.07 for mine, other, queue in
                             ((pictures, texts, held[1]), (texts, pictures, held[0])))  # fmt: skip
    expected = (cross_entropy(to_texts, right) + cross_entropy(to_pictures, right)) / 2
    assert losses.parts["contrastive"] == pytest.approx(float(expected), abs=1e-5)
    near = pictures @ texts.T / 0.07
    for (scores, more), wanted in zip(asked[-2:], (near, near.T), strict=True):
        torch.testing.assert_close(scores, wanted, atol=1e-5, rtol=1e-4)
        assert more["floor"] == 0
        assert torch.equal(more["right_NN"], same.bool())
    with pytest.raises(DataError, match="not alike"):
        made(model, batch_of(processor, (5, 5, 5, 5)))


def test_models_that_it_is_not_for() -> None:
    config = TINY_FORMS.find("blip-retrieval")().model
    model, tokenizer = build_pretrained(config)
    with pytest.raises(ConfigError, match="by a CrossTower"):
        BlipPretrainConfig().build(model, Processor(config, tokenizer).with_template("pair"), [])
    model, processor = random_model()
    processor.tokenizer.bos_id = None
    with pytest.raises(ConfigError, match="without a mark in front"):
        BlipPretrainConfig().build(model, processor, [])
