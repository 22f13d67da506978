"""A row for writing apart from the one that is read: it moves one token's score wherever scores are made, and nothing that is read."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretend_gpu import PretendGpu, move_to_gpu
from test_when import FIRST, SIGNALS, built, rows
from torch.nn import functional as F

from sensorium.api import Model, load
from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.backbones.text_tower import TextTowerConfig
from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError
from sensorium.core.sample import parse_sample
from sensorium.inference.sampling import Sampling
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.gguf_export import export_gguf
from sensorium.interop.hf import export_hf
from sensorium.interop.saved import recast, save_model
from sensorium.interop.start import start_from
from sensorium.model.config import ModelConfig
from sensorium.model.learning import Learn, own_names, part_names, set_learning
from sensorium.model.written import check_written
from sensorium.processing.collate import collate
from sensorium.training.objectives.next_token import next_token_losses

QUESTIONS = ("draw a cat", "is it round?", "which colours?")
GEMMA = {"model_type": "gemma2", "vocab_size": 263 + len(SIGNALS), "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 12, "max_position_embeddings": 512, "final_logit_softcapping": 30.0}  # fmt: skip


def plain(arch: dict[str, Any]) -> Model:
    backbone = CausalLMConfig(arch=arch, tokenizer="bytes", added_tokens=SIGNALS)
    torch.manual_seed(0)
    return Model(*build_pretrained(ModelConfig(backbone=backbone, template="plain", written=(FIRST,))))


def models() -> dict[str, Model]:
    """Head and embedding apart, and one matrix; and a head that is more than a matrix."""
    return {"apart": built(written=True), "tied": built(tied=True, written=True), "softcap": plain(GEMMA)}


def liked(model: Model, length: float = 1.0) -> Model:
    """A row for writing that is not zero."""
    own = model.network.written
    assert own is not None
    torch.manual_seed(3)
    with torch.no_grad():
        own.weight.copy_(torch.randn_like(own.weight) * length)
    return model


@pytest.mark.parametrize("name", ["apart", "tied", "softcap"])
def test_it_adds_to_one_score_and_to_nothing_else(name: str) -> None:
    network = models()[name].network
    hidden_ND = torch.randn(5, network.config.backbone.d_model)
    before_NV = network.logits(hidden_ND)
    # Nothing at first.
    torch.testing.assert_close(before_NV, network.backbone.logits(hidden_ND), atol=0, rtol=0)
    assert network.written is not None
    torch.nn.init.normal_(network.written.weight)
    after_NV = network.logits(hidden_ND)
    more_N = hidden_ND @ network.written.weight[0]
    torch.testing.assert_close(after_NV[:, FIRST], before_NV[:, FIRST] + more_N)
    others = [i for i in range(before_NV.shape[1]) if i != before_NV.shape[1] + FIRST]
    torch.testing.assert_close(after_NV[:, others], before_NV[:, others], atol=0, rtol=0)


@pytest.mark.parametrize("learns", ["written", "backbone"])
@pytest.mark.parametrize("options", [{}, {"smoothing": 0.1}, {"z_loss": 0.05}])
@pytest.mark.parametrize("name", ["apart", "tied", "softcap"])
def test_the_loss_over_blocks_of_the_vocabulary_is_that_of_these_scores(name: str, options: dict[str, Any], learns: str) -> None:
    model = liked(models()[name], 0.3)
    network, batch = model.network, rows(model) if name != "softcap" else texts(model)
    set_learning(network, (Learn(part=learns, lr=1.0),))
    learning = [one for one in network.parameters() if one.requires_grad]
    got = next_token_losses(network, batch, **options).total
    got_grads = torch.autograd.grad(got, learning, allow_unused=True)
    hidden_ND, targets_N = network(batch).hidden_BTD[:, :-1][batch.learn_BT[:, 1:]], batch.input_ids_BT[:, 1:][batch.learn_BT[:, 1:]]
    scores_NV = network.logits(hidden_ND)
    smoothing, z_loss = options.get("smoothing", 0.0), options.get("z_loss", 0.0)
    wanted = F.cross_entropy(scores_NV, targets_N, reduction="sum", label_smoothing=smoothing) + z_loss * scores_NV.logsumexp(-1).square().sum()
    wanted_grads = torch.autograd.grad(wanted, learning, allow_unused=True)
    torch.testing.assert_close(got, wanted)
    assert any(grad is not None and bool(grad.abs().sum() > 0) for grad in got_grads)
    for mine, theirs in zip(got_grads, wanted_grads, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def texts(model: Model) -> Batch:
    told = [parse_sample({"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": "no"}]}) for asked in QUESTIONS]
    return collate([[model.processor.encode(sample)] for sample in told], model.tokenizer.pad_id)


def test_what_is_read_and_what_is_drawn_stay_the_same_bit_for_bit() -> None:
    model = built(tied=True, written=True)
    network, batch = model.network.eval(), rows(model)
    places = [(one.row, one.start) for one in batch.wanted]
    drawer: Any = network.generators["image"]

    def seen() -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
        with torch.inference_mode():
            hidden_BTD = network(batch).hidden_BTD
            condition_BLC = network.condition("image", hidden_BTD, batch.input_ids_BT, places)
            return hidden_BTD, condition_BLC, [one.array for one in drawer.generate(condition_BLC)]

    before = seen()
    liked(model, 5.0)
    after = seen()
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert all(np.array_equal(a, b) for a, b in zip(before[2], after[2], strict=True))


def written(model: Model, sampling: Sampling | None = None, *, alone: bool = False) -> list[list[int]]:
    prompts = [model.processor.prompt(parse_sample({"messages": [{"role": "user", "content": asked}]}).messages) for asked in QUESTIONS]
    groups = [[one] for one in prompts] if alone else [prompts]
    return [answer for group in groups for answer in model.engine.generate(group, max_tokens=4, sampling=sampling)]


def alike(*, folded: bool) -> Model:
    """A model that likes to write its last token; the same by a row for writing, or in the row of a head that is not the embedding."""
    arch = CausalLMConfig.tiny().arch | {"tie_word_embeddings": False}
    config = ModelConfig(backbone=CausalLMConfig(arch=arch, tokenizer="bytes"), template="plain", written=() if folded else (-1,))
    torch.manual_seed(0)
    model = Model(*build_pretrained(config))
    torch.manual_seed(3)
    row_D = torch.randn(config.backbone.d_model) * 0.08
    weight = model.network.state_dict()["backbone.lm.lm_head.weight"][-1] if folded else model.network.state_dict()["written.weight"][0]
    weight += row_D
    model.processor.stop_ids.clear()
    return model


def streamed(pieces: Generator[str, None, list[int]]) -> list[int]:
    try:
        while True:
            next(pieces)
    except StopIteration as end:
        return end.value


@pytest.mark.parametrize("plain_steps", [False, True])
def test_answers_are_those_of_a_head_that_has_the_row(plain_steps: bool) -> None:
    """Alone, in batches, by fused steps and the LLM's own, by a search, by chance and streamed; on a GPU, too."""
    ours, theirs = alike(folded=False), alike(folded=True)
    assert plain_steps or ours.engine._fast is not None
    if plain_steps:
        ours.engine._fast = None
    ways = (None, Sampling(repetition_penalty=1.3), Sampling(beams=2), Sampling(temperature=1.0, top_k=9, seed=5))
    wanted = [written(theirs, sampling) for sampling in ways]
    last = ours.network.config.backbone.vocab_size - 1
    count = sum(answer.count(last) for answer in wanted[1])
    assert 0 < count < 4 * len(QUESTIONS)
    assert [written(ours, sampling) for sampling in ways] == wanted
    assert written(ours, alone=True) == wanted[0]
    prompt = ours.processor.prompt(parse_sample({"messages": [{"role": "user", "content": QUESTIONS[0]}]}).messages)
    stream = ours.engine.stream(prompt, max_tokens=4)
    assert streamed(stream) == wanted[0][0]
    move_to_gpu(ours.network)
    with PretendGpu():
        assert written(ours) == wanted[0]


def test_it_is_saved_started_from_and_stored_in_eight_bits(tmp_path: Path) -> None:
    model = liked(built(tied=True, written=True))
    network = model.network
    assert network.written is not None
    assert "written" in part_names(network)
    assert "written.weight" in own_names(network)
    save_model(network, model.tokenizer, tmp_path / "m", learnt=set())
    assert torch.equal(load(tmp_path / "m", "cpu").network.state_dict()["written.weight"], network.written.weight)
    recast(tmp_path / "m", tmp_path / "small", "q8_0")
    near = load(tmp_path / "small", "cpu").network.state_dict()["written.weight"]
    torch.testing.assert_close(near, network.written.weight.detach(), atol=0.02, rtol=0)
    again = built(tied=True, written=True).network
    started = start_from(again, tmp_path / "m")
    assert torch.equal(again.state_dict()["written.weight"], network.written.weight)
    assert "written" not in started.new
    # From a model that has none, it begins as nothing.
    save_model(built(tied=True).network, model.tokenizer, tmp_path / "none", learnt=set())
    fresh = built(tied=True, written=True).network
    assert start_from(fresh, tmp_path / "none").new == ["written"]
    assert not bool(fresh.state_dict()["written.weight"].any())


@pytest.mark.parametrize(("tokens", "rows", "new"), [((7, 5), [2, 1], False), ((9, 5), [0, 1], False), ((7,), [2], False), ((9, 11), [0, 0], True)])
def test_a_row_goes_to_the_word_that_it_is_of(tokens: tuple[int, ...], rows: list[float], new: bool, tmp_path: Path) -> None:
    def of(words: tuple[int, ...]) -> Model:
        return Model(*build_pretrained(ModelConfig(backbone=CausalLMConfig.tiny(), template="plain", written=words)))

    saved = of((5, 7 - CausalLMConfig.tiny().vocab_size))
    own = saved.network.state_dict()["written.weight"]
    own += torch.tensor([[1.0], [2.0]])
    save_model(saved.network, saved.tokenizer, tmp_path / "m", learnt=set())
    mine = of(tokens).network
    assert ("written" in start_from(mine, tmp_path / "m").new) == new
    assert mine.state_dict()["written.weight"].mean(dim=1).tolist() == rows


@pytest.mark.parametrize("export", [lambda folder, out: export_hf(folder, out, "llava"), export_gguf])
def test_layouts_of_others_have_no_place_for_it(export: Any, tmp_path: Path) -> None:
    model = plain(CausalLMConfig.tiny().arch | {"vocab_size": 263 + len(SIGNALS)})
    save_model(model.network, model.tokenizer, tmp_path / "m", learnt=set())
    with pytest.raises(ConfigError, match="rows of their own"):
        export(tmp_path / "m", tmp_path / "out")


def test_tokens_that_cannot_have_one_are_refused() -> None:
    tiny = CausalLMConfig.tiny()
    for tokens in ((512,), (-513,), (3, 3), (511, -1)):
        with pytest.raises(ConfigError, match=r"rows for writing of tokens .* vocabulary of 512"):
            build_pretrained(ModelConfig(backbone=tiny, template="plain", written=tokens))
    with pytest.raises(ConfigError, match="writes no text"):
        check_written((1,), TextTowerConfig.tiny())
