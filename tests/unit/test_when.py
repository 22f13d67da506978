"""When a signal is to be written: the loss is that of the next token as the signal's row sees it, and rows are read once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from sensorium.api import Model
from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError
from sensorium.core.sample import parse_sample
from sensorium.generators import GENERATORS
from sensorium.interop.assemble import build_pretrained
from sensorium.model.config import ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.model.learning import Learn, set_learning
from sensorium.output_projectors import OUTPUT_PROJECTORS
from sensorium.processing.collate import collate
from sensorium.training.objectives.next_token import next_token_losses
from sensorium.training.objectives.when import When, WhenConfig, behind_a_signal, forced

SIGNALS = ("[IMG0]", "[IMG1]")
FIRST = -len(SIGNALS)


def built(*, tied: bool = False, signals: tuple[str, ...] = SIGNALS, written: bool = False) -> Model:
    arch = CausalLMConfig.tiny().arch | {"vocab_size": 263 + len(SIGNALS), "tie_word_embeddings": tied, "initializer_range": 0.15}
    hand = HandConfig(signals=SIGNALS, projector=OUTPUT_PROJECTORS.find("mapper").tiny(), generator=GENERATORS.find("drawer").tiny())
    backbone = CausalLMConfig(arch=arch, tokenizer="bytes", added_tokens=SIGNALS)
    torch.manual_seed(0)
    told: dict[str, Any] = {"written": (FIRST,)} if written else {}
    return Model(*build_pretrained(ModelConfig(backbone=backbone, hands={"image": hand} if signals else {}, template="plain", **told)))


def rows(model: Model, *, pack: bool = False) -> Batch:
    """A request that is answered with a picture, and two questions."""
    answers: tuple[Any, ...] = ([{"type": "image", "image": {"way": "first"}}, {"type": "text", "text": "there"}], "no", "blue, and green")
    told = [parse_sample({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]})
            for asked, answer in zip(("draw a cat", "is it round?", "which colours?"), answers, strict=True)]  # fmt: skip
    examples = [model.processor.encode(sample) for sample in told]
    return collate([examples] if pack else [[one] for one in examples], model.tokenizer.pad_id)


def learning(model: Model, module: str) -> torch.nn.Parameter:
    """Let the first signal's row learn alone; the matrix that holds it. `written`: its row for writing."""
    learn = Learn(part="written", lr=1.0) if module == "written" else Learn(part="backbone", module=module, rows=(FIRST,), lr=1.0)
    set_learning(model.network, (learn,))
    return next(one for one in model.network.parameters() if one.requires_grad)


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("module", ["lm.lm_head", "written"])
def test_its_gradient_is_that_of_the_next_token_where_that_is_free(module: str, pack: bool) -> None:
    model = built(written=module == "written")
    batch, (first, second) = rows(model, pack=pack), model.processor.signals["image"]
    head = learning(model, module)
    row = 0 if module == "written" else first
    with torch.no_grad():
        head[row] += 0.1 * torch.randn(head.shape[1])
    ours = WhenConfig().build(model.network, model.processor, ())(model.network, batch)
    ours.total.backward()
    assert head.grad is not None
    got = head.grad[row].clone()
    head.grad = None
    assert batch.input_ids_BT[forced(batch, [(first, second)])].tolist() == [second]
    free = replace(batch, learn_BT=batch.learn_BT & ~forced(batch, [(first, second)]))
    theirs = next_token_losses(model.network, free)
    theirs.total.backward()
    assert head.grad is not None
    # "there" behind the signals is free, and says that no other picture follows.
    assert int((free.learn_BT & behind_a_signal(batch, torch.tensor([first]))).sum()) == len("there") + 1
    assert ours.count == theirs.count
    assert float(ours.total.detach()) < float(theirs.total.detach())
    torch.testing.assert_close(got, head.grad[row], atol=1e-5, rtol=1e-4)


def test_a_row_that_is_read_too_learns_of_what_stands_in_front_of_it() -> None:
    counts: list[int] = []
    for tied, module in ((True, "lm.model.embed_tokens"), (False, "lm.lm_head")):
        model = built(tied=tied)
        learning(model, module)
        counts.append(WhenConfig().build(model.network, model.processor, ())(model.network, rows(model)).count)
    assert counts[1] - counts[0] == len("there") + 1


def test_what_stands_behind_a_signal_is_of_its_own_sample_alone() -> None:
    model = built()
    batch, (first, _) = rows(model, pack=True), model.processor.signals["image"]
    ((row, place),) = (batch.input_ids_BT == first).nonzero().tolist()
    own_T = batch.segments_BT[row] == batch.segments_BT[row, place]
    expected_T = own_T & (torch.arange(len(own_T)) > place)
    assert torch.equal(behind_a_signal(batch, torch.tensor([first]))[row], expected_T)


@pytest.mark.parametrize("module", ["lm.model.embed_tokens", "written"])
def test_a_row_of_text_is_read_once_and_means_the_same(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = built(tied=True, written=module == "written")
    batch, weight = rows(model), learning(model, module)
    objective = WhenConfig().build(model.network, model.processor, ())
    assert isinstance(objective, When)
    fresh = objective(model.network, batch)
    calls: list[int] = []
    whole = model.network.forward
    monkeypatch.setattr(model.network, "forward", lambda batch: calls.append(len(batch.input_ids_BT)) or whole(batch))
    known = objective(model.network, batch)
    assert calls == []
    torch.testing.assert_close(known.total, fresh.total, atol=0, rtol=0)
    # What is learned is not kept: another row of the signal is another loss.
    with torch.no_grad():
        weight[0 if module == "written" else FIRST] += 1.0
    other = objective(model.network, batch)
    assert calls == []
    assert abs(float(other.total.detach()) - float(fresh.total.detach())) > 0.01
    objective.begin(model.network)
    torch.testing.assert_close(objective(model.network, batch).total, other.total)
    assert calls == [1, 1, 1]


@pytest.mark.parametrize("module", ["lm.lm_head", "written"])
def test_steps_let_it_be_written_where_it_belongs_and_nowhere_else(module: str) -> None:
    model = built(written=module == "written")
    batch, head = rows(model), learning(model, module)
    objective, optimiser = WhenConfig().build(model.network, model.processor, ()), torch.optim.Adam([head], lr=0.1)
    parts: dict[str, float] = {}
    for _ in range(80):
        optimiser.zero_grad()
        losses = objective(model.network, batch)
        losses.total.backward()
        optimiser.step()
        parts = losses.parts
    assert parts == {"written": 1.0, "unasked": 0.0}


def test_what_it_does_not_teach_is_refused() -> None:
    model = built()
    set_learning(model.network, (Learn(part="hands.image", lr=1.0),))
    objective = WhenConfig().build(model.network, model.processor, ())
    with pytest.raises(ConfigError, match="rows of first signals alone"):
        objective(model.network, rows(model))
    # Nor a row for writing of a token that begins no medium: what is kept of the other words' scores would change.
    others = built()
    network = Model(*build_pretrained(others.network.config.model_copy(update={"written": (3,)}))).network
    set_learning(network, (Learn(part="written", lr=1.0),))
    with pytest.raises(ConfigError, match="rows of first signals alone"):
        WhenConfig().build(network, others.processor, ())(network, rows(others))
    silent = built(signals=())
    with pytest.raises(ConfigError, match="without signal tokens"):
        WhenConfig().build(silent.network, silent.processor, ())
