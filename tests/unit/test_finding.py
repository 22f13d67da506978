"""Pictures that are found by their descriptions: sources, objective, answers, benchmark, the baseline of colours."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image

from sensorium.api import Model
from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.cli.evaluating import print_table, summary
from sensorium.core.errors import ConfigError
from sensorium.core.responder import Answer, Constant, Request
from sensorium.core.sample import Message, Part, parse_sample
from sensorium.data.sought import (
    SoughtSource,
    asking,
    composite_maker,
    sought_in_book,
    sought_scene,
)
from sensorium.encoders import ENCODERS
from sensorium.evaluation.benchmarks import finding
from sensorium.evaluation.benchmarks.finding import FindingBenchmark, _chance
from sensorium.evaluation.colours import Colours, Described, named_shares, ranked_by_names
from sensorium.evaluation.metrics.interval import wilson
from sensorium.evaluation.runner import run_benchmark
from sensorium.generators import GENERATORS
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.input_projectors.avg_pool import AvgPoolConfig
from sensorium.interop.assemble import build_pretrained
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.finding import finding_way
from sensorium.model.hand import HandConfig
from sensorium.model.learning import Learn, set_learning
from sensorium.output_projectors.retrieval import RetrievalConfig
from sensorium.processing.collate import collate
from sensorium.training.objectives.seek import SeekConfig

SIGNAL = "[RET]"
INKS = {"red": (210, 30, 30), "green": (30, 160, 40), "blue": (30, 40, 210), "yellow": (230, 220, 30)}


def config() -> ModelConfig:
    backbone = CausalLMConfig.tiny()
    backbone = backbone.model_copy(update={"arch": backbone.arch | {"vocab_size": 264}, "added_tokens": (SIGNAL,)})
    encoder = ENCODERS.find("clip").tiny()
    hand = HandConfig(signals=(SIGNAL,), projector=RetrievalConfig(image_width=encoder.out_dim), generator=GENERATORS.find("retrieval_index").tiny())
    lane = LaneConfig(encoder=encoder, projector=INPUT_PROJECTORS.find("mlp").tiny())
    return ModelConfig(lanes={"image": lane}, backbone=backbone, hands={"image": hand}, template="plain")


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model(*build_pretrained(config()))


def square(colour: str) -> Image.Image:
    return Image.new("RGB", (40, 40), INKS[colour])


def requests(model: Model, *colours: str) -> Any:
    rows = [parse_sample({"messages": [
        {"role": "user", "content": f"find a {colour} square"},
        {"role": "assistant", "content": [{"type": "image", "image": square(colour)}]}]}) for colour in colours]  # fmt: skip
    return collate([[model.processor.encode(row)] for row in rows], model.tokenizer.pad_id)


def test_what_is_sought_is_the_same_every_time_and_described_in_full() -> None:
    scene, again = sought_scene(5, 3), sought_scene(5, 3)
    assert scene.picture() == again.picture()
    assert (scene.text, scene.meaning) == (again.text, again.meaning)
    pasted = composite_maker(("shipped",), "heldout")(7, 1)
    assert all(name in pasted.text for name in pasted.meaning.split(" + "))
    (frog, *_) = [one for one in sought_in_book("shipped", "train") if one.text == "a frog"]
    assert (frog.meaning, "frog" in frog.true) == ("frog", True)
    for which in ("book", "scenes", "composites"):
        source = SoughtSource(pictures=which, parts=("shipped",), count=2).open()
        (asked, found) = source[len(source) - 1].messages
        assert [part.type for part in found.content] == ["image"]
        assert asked.text == source[len(source) - 1].messages[0].text
    assert asking("a frog") == asking("a frog")


def test_a_head_learns_to_find_and_the_llm_runs_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch = model.network, requests(model, *INKS)
    groups = set_learning(network, (Learn(part="hands.image", lr=1e-2),))
    before = {n: p.clone() for n, p in network.named_parameters() if not p.requires_grad}
    objective = SeekConfig(text_weight=0.0).build(network, model.processor, [])
    whole = SeekConfig().build(network, model.processor, [])
    # States that are kept are those of a pass over whole rows.
    assert whole(network, batch).parts["contrast"] == pytest.approx(objective(network, batch).parts["contrast"], abs=1e-5)
    runs: list[int] = []
    plain = network.forward
    monkeypatch.setattr(network, "forward", lambda b: (runs.append(1), plain(b))[1])
    optimiser = torch.optim.Adam([p for _, pairs in groups for _, p in pairs], lr=1e-2)
    losses: list[float] = []
    for _ in range(60):
        made = objective(network, batch)
        optimiser.zero_grad()
        (made.total / made.count).backward()
        optimiser.step()
        losses.append(made.parts["contrast"])
    assert not runs
    assert losses[-1] < 0.2 * losses[0]
    assert all(torch.equal(p, before[n]) for n, p in network.named_parameters() if n in before)
    # A row that learns changes every state: nothing may be kept.
    network.backbone.embedding.weight.requires_grad_(True)
    objective(network, batch)
    assert runs == [1]
    # Answering reads what training taught.
    network.requires_grad_(False)
    pictures = tuple(square(colour) for colour in INKS)
    asked = [Request(c, (Message("user", (Part("text", f"find a {c} square"),)),), 0, pictures=pictures) for c in INKS]
    answers = list(model.responder.respond(asked))
    assert [answer.text.split()[0] for answer in answers] == ["0", "1", "2", "3"]
    assert all(sorted(answer.text.split()) == ["0", "1", "2", "3"] for answer in answers)
    (nothing,) = model.responder.respond([replace(asked[0], pictures=())])
    assert (nothing.text, nothing.tokens) == ("", 0)


def test_what_was_kept_before_the_stage_is_forgotten(model: Model) -> None:
    network, batch = model.network, requests(model, *INKS)
    set_learning(network, (Learn(part="hands.image", lr=1e-2),))
    tried: Any = SeekConfig(text_weight=0.0).build(network, model.processor, [])
    tried(network, batch)
    with torch.no_grad():  # An earlier stage teaches the encoder.
        for parameter in network.encoders.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    tried.begin(network)
    fresh = SeekConfig(text_weight=0.0).build(network, model.processor, [])
    assert tried(network, batch).parts["contrast"] == pytest.approx(fresh(network, batch).parts["contrast"], abs=1e-5)


def test_pictures_may_be_compared_by_what_the_projector_sums_up() -> None:
    torch.manual_seed(0)
    plain = config()
    projector = AvgPoolConfig(side=2, summary=True)
    lane = plain.lanes["image"].model_copy(update={"projector": projector})
    head = RetrievalConfig(image_width=plain.backbone.d_model, summary=True)
    hands = {"image": plain.hands["image"].model_copy(update={"projector": head})}
    network = Model(*build_pretrained(plain.model_copy(update={"lanes": {"image": lane}, "hands": hands}))).network
    model = Model(network, Model(*build_pretrained(plain)).processor.tokenizer)
    batch = requests(model, *INKS)
    set_learning(network, (Learn(part="hands.image", lr=1e-2),))
    objective: Any = SeekConfig(text_weight=0.0).build(network, model.processor, [])
    before = objective(network, batch).parts["contrast"]
    with torch.no_grad():
        cast(Any, network.projectors["image"]).summary.weight.add_(torch.randn(network.config.backbone.d_model, 1))
    # Kept from before, since a projector that does not learn cannot change; a new stage looks again.
    assert objective(network, batch).parts["contrast"] == before
    objective.begin(network)
    assert objective(network, batch).parts["contrast"] != pytest.approx(before, abs=1e-6)
    wrong = {"image": hands["image"].model_copy(update={"projector": head.model_copy(update={"image_width": 7})})}
    with pytest.raises(ConfigError, match=r"image_width 7 for a projector of width 48"):
        finding_way(Model(*build_pretrained(plain.model_copy(update={"lanes": {"image": lane}, "hands": wrong}))).network)
    with pytest.raises(ConfigError, match="sums no pictures up"):
        finding_way(Model(*build_pretrained(plain.model_copy(update={"hands": hands}))).network)


def test_requests_that_say_the_same_are_right_for_each_other(model: Model) -> None:
    set_learning(model.network, (Learn(part="hands.image", lr=1e-2),))
    objective = SeekConfig(text_weight=0.0).build(model.network, model.processor, [])
    twins = objective(model.network, requests(model, "red", "red"))
    # Two equal requests with two equal pictures: nothing can be told apart, and nothing is wrong.
    assert twins.parts["found"] == 1.0
    assert twins.parts["contrast"] == pytest.approx(float(torch.log(torch.tensor(2.0))), abs=1e-5)


def test_a_model_that_cannot_find_says_so() -> None:
    blind = Model(*build_pretrained(config().model_copy(update={"hands": {}})))
    with pytest.raises(ConfigError, match=r"finds no pictures.*retrieval"):
        SeekConfig().build(blind.network, blind.processor, [])
    asked = Request("1", (Message("user", (Part("text", "a cat"),)),), 0, pictures=(square("red"),))
    with pytest.raises(ConfigError, match="cannot find pictures"):
        list(blind.responder.respond([asked]))


def test_the_benchmark_counts_any_right_picture_and_knows_chance(data_home: Path) -> None:
    benchmark = FindingBenchmark(part="shipped", count=40, colours=False)
    items = benchmark.items()
    assert {tag for item in items for tag in item.tags} == {"book", "scenes", "composites"}
    assert sum(item.tags == ("scenes",) for item in items) == 6
    last = [Answer(item.request.id, " ".join(["39", "38", item.gold[-1]])) for item in items]
    scores = benchmark.scores(items, last)
    assert scores["recall_5"] == 1.0
    assert scores["own_recall_5"] < 1.0 or not scores["several_right"]
    assert scores["recall_1"] < 0.2
    assert scores["recall_10_from"] < scores["recall_10"] <= scores["recall_10_to"] + 1e-9
    assert benchmark.right(items[0], Answer("", "7 8 9 1 2 3 4 5 6 10 0")) == bool(set(items[0].gold) & set("789123456"))
    draws = list(itertools.combinations(range(7), 3))
    assert _chance(7, 2, 3) == pytest.approx(sum(bool({0, 1} & set(draw)) for draw in draws) / len(draws))


def test_a_limit_leaves_the_gallery_whole(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the pictures would be found ten times as often by chance."""
    whole, few = (FindingBenchmark(part="shipped", count=40, limit=limit, colours=False) for limit in (None, 5))
    asked = {item.request.id: item for item in whole.items()}
    items = few.items()
    assert len(items) == 5
    assert all(item.gold == asked[item.request.id].gold for item in items)
    assert {len(item.request.pictures) for item in items} == {len(few.gallery)} == {40}
    assert len({id(item.request.pictures) for item in items}) == 1
    scores = few.scores(items, [Answer(item.request.id, "") for item in items])
    assert scores["chance_recall_10"] == pytest.approx(sum(_chance(40, len(item.gold), 10) for item in items) / 5)
    # Whoever is beside the model answers all of the gallery's questions; of each that is asked, its own answer counts.
    right = tuple(Answer("", asked.gold[0]) for asked in whole.items())
    monkeypatch.setattr(finding, "_by_colours", lambda *_: right)
    scores = few.model_copy(update={"colours": True}).scores(items, [Answer(item.request.id, "") for item in items])
    assert scores["colours_recall_1"] == 1.0


def test_colours_find_what_colours_tell() -> None:
    known = [Described(square(colour), f"a {colour} square") for colour in INKS for _ in range(5)]
    gallery = [Described(square(colour), f"a {colour} square") for colour in reversed(INKS)]
    assert [row[0] for row in Colours.learnt(known).ranked(gallery, 2)] == [0, 1, 2, 3]


def test_names_of_colours_find_without_learning(data_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    two = square("red")
    two.paste(square("blue").crop((0, 0, 20, 40)))
    lit = Image.new("RGB", (40, 40), "white")
    lit.paste(square("green").crop((0, 0, 8, 8)))
    texts = ("a red and a blue square", "a red square", "something blue", "on white, a small green square", "a thing")
    gallery = [Described(shown, said) for shown, said in zip((two, square("red"), square("blue"), lit, lit), texts, strict=True)]
    ranked = ranked_by_names(gallery, 3)
    assert [row[0] for row in ranked] == [0, 1, 2, 3, 0]
    # The one without a colour's name fits all alike; others with one of two come behind the one with both.
    assert (ranked[0], ranked[4]) == ([0, 1, 2], [0, 1, 2])
    assert named_shares(gallery[:1])[0].tolist() == [0.5, 0, 0.5, *[0] * 7]
    assert named_shares(gallery[3:4])[0].sum() == pytest.approx(0.04)

    benchmark = FindingBenchmark(part="shipped", count=40, limit=20)
    monkeypatch.setattr(finding, "_by_colours", lambda *_: (Answer("", ""),) * 40)
    result = run_benchmark(benchmark, Constant("0"))
    scores = result.scores["model"]
    assert scores["colour_words_recall_10"] > 1.5 * scores["chance_recall_10"]
    assert scores["colour_words_recall_1"] <= scores["colour_words_recall_5"] <= scores["colour_words_recall_10"]
    for name in ("colour_words_recall_10", "chance_recall_1", "colours_recall_5", "recall_10"):
        interval = (scores[f"{name}_from"], scores[f"{name}_to"])
        assert interval == pytest.approx(wilson(scores[name] * 20, 20)), name
        assert interval[0] <= scores[name] < interval[1], name
    assert scores["colours_recall_1"] == 0 < scores["colours_recall_1_to"]
    print_table(summary("m", [result]))
    shown = " / ".join(f"{scores[f'colour_words_recall_{first}']:.1%}" for first in (1, 5, 10))
    low, high = scores["colour_words_recall_10_from"], scores["colour_words_recall_10_to"]
    assert f"colour words alone  {shown}  (the last {low:.1%} - {high:.1%})" in capsys.readouterr().out
