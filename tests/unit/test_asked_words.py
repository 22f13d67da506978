"""Words of a question: where they come from, which thing each is told of, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorium.api import Model
from sensorium.core.errors import ConfigError
from sensorium.core.sample import Message, Part, Sample
from sensorium.core.spelling import WORD_END
from sensorium.interop.assemble import build_pretrained
from sensorium.model.asked_words import heard, words_of
from sensorium.model.config import LaneConfig
from sensorium.model.lookup import UNUSED, VocabularyLookup
from sensorium.model.places import MARKS, STEPS, Places, PlacesConfig
from sensorium.processing.collate import collate
from sensorium.processing.question import asked_words
from sensorium.processing.split import rows_of
from sensorium.recipes import RECIPES
from sensorium.text.telling import telling_words
from tests.unit.test_glance import BLUE, RED, glance_at, two_things

PIECES_CK = torch.tensor([[5, UNUSED], [6, 7], [8, UNUSED]])
# Two things of one picture, one of another.
CHANCES_NC = torch.tensor([[0.9, 0.06, 0.04], [0.7, 0.2, 0.1], [0.3, 0.3, 0.4]])


def text(*words: Sequence[int]) -> tuple[int, ...]:
    return tuple(i for word in words for i in (*word, WORD_END))


def test_a_word_is_told_of_the_thing_that_it_fits_best_of_all_if_it_does() -> None:
    found = heard(CHANCES_NC, [0, 0, 1], [text([6, 7], [5]), text([8])], PIECES_CK, 0.25)
    assert found == [[0], [1], [2]]
    # It is not probable enough beside the thing's best word (0.2 beside 0.7), is spelt otherwise, or nobody knows it.
    assert heard(CHANCES_NC, [0, 0, 1], [text([6, 7]), ()], PIECES_CK, 0.3) == [[], [], []]
    assert heard(CHANCES_NC, [0, 0, 1], [text([6], [7], [99], [5, 6]), ()], PIECES_CK, 0.01) == [[], [], []]
    # Candidates lose their end where there is no room for it, and so do words.
    assert heard(CHANCES_NC, [0, 0, 1], [text([6, 7, 9]), ()], PIECES_CK, 0.1) == [[], [1], []]
    assert heard(CHANCES_NC, [0, 0, 1], (), PIECES_CK, 0.1) == [[], [], []]
    assert heard(CHANCES_NC[:0], [], [text([5])], PIECES_CK, 0.1) == []


def test_words_end_where_they_say() -> None:
    assert words_of(text([6, 7], [5])) == [(6, 7), (5,)]
    assert words_of(()) == []


def test_asked_words_stand_in_front_and_take_no_more_room() -> None:
    places, cells, lookup, embedding_VD, pixels_2CHW = two_things()
    glance = glance_at(pixels_2CHW)

    def told(asked: float, *texts: tuple[int, ...], words: int = 1) -> list[list[int]]:
        places.config = places.config.model_copy(update={"asked": asked, "words": words})
        rows = places.told(cells, lookup, embedding_VD, glance, texts).tolist()
        return [[i for i in row if i >= RED] for row in rows]

    assert told(0.0, text([11]), ()) == [[RED, BLUE], []]
    # Green fits neither, but one of them best; it is told in the place of that one's own word.
    assert told(0.001, text([11]), ()) in ([[11, BLUE], []], [[RED, 11], []])
    assert told(0.001, text([BLUE]), ()) == [[RED, BLUE], []]
    assert told(0.001, (), text([11])) == [[RED, BLUE], []]
    assert told(0.9, text([11]), ()) == [[RED, BLUE], []]
    # More words than a thing has room for are told all the same: they were asked for.
    both = told(0.001, text([11], [RED]), ())
    assert sorted(both[0]) in ([RED, 11, BLUE], [RED, 11])
    front = told(0.001, text([11]), (), words=3)[0]
    assert 11 in (front[0], front[3])


def user(said: str) -> Message:
    return Message("user", (Part("text", said),))


def test_words_are_those_that_the_user_says() -> None:
    assert telling_words("Where is the Polar bear, the bear's cub?") == ["where", "polar", "bear", "s", "cub"]
    tokenizer: Any = RECIPES.find("tiny")().model and build_pretrained(RECIPES.find("tiny")().model)[1]
    turns = (user("a cat?"), Message("assistant", (Part("text", "no, a dog"),)), user("the owl?"))
    ids = asked_words(Sample(turns), tokenizer)
    spoken = [tokenizer.decode(list(word)).strip() for word in words_of(ids)]
    assert spoken == ["cat", "owl"]
    assert asked_words(Sample(turns, separate_turns=True), tokenizer) == ()
    assert asked_words(Sample((user("of the"),)), tokenizer) == ()


@pytest.fixture(scope="module")
def model() -> Model:
    """tiny that finds things anywhere and looks for the words of questions."""
    torch.manual_seed(0)
    settings = ("model.lanes.image.places={room: 24, hidden: 8, floor: 0.0, things: 1, scale: 1.0, asked: 0.000001}",
                "model.lanes.image.lookup={words: 8, pieces: 4}", "model.boxes=minigpt_v2")  # fmt: skip
    network, tokenizer = build_pretrained(RECIPES.find("tiny")().override(settings).model)
    places, lookup = cast(Places, network.places["image"]), cast(VocabularyLookup, network.lookups["image"])
    places.choose([tokenizer.encode(one)[:4] for one in [*map(str, range(STEPS + 1)), *MARKS]])
    words = [words_of(asked_words(Sample((user(word),)), tokenizer))[0][:4] for word in ("cat", "dog", "owl")]
    lookup.choose(torch.tensor([[*word, *[UNUSED] * (4 - len(word))] for word in words]))
    return Model(network, tokenizer)


def prompt(model: Model, said: str, *, seed: int = 1) -> Any:
    side = model.network.config.lanes["image"].encoder.preprocess().size_px
    picture = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    parts = (Part("image", picture), Part("text", said))
    return model.processor.encode(Sample((Message("user", parts),)), answer_next=True)


def features(model: Model, *rows: Sequence[Any]) -> Tensor:
    return model.network.features(collate(rows, 0).media)["image"].values_ND


@torch.no_grad()
def test_what_is_told_hangs_on_the_question_and_on_no_other_row(model: Model) -> None:
    examples = [prompt(model, "the cat?"), prompt(model, "the owl?"), prompt(model, "what is it?")]
    single = [features(model, [one]) for one in examples]
    assert not torch.equal(single[0], single[1])
    # Alike where nothing is asked for that has a word.
    assert torch.equal(single[2], features(model, [prompt(model, "why?")]))
    together = torch.cat(single)
    torch.testing.assert_close(features(model, *[[one] for one in examples]), together)
    torch.testing.assert_close(features(model, examples), together)
    last = rows_of(collate([[one] for one in examples], 0), 1, 3)
    torch.testing.assert_close(model.network.features(last.media)["image"].values_ND, torch.cat(single[1:]))


@torch.no_grad()
def test_separate_turns_share_what_is_told(model: Model) -> None:
    turns = [one for said in ("the cat?", "the owl?") for one in (user(said), Message("assistant", (Part("text", "here"),)))]
    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    first = Message("user", (Part("image", picture), Part("text", "the cat?")))
    example = model.processor.encode(Sample((first, *turns[1:]), separate_turns=True))
    assert example.media["image"].texts == ((),)
    assert max(example.branches) == 2
    features(model, [example])


def test_a_projector_that_reads_and_a_lane_that_does_are_refused() -> None:
    lane = RECIPES.find("instructblip")().model.lanes["image"].to_dict()
    both = {**lane, "lookup": {"words": 8}, "places": {"asked": 0.1}}
    with pytest.raises(ConfigError, match=r"places\.asked with projector"):
        LaneConfig.from_dict(both)
    assert PlacesConfig.from_dict({"room": 96}).asked == 0
