"""Weights of text beside pictures in the next-token loss, against a sum by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_picture_words import FIRST, config, lively, picture
from torch.nn import functional as F

from sensorium.api import Model
from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError
from sensorium.core.sample import parse_sample
from sensorium.interop.assemble import build_pretrained
from sensorium.processing.collate import collate
from sensorium.training.objectives.base import Losses
from sensorium.training.objectives.next_token import (
    CaptionConfig,
    InstructConfig,
    next_token_losses,
)

WEIGHTS = [(1.0, 0.5), (0.25, 2.0), (0.0, 1.0), (1.0, 0.0)]


@pytest.fixture(scope="module", params=[True, False], ids=["shared", "tables"])
def model(request: pytest.FixtureRequest) -> Model:
    return lively(shared=request.param)


def examples(model: Model) -> list[Any]:
    """Text and a picture, a picture alone, and text alone."""
    answers = [[{"type": "text", "text": "So:"}, {"type": "image", "image": picture()}], [{"type": "image", "image": picture(9)}],
               [{"type": "text", "text": "A boat."}]]  # fmt: skip
    return [model.processor.encode(parse_sample({"messages": [
        {"role": "user", "content": "Draw."}, {"role": "assistant", "content": answer}]})) for answer in answers]  # fmt: skip


def by_hand(model: Model, batch: Batch, text: float, pictures: float) -> tuple[float, int]:
    """The weighted sum, and how many tokens it is of; each token's scores from a pass without the objective."""
    network, total, count = model.network, 0.0, 0
    read = network.read(batch)
    words = network.config.backbone.vocab_size
    with torch.no_grad():
        hidden_BTD = network(read).hidden_BTD
    for row, place in read.learn_BT.nonzero().tolist():
        target = int(read.input_ids_BT[row, place])
        coded = FIRST <= target < FIRST + len(model.processor.frames.words)  # pyright: ignore[reportOptionalMemberAccess]
        own = coded and network.code_tables is not None
        with torch.no_grad():
            scores_V = (network.code_scores if own else network.logits)(hidden_BTD[row, place - 1])
        cross = float(F.cross_entropy(scores_V[None], torch.tensor([target - words if own else target])))
        weight = pictures if coded else text
        total, count = total + weight * cross, count + (weight > 0)
    return total, count


@pytest.mark.parametrize(("text", "pictures"), WEIGHTS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_each_kind_has_its_weight_and_the_mean_is_over_what_weighs(text: float, pictures: float, smoothing: float, model: Model) -> None:
    network, made = model.network, examples(model)
    objective: Any = InstructConfig(text_weight=text, picture_weight=pictures, smoothing=smoothing).build(network, model.processor, ())
    rows = collate([[one] for one in made], model.tokenizer.pad_id)
    packed = collate([made], model.tokenizer.pad_id)
    found: list[Losses] = [objective(network, batch) for batch in (rows, packed)]
    assert found[0].count == found[1].count
    assert float(found[0].total) == pytest.approx(float(found[1].total), rel=1e-5)
    if not smoothing:
        total, count = by_hand(model, rows, text, pictures)
        assert (float(found[0].total), found[0].count) == (pytest.approx(total, rel=1e-5), count)
    # What is logged can be compared with runs of other weights.
    plain = next_token_losses(network, rows, smoothing)
    assert found[0].parts == {name: pytest.approx(value, rel=1e-5) for name, value in plain.parts.items()}
    grads = [_gradient(network, one.total) for one in found]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-5)


def _gradient(network: Any, total: torch.Tensor) -> torch.Tensor:
    network.zero_grad(set_to_none=True)
    total.backward()
    return network.backbone.embedding.weight.grad.clone()


def test_a_source_weighs_beside_them(model: Model) -> None:
    made = examples(model)
    for one in made:
        one.loss_weight = 0.5
    batch = collate([made], model.tokenizer.pad_id)
    objective: Any = CaptionConfig(picture_weight=0.3).build(model.network, model.processor, ())
    total, count = by_hand(model, batch, 1.0, 0.3)
    found = objective(model.network, batch)
    assert (float(found.total), found.count) == (pytest.approx(0.5 * total, rel=1e-5), count)


def test_without_weights_it_is_what_it_was(model: Model) -> None:
    assert InstructConfig(text_weight=1.0).build(model.network, model.processor, ()) is next_token_losses
    with pytest.raises(ConfigError, match="picture_weight with word_noise"):
        InstructConfig(picture_weight=0.5, word_noise=0.1).build(model.network, model.processor, ())
    with pytest.raises(ConfigError, match="picture_weight 0"):
        InstructConfig(text_weight=0.0, picture_weight=0.0).build(model.network, model.processor, ())
    blind = Model(*build_pretrained(config(shared=True).model_copy(update={"picture_words": None})))
    with pytest.raises(ConfigError, match="picture_weight for a model that writes no pictures"):
        CaptionConfig(picture_weight=0.5).build(blind.network, blind.processor, ())
