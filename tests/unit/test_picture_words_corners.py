"""Pictures as tokens where other things meet them: streams, searches, requests, rankings, several processes, other losses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_picture_words import ASK, FIRST, config, frame_of, lively, picture, sample

from sensorium.api import Model
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.core.hands import Making
from sensorium.core.picture_words import CODES
from sensorium.core.responder import Request, without_media
from sensorium.core.sample import Sample, parse_messages
from sensorium.core.weights import FolderSource
from sensorium.evaluation.benchmarks.drawing import DrawingBenchmark, picture_of
from sensorium.experts.responder import Told
from sensorium.generators.seed import SeedConfig
from sensorium.inference.ranking import Ranker
from sensorium.inference.sampling import Sampling
from sensorium.interop.assemble import build_pretrained
from sensorium.media.limits import ImageLimits
from sensorium.model.learning import part_names
from sensorium.model.picture_words import PictureWordsConfig
from sensorium.processing.collate import collate
from sensorium.processing.picture_words import WordFrames
from sensorium.training.config import Recipe
from sensorium.training.distributed.lockstep import Lockstep
from sensorium.training.objectives.next_token import next_token_losses, token_losses


@pytest.fixture(scope="module", params=[True, False], ids=["shared", "tables"])
def model(request: pytest.FixtureRequest) -> Model:
    return lively(shared=request.param)


@pytest.fixture
def says(model: Model, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whatever is asked, the model says `k`, opens a picture, and goes on with `k`."""
    artist: Any = model.engine.artist
    letter = model.tokenizer.encode("k")[0]
    said: list[int] = []
    shape = model.network.config.backbone.vocab_size

    def scripted(logits_BV: torch.Tensor) -> torch.Tensor:
        return torch.full((len(logits_BV), shape), -1.0).index_fill(-1, torch.tensor([said.pop(0)]), 1.0)

    monkeypatch.setattr(artist, "text_alone", scripted)

    def begin() -> None:
        said[:] = [letter, artist.opening, *[letter] * 99]

    return begin


def test_a_stream_goes_on_behind_a_picture(model: Model, says: Any) -> None:
    room = len(frame_of(model)) + 3
    says()
    whole = model.respond(ASK, max_tokens=room)
    says()
    assert list(model.respond(ASK, max_tokens=room, stream=True)) == ["k", "kk"]
    assert whole == "kkk"
    # One without room is told of by nobody.
    says()
    assert list(model.respond(ASK, max_tokens=room - 3, stream=True)) == ["k"]


def test_the_seed_of_a_request_is_that_of_its_pictures(model: Model, says: Any) -> None:
    drawn: list[bytes] = []
    for seed in (0, 1, 1):
        says()
        (got,) = model.engine.respond([Request("a", parse_messages(ASK), len(frame_of(model)) + 2, seed=seed)])
        drawn.append(picture_of(got).tobytes())  # pyright: ignore[reportOptionalMemberAccess]
    assert drawn[0] != drawn[1] == drawn[2]


def test_requests_of_the_drawing_benchmark_are_drawn(model: Model) -> None:
    """Their few tokens are for models whose pictures take few."""
    requests = [item.request for item in DrawingBenchmark(count=2).items()]
    assert without_media(requests[0]).draws
    answers = list(model.engine.respond([*requests, Request("text", parse_messages(ASK), 2)]))
    assert [picture_of(answer) is not None for answer in answers] == [True, True, False]
    assert answers[0].tokens >= len(frame_of(model))


def test_who_is_told_of_pictures_is_asked_the_same() -> None:
    asked: list[Request] = []

    class Inner:
        def respond(self, requests: Any) -> Any:
            asked.extend(requests)
            return iter(())

    panel: Any = SimpleNamespace(told=lambda messages, root: messages)
    request = Request("a", parse_messages(ASK), 9, Path("/"), ("cat", "dog"), (b"",), seed=3, draws=True)
    assert not list(Told(Inner(), panel).respond([request]))
    assert asked == [Request("a", request.messages, 9, None, ("cat", "dog"), (), seed=3, draws=True)]


def test_a_search_draws_nothing(model: Model) -> None:
    with pytest.raises(ConfigError, match="a search with 2 beams"):
        model.answer(ASK, max_tokens=99, sampling=Sampling(beams=2), making=Making(draw=True))


def test_choices_about_a_picture_are_ranked(model: Model) -> None:
    """By hand: the likelihood of the words that would be learned."""
    asked = [{"role": "user", "content": [{"type": "image", "image": picture(9)}, {"type": "text", "text": "What?"}]}]
    found = Ranker(model.engine).rank(model.processor.prompt(parse_messages(asked)), ("cat", "dog"))
    for place, score in zip(found.places, found.scores, strict=True):
        out = model.logits([*asked, {"role": "assistant", "content": ("cat", "dog")[place]}])
        logs_TV = out.logits_TV.log_softmax(-1)
        by_hand = sum(float(logs_TV[i - 1, out.token_ids[i]]) for i, learn in enumerate(out.learn) if learn)
        assert score == pytest.approx(by_hand, rel=1e-4)


def test_places_for_codes_are_no_targets_of_any_objective(model: Model) -> None:
    """Objectives that run the model themselves hand over a batch that nobody has read."""
    network, batch = model.network, collate([[model.processor.encode(sample())]], model.tokenizer.pad_id)
    with torch.no_grad():
        told = token_losses(network, batch, network(batch).hidden_BTD)
        assert float(told.total) == pytest.approx(float(next_token_losses(network, batch).total), rel=1e-5)


def test_processes_that_divide_a_model_are_lent_no_codes(model: Model) -> None:
    processor, told = model.processor, []
    closing = Sample(parse_messages([*ASK, {"role": "assistant", "content": "."}]))
    loader: Any = SimpleNamespace(processor=processor, nothing=lambda: processor.encode(closing))

    class Two:
        """The other one's rows hold what these do not."""

        def gather(self, value: Any) -> list[Any]:
            told.append(value["lanes"])
            return [value, {"lanes": [["image"] if "image" in model.network.config.lanes else []], "error": None}]

    pace = Lockstep(Two(), loader, model.network.device, model.network.config.takes)  # pyright: ignore[reportArgumentType]
    batch = collate([[processor.encode(sample())]], model.tokenizer.pad_id)
    _, (part,) = pace.drawn(lambda: (SimpleNamespace(), [batch]))  # pyright: ignore[reportArgumentType]
    # What others hear of is what they could be lent.
    assert told == [[[]]]
    assert set(part.media) == {CODES, *model.network.config.lanes}
    read = model.network.read(part)
    assert len(model.processor.frames.written(read.input_ids_BT[0].tolist())) == 1  # pyright: ignore[reportOptionalMemberAccess]


def test_the_size_of_a_picture_whose_codes_lie_on_no_map(model: Model) -> None:
    seed = SeedConfig.tiny()
    told = PictureWordsConfig(tokenizer=seed, words=((FIRST, seed.codes),), begin=("<pic>",), end=("</pic>",))
    frames = WordFrames(told, model.tokenizer, FIRST + seed.codes, ImageLimits())
    assert frames.sized((64, 64)) == frames.sized(None)
    assert frames.sized(None).grid.tokens == 4
    with pytest.raises(ConfigError, match="64x64"):
        frames.sized((128, 128))


def test_what_draws_a_picture_of_seeds_codes_is_looked_for_where_its_weights_are_said_to_be(tmp_path: Path) -> None:
    seed = SeedConfig.tiny()
    seed = seed.model_copy(update={"generator": seed.generator.model_copy(update={"weights": (FolderSource(path=str(tmp_path / "none")),)})})
    with pytest.raises(WeightsError, match="no folder of unCLIP's weights"):
        _ = seed.build().unclip
    shared = config(shared=True)
    told = PictureWordsConfig(tokenizer=seed, words=((FIRST, seed.codes),), begin=("<pic>",), end=("</pic>",))
    arch = shared.backbone.to_dict()["arch"] | {"vocab_size": FIRST + seed.codes}
    backbone = shared.backbone.model_copy(update={"arch": arch})
    network, _ = build_pretrained(shared.model_copy(update={"picture_words": told, "backbone": backbone}))
    with pytest.raises(WeightsError, match="no source of weights can be reached"):
        _ = network.picture_tokenizer.unclip


def test_a_picture_tokenizer_learns_nothing_beside_the_llm(model: Model) -> None:
    """Nothing of it has a gradient, so a stage that names it is refused."""
    stage = {"name": "one", "objective": {"kind": "instruct"}, "learns": [{"part": "picture_tokenizer", "lr": 0.1}], "data": [{"kind": "picture_book"}], "steps": 1}
    with pytest.raises(ConfigError, match="sensorium tokenizer train"):
        Recipe.from_dict({"name": "r", "model": model.network.config.to_dict(), "stages": [stage]})
    network = model.network
    next_token_losses(network, collate([[model.processor.encode(sample())]], model.tokenizer.pad_id)).total.backward()
    assert all(parameter.grad is None for parameter in network.picture_tokenizer.parameters())
    network.zero_grad(set_to_none=True)
    assert ("code_tables" in part_names(model.network)) == (model.network.code_tables is not None)
    assert "picture_tokenizer" not in part_names(model.network)


def test_only_the_size_is_written_into_a_marker(model: Model) -> None:
    told = model.network.config.picture_words
    assert told is not None
    begin = ("<pic>", "{h}x{w} {other} {h.real}")
    frames = WordFrames(told.model_copy(update={"begin": begin}), model.tokenizer, FIRST + told.tokenizer.codes, ImageLimits())
    assert model.tokenizer.decode(frames.frame().before[1:]) == f"{frames.grid.h}x{frames.grid.w} {{other}} {{h.real}}"
