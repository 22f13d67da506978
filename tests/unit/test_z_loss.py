"""z-loss beside the next-token loss, against scores of all words and a sum by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_picture_weights import examples
from test_picture_words import lively
from torch import Tensor
from torch.nn import functional as F

from sensorium.api import Model
from sensorium.core.errors import ConfigError
from sensorium.nn import answer_loss as module
from sensorium.processing.collate import collate
from sensorium.training.objectives.next_token import (
    CaptionConfig,
    InstructConfig,
    next_token_losses,
)


def plain(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, z_loss: float) -> Tensor:
    scores_NV = hidden_ND @ weight_VD.t()
    return F.cross_entropy(scores_NV, targets_N, reduction="sum") + z_loss * torch.logsumexp(scores_NV, dim=-1).square().sum()


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("learns", [False, True])
def test_gradients_are_those_of_the_plain_sum(at_once: bool, learns: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if at_once:  # As on a GPU.
        monkeypatch.setattr(module._Head, "read", module._Head.read_at_once)
    monkeypatch.setattr(module, "BLOCK_WORDS", 7)
    monkeypatch.setattr(module, "BUFFER_SCORES", 5 * 50)
    torch.manual_seed(0)
    hidden_ND, weight_VD = torch.randn(13, 16, requires_grad=True), torch.randn(50, 16, requires_grad=learns)
    targets_N = torch.randint(0, 50, (13,))
    inputs = (hidden_ND, weight_VD) if learns else (hidden_ND,)
    found, wanted = module.answer_loss(hidden_ND, weight_VD, targets_N, z_loss=0.1).total, plain(hidden_ND, weight_VD, targets_N, 0.1)
    without = plain(hidden_ND, weight_VD, targets_N, 0.0)
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
    for ours, theirs, less in zip(*(torch.autograd.grad(one, inputs) for one in (found, wanted, without)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        # It is no small thing here.
        assert float((theirs - less).norm()) > 0.1 * float(less.norm())


def test_scores_that_drift_together_are_pulled_back() -> None:
    """Cross-entropy does not see a number that is added to all scores; this does, and pulls it to zero."""
    hidden_ND = torch.tensor([[3.0, 1.0], [-3.0, 1.0]], requires_grad=True)
    weight_VD = torch.tensor([[1.0, 0.5], [1.0, 0.0], [1.0, -0.5]])
    losses = {z_loss: module.answer_loss(hidden_ND, weight_VD, torch.tensor([0, 1]), z_loss=z_loss) for z_loss in (0.0, 0.01)}
    (flat_ND,), (pulled_ND,) = (torch.autograd.grad(one.total, hidden_ND) for one in losses.values())
    assert flat_ND[:, 0].abs().max() < 1e-6
    assert pulled_ND[0, 0] > 0.05
    assert pulled_ND[1, 0] < -0.02
    assert losses[0.0].logs_N is None
    assert torch.equal(losses[0.0].losses_N, losses[0.01].losses_N)


def test_half_precision_is_near() -> None:
    torch.manual_seed(0)
    hidden_ND, weight_VD = torch.randn(9, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    targets_N = torch.randint(0, 50, (9,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module.answer_loss(hidden_ND, weight_VD, targets_N, z_loss=0.05).total
    wanted = plain(hidden_ND, weight_VD, targets_N, 0.05)
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=0.02)
    for ours, theirs in zip(*(torch.autograd.grad(one, (hidden_ND, weight_VD)) for one in (found, wanted)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.15)


@pytest.fixture(scope="module", params=[True, False], ids=["shared", "tables"])
def model(request: pytest.FixtureRequest) -> Model:
    return lively(shared=request.param)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_every_learned_token_pays_for_its_own_scores(smoothing: float, model: Model) -> None:
    network, made = model.network, examples(model)
    objective: Any = InstructConfig(z_loss=0.02, picture_weight=0.5, smoothing=smoothing).build(network, model.processor, ())
    bare: Any = InstructConfig(picture_weight=0.5, smoothing=smoothing).build(network, model.processor, ())
    batches = [collate([[one] for one in made], model.tokenizer.pad_id), collate([made], model.tokenizer.pad_id)]
    read = network.read(batches[0])
    words, coded = network.config.backbone.vocab_size, set(network.code_words.tolist())  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    squares: list[tuple[float, float]] = []
    with torch.no_grad():
        hidden_BTD = network(read).hidden_BTD
        for row, place in read.learn_BT.nonzero().tolist():
            target = int(read.input_ids_BT[row, place])
            scores_V = (network.code_scores if target >= words else network.logits)(hidden_BTD[row, place - 1])
            squares.append((0.5 if target in coded else 1.0, float(torch.logsumexp(scores_V.float(), dim=-1)) ** 2))
    for batch in batches:
        found, without = objective(network, batch), bare(network, batch)
        more = 0.02 * sum(weight * square for weight, square in squares)
        assert float(found.total.detach()) == pytest.approx(float(without.total.detach()) + more, rel=1e-5)
        assert found.count == without.count
        # What is logged of words stays what it was.
        mean = sum(square for _, square in squares) / len(squares)
        assert found.parts == pytest.approx(without.parts | {"log_z_squared": mean}, rel=1e-5)


def test_without_it_nothing_changes(model: Model) -> None:
    assert CaptionConfig(z_loss=0.0).build(model.network, model.processor, ()) is next_token_losses
    with pytest.raises(ConfigError, match="z_loss with word_noise"):
        InstructConfig(z_loss=1e-5, word_noise=0.1).build(model.network, model.processor, ())
    with pytest.raises(ConfigError, match="z_loss with prefix"):
        CaptionConfig(z_loss=1e-5, prefix=True).build(model.network, model.processor, ())
    with pytest.raises(ConfigError, match="z_loss"):
        InstructConfig.from_dict({"z_loss": -1.0})
