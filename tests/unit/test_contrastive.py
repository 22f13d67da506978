"""Losses of pairs, the objective over them, and what a dual encoder refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from sensorium.api import Model, load
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.responder import Constant, Request, without_media
from sensorium.core.sample import Message, Part, parse_sample
from sensorium.evaluation.benchmarks.category import Category
from sensorium.evaluation.runner import run_benchmark
from sensorium.inference.joint_space import NameRanker
from sensorium.interop.assemble import build_pretrained, completed
from sensorium.interop.saved import save_model
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.contrastive import (
    enqueue,
    hard_negatives,
    sigmoid_contrast,
    soft_targets,
    softmax_contrast,
    with_queue,
)
from sensorium.processing.collate import collate
from sensorium.recipes import TINY_FORMS
from sensorium.text.byte_tokenizer import byte_tokenizer
from sensorium.training.objectives.contrastive import ContrastiveConfig
from sensorium.training.objectives.matching import MatchingConfig


def test_softmax_counts_others_as_wrong() -> None:
    scores = torch.tensor([[2.0, 0.0, 1.0], [1.0, 3.0, 0.0]])
    by_hand = [-math.log(math.exp(row[i]) / sum(map(math.exp, row))) for i, row in enumerate(scores.tolist())]
    loss = softmax_contrast(scores, scores)
    assert float(loss) == pytest.approx(sum(by_hand) / 2)
    own = scores[:, :2]
    assert float(softmax_contrast(own, own)) < float(loss)


def test_smoothing_and_soft_targets() -> None:
    torch.manual_seed(1)
    scores, slow = torch.randn(4, 7), torch.randn(4, 7)
    smooth = softmax_contrast(scores, scores, smoothing=0.1)
    want = F.cross_entropy(scores, torch.arange(4), label_smoothing=0.1)
    torch.testing.assert_close(smooth, want)
    targets = soft_targets(slow, 0.4)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))
    torch.testing.assert_close(targets[0, 0], 0.6 + 0.4 * slow.softmax(dim=1)[0, 0])
    mixed = softmax_contrast(scores, scores, targets=(targets, targets))
    torch.testing.assert_close(mixed, -(targets * scores.log_softmax(dim=1)).sum(dim=1).mean())


def test_sigmoid_of_perfect_scores_is_nothing() -> None:
    eye = 40 * (2 * torch.eye(3) - 1)
    assert float(sigmoid_contrast(eye)) < 1e-6
    assert float(sigmoid_contrast(-eye)) == pytest.approx(120.0)


def test_hard_negatives_are_wrong_and_look_right() -> None:
    scores = torch.zeros(4, 4)
    scores[0, 2] = 20.0
    drawn = torch.stack([hard_negatives(scores) for _ in range(200)])
    assert not bool((drawn == torch.arange(4)).any())
    assert float((drawn[:, 0] == 2).float().mean()) > 0.95
    assert set(drawn[:, 1].tolist()) == {0, 2, 3}
    with pytest.raises(ValueError, match="at least two"):
        hard_negatives(scores[:1, :1])


def test_a_queue_forgets_the_oldest() -> None:
    queue, pointer = torch.zeros(5, 1), 0
    for start in (1, 4):
        pointer = enqueue(queue, pointer, torch.arange(start, start + 3.0)[:, None])
    assert pointer == 1
    assert queue.flatten().tolist() == [6.0, 2.0, 3.0, 4.0, 5.0]
    own = torch.ones(2, 1, requires_grad=True)
    candidates = with_queue(own, queue)
    assert candidates.flatten().tolist() == [1.0, 1.0, 6.0, 2.0, 3.0, 4.0, 5.0]


def tiny(name: str = "clip") -> tuple[MultimodalModel, Model]:
    model, tokenizer = build_pretrained(TINY_FORMS.find(name)().model)
    return model, Model(model, tokenizer)


def pair(text: str, *colors: tuple[int, int, int], **more: Any) -> Any:
    images = [{"type": "image", "image": Image.new("RGB", (40, 30), c)} for c in colors]
    return parse_sample({"messages": [{"role": "user", "content": [*images, {"type": "text", "text": "?"}]},
                                      {"role": "assistant", "content": text}], **more})  # fmt: skip


RED, BLUE = (200, 10, 10), (10, 10, 200)


def test_the_factor_never_grows_beyond_its_bound() -> None:
    model, whole = tiny()
    with torch.no_grad():
        model.fusion.logit_scale.fill_(9.0)
    objective = ContrastiveConfig().build(model, whole.processor.with_template("pair"), [])
    batch = collate([[whole.processor.encode(pair("a", RED))], [whole.processor.encode(pair("b", BLUE))]], 0)
    losses = objective(model, batch)
    assert float(model.fusion.logit_scale) == pytest.approx(math.log(100))
    assert set(losses.parts) == {"contrastive", "found"}
    assert losses.count == 2


def test_rows_that_are_no_pairs_are_named() -> None:
    model, whole = tiny()
    processor = whole.processor.with_template("pair")
    ContrastiveConfig().build(model, processor, [])
    assert processor.encode(pair("a cat", RED)).learn.count(True) == 6
    for bad in (pair("two", RED, BLUE), pair("none")):
        with pytest.raises(DataError, match="one picture and its text"):
            processor.encode(bad)
    twice = parse_sample({"separate_turns": True, "messages": [
        {"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (9, 9))}]},
        {"role": "assistant", "content": "one"}, {"role": "user", "content": "?"},
        {"role": "assistant", "content": "two"}]})  # fmt: skip
    with pytest.raises(DataError, match="separate turns"):
        whole.processor.encode(twice)


def test_what_is_asked_is_not_read() -> None:
    """The text of a pair is the answer alone, with its end."""
    _, whole = tiny()
    made = whole.processor.encode(pair("a cat", RED))
    assert made.input_ids == [*whole.tokenizer.encode("a cat"), whole.tokenizer.eos_id]
    cut = whole.processor.encode(pair("a cat", RED), max_length=4)
    assert cut.input_ids == [*whole.tokenizer.encode("a c"), whole.tokenizer.eos_id]
    assert cut.truncated_tokens == 2


def test_only_dual_encoders_compare() -> None:
    nano = Model(*build_pretrained(TINY_FORMS.find("llava-1.5")().model))
    with pytest.raises(ConfigError, match="writes text"):
        nano.similarity([Image.new("RGB", (9, 9))], ["a"])
    assert nano.responder is nano.engine
    with pytest.raises(ConfigError, match="writes text"):
        ContrastiveConfig().build(nano.network, nano.processor, [])
    model, whole = tiny()
    with pytest.raises(ConfigError, match="smoothing"):
        ContrastiveConfig(loss="sigmoid", smoothing=0.1).build(model, whole.processor, [])
    with pytest.raises(ConfigError, match="no place for a name"):
        whole.classify([Image.new("RGB", (9, 9))], ["cat"], ["a photo"])


def test_parts_that_do_not_go_together() -> None:
    good = TINY_FORMS.find("clip")().model
    with pytest.raises(ConfigError, match="fusion splice with backbone text_tower"):
        MultimodalModel(good.override(["fusion={kind: splice}"]))
    with pytest.raises(ConfigError, match="16 tokens of image"):
        MultimodalModel(good.override(["lanes.image.encoder.feature=patch"]))


def test_saved_and_loaded_it_ranks_the_same(tmp_path: Path) -> None:
    model, whole = tiny("siglip")
    save_model(model, whole.tokenizer, tmp_path / "m", learnt=set())
    again = load(tmp_path / "m", device="cpu")
    pictures = [Image.new("RGB", (20, 30), c) for c in (RED, BLUE)]
    one, two = (m.similarity(pictures, ["red", "blue"]) for m in (whole, again))
    assert torch.equal(one, two)
    # With a bias each text is judged by itself.
    assert torch.equal(whole.classify(pictures, ["red", "blue"], ["{}"]), one.sigmoid())


def test_it_answers_benchmarks_that_list_their_answers(data_home: Path) -> None:
    _, whole = tiny()
    result = run_benchmark(Category(limit=4), whole.responder)
    names = result.items[0].request.choices
    assert all(answer.text in names for answer in result.answers["model"])
    assert all(answer.text == "" for answer in result.answers["blind"])
    request = Request("x", (Message("user", (Part("image", Image.new("RGB", (9, 9))),)),))
    with pytest.raises(DataError, match="answers to choose from"):
        list(NameRanker(whole.space).respond([request]))
    chosen = Request("x", request.messages, choices=("cat",))
    assert next(iter(NameRanker(whole.space).respond([chosen]))).text == "cat"
    assert without_media(chosen).choices == ("cat",)
    assert next(iter(Constant("b").respond([chosen]))).text == "b"


def test_matching_reads_pairs_together_and_tells_wrong_ones() -> None:
    model, whole = tiny("blip-retrieval")
    processor = whole.processor.with_template("pair")
    objective = MatchingConfig().build(model, processor, [])
    rows = [[processor.encode(pair(text, color))] for text, color in (("a cat", RED), ("dog", BLUE))]
    losses = objective(model, collate(rows, 0))
    assert set(losses.parts) == {"contrastive", "matching", "found"}
    assert losses.count == 2
    total = losses.parts["contrastive"] + losses.parts["matching"]
    assert float(losses.total.detach()) / 2 == pytest.approx(total, rel=1e-5)
    with pytest.raises(DataError, match="a batch of one pair"):
        objective(model, collate(rows[:1], 0))
    with pytest.raises(ConfigError, match="several pairs in a row"):
        objective(model, collate([[row[0] for row in rows]], 0))
    pictures = [Image.new("RGB", (20, 30), c) for c in (RED, BLUE)]
    chances = whole.space.matches(pictures, ["a cat", "dog"])
    assert chances.shape == (2,)
    assert bool(((chances > 0) & (chances < 1)).all())
    with pytest.raises(DataError, match="1 texts for 2 pictures"):
        whole.space.matches(pictures, ["a cat"])


def test_each_objective_names_the_models_it_is_for() -> None:
    _, clip = tiny()
    _, blip = tiny("blip-retrieval")
    with pytest.raises(ConfigError, match="only compares vectors"):
        MatchingConfig().build(clip.network, clip.processor, [])
    with pytest.raises(ConfigError, match="reads pictures and texts together"):
        ContrastiveConfig().build(blip.network, blip.processor, [])
    with pytest.raises(ConfigError, match="does not read pictures and texts together"):
        clip.space.matches([Image.new("RGB", (9, 9))], ["a"])
    config = TINY_FORMS.find("blip-retrieval")().model
    with pytest.raises(ConfigError, match="spaces of different width"):
        MultimodalModel(config.override(["fusion.joint=8"]))
    with pytest.raises(ConfigError, match="match with cross_tower"):
        MultimodalModel(config.override(["fusion={kind: cross_attention}"]))
    with pytest.raises(ConfigError, match="cross_attention with a backbone"):
        MultimodalModel(TINY_FORMS.find("blip-caption")().model.override(["fusion={kind: splice}"]))


class Spoken:
    """Just enough of a backbone's config to complete a tokenizer."""

    def __init__(self, added: tuple[str, ...], begins_with: str | None, vocab_size: int) -> None:
        self.added_tokens, self.begins_with, self.vocab_size = added, begins_with, vocab_size


def test_marks_are_appended_once() -> None:
    tokenizer = byte_tokenizer()
    before = len(tokenizer)
    for _ in range(2):
        completed(tokenizer, Spoken(("[DEC]", "[ENC]"), "[DEC]", before + 2))  # pyright: ignore[reportArgumentType]
    assert len(tokenizer) == before + 2
    assert tokenizer.bos_id == before
    # What looks like one in a text stays text.
    assert before not in tokenizer.encode("[DEC]")
    with pytest.raises(ConfigError, match="for an embedding of"):
        completed(tokenizer, Spoken(("[DEC]",), None, before))  # pyright: ignore[reportArgumentType]
