"""Prompts left out in training: exactly those that drawing leads away from, in the share that is asked for, and of drawings alone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from test_picture_words import config, picture

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.batch import Example
from sensorium.core.errors import ConfigError
from sensorium.core.hands import Drawing
from sensorium.core.picture_words import CODES
from sensorium.core.sample import Sample, parse_sample
from sensorium.data.loader import LoadedBatch, Loader, LoaderOptions
from sensorium.data.mixture import MixtureOrder
from sensorium.inference.engine import Engine
from sensorium.inference.extending import extended
from sensorium.interop.assemble import build_pretrained
from sensorium.media.native import NativeResolution
from sensorium.model.config import ModelConfig
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.processing.unsteered import Unsteered
from sensorium.training.config import StageConfig
from sensorium.training.objectives.next_token import CaptionConfig, InstructConfig
from sensorium.training.preflight import loader_options

AWAY: dict[str, Drawing] = {
    "text": Drawing(guidance=2.0), "pads": Drawing(guidance=2.0, away="pads"),
    "pictures": Drawing(guidance=3.0, picture_guidance=1.5, away="pictures"),
}  # fmt: skip
SEEN = {"type": "image", "image": picture(9)}
TEXT = {"type": "text", "text": "a red boat"}
DRAWN = {"role": "assistant", "content": [{"type": "image", "image": picture()}]}


def shape(*, shared: bool, away: str = "text", **more: Any) -> ModelConfig:
    """Where codes are words, pictures have sizes of their own."""
    sizes: dict[str, Any] = {"resolution": NativeResolution(patch_px=4, merge=1, min_pixels=8**2, max_pixels=16**2)} if shared else {}
    return config(shared=shared, drawing=AWAY[away], **sizes, **more)


def parsed(*messages: Any, **more: Any) -> Sample:
    return parse_sample({"messages": list(messages), **more})


def asked(*front: Any) -> dict[str, Any]:
    return {"role": "user", "content": [*front, TEXT]}


def without_pixels(example: Example) -> Example:
    media = {kind: [one.plans, one.rows] for kind, one in example.media.items()}
    return replace(example, media=media)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "tables"])
@pytest.mark.parametrize("away", AWAY)
@pytest.mark.parametrize("front", [(), (SEEN,)], ids=["text", "picture"])
def test_a_prompt_left_out_is_one_that_drawing_leads_away_from(shared: bool, away: str, front: Sequence[Any]) -> None:
    """Token for token as the LLM reads them; behind it the row's own picture and end, and all of these learned."""
    # Neither the model's own template, nor that of the stage, is the one for drawing.
    model, tokenizer = build_pretrained(shape(shared=shared, away=away, template="vicuna"))
    engine = Engine(model, Processor(model.config, tokenizer))
    artist, frames = engine.artist, engine.processor.frames
    assert artist is not None
    assert frames is not None
    unsteered = Unsteered(engine.processor.with_template("caption"))
    sample = parsed(asked(*front), DRAWN)
    plain = unsteered.drawing.encode(sample)
    answer = len(plain) - plain.learn.index(True)
    prompt = artist.prompt(sample.messages[:1], None)
    (kept, *led) = artist._streams(prompt, frames.shape.drawing)  # pyright: ignore[reportPrivateUsage]
    assert kept[0].input_ids == plain.input_ids[:-answer]
    assert len(led) == (2 if away == "pictures" else 1)
    for (stream, _), pictures in zip(led, (True, False), strict=False):
        row, measured = (unsteered.row(sample, pictures=pictures, decode=decode) for decode in (True, False))
        assert row is not None
        assert measured is not None
        assert without_pixels(measured) == without_pixels(row)
        one, whole = (model.read(collate([[each]], tokenizer.pad_id)) for each in (row, plain))
        there = model.read(collate([[extended(stream, [frames.opening])]], tokenizer.pad_id)).input_ids_BT[0].tolist()
        assert one.input_ids_BT[0].tolist() == there[:-1] + whole.input_ids_BT[0, -answer:].tolist()
        assert row.learn == [False] * len(stream) + [True] * answer
        # Nothing is left of pictures that a lane would read.
        assert set(one.media) == set()


@pytest.fixture(scope="module")
def processor() -> Processor:
    made = shape(shared=True)
    _, tokenizer = build_pretrained(made)
    return Processor(made, tokenizer)


@pytest.mark.parametrize(
    "messages",
    [
        [asked(), {"role": "assistant", "content": "A boat."}],
        [asked(SEEN), {"role": "assistant", "content": "A boat."}],
        [asked(), {"role": "assistant", "content": [*DRAWN["content"], {"type": "text", "text": "There."}]}],
        [asked(), {"role": "assistant", "content": "Gladly."}, asked(), DRAWN],
        [asked(), DRAWN, asked(), {"role": "assistant", "content": "The same?"}],
    ],
    ids=["text", "of a picture", "picture and text", "text before", "text behind"],
)
def test_other_answers_keep_their_prompts(messages: Any, processor: Processor) -> None:
    assert Unsteered(processor).row(parsed(*messages), pictures=True) is None
    loader = loader_of(processor, [parsed(*messages)], unsteered=1.0)
    plain = loader_of(processor, [parsed(*messages)])
    pick = loader.order.next(loader.order.start())
    assert without_pixels(loader.examples(pick)[0]) == without_pixels(plain.examples(pick)[0])


def test_of_separate_turns_and_several_answers_nothing_is_left_out(processor: Processor) -> None:
    unsteered = Unsteered(processor)
    assert unsteered.row(parsed(asked(), DRAWN, separate_turns=True), pictures=True) is None
    assert unsteered.row(parsed(asked(), answers=["a", "b"]), pictures=True) is None


class Rows:
    """A source in memory."""

    name = "rows"

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def loader_of(processor: Processor, samples: Sequence[Sample], **options: Any) -> Loader:
    made = LoaderOptions(**{"batch_size": 2, "max_length": 96, "workers": 0, **options})
    return Loader([Rows(samples)], MixtureOrder([len(samples)], [1.0], 0), processor, made)


def test_the_share_is_that_which_is_asked_for(processor: Processor) -> None:
    """Of many draws of few rows, each row at times; another seed leaves out others."""
    samples = [parsed(asked(), DRAWN), parsed(asked(SEEN), DRAWN), parsed(asked(), {"role": "assistant", "content": "A boat."})]
    plain = [len(processor.measure(sample)) for sample in samples]
    seen: dict[int, list[tuple[int, bool]]] = {}
    for seed in (0, 1):
        loader = loader_of(processor, samples, unsteered=0.2, seed=seed)
        state, seen[seed] = loader.order.start(), []
        for _ in range(1500):
            pick = loader.order.next(state)
            seen[seed].append((pick.row, loader.size(pick).tokens != plain[pick.row]))
    for row in (0, 1):
        drawn = [gone for found in seen.values() for one, gone in found if one == row]
        # 1,000 draws: four standard deviations are 0.05.
        assert sum(drawn) / len(drawn) == pytest.approx(0.2, abs=0.05)
    assert not any(gone for found in seen.values() for row, gone in found if row == 2)
    assert [gone for _, gone in seen[0]] != [gone for _, gone in seen[1]]


@pytest.mark.parametrize("options", [{}, {"pack": True, "batch_size": 1}, {"token_budget": 192}], ids=["rows", "packed", "budget"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stop_anywhere_changes_nothing(options: dict[str, Any], workers: int, processor: Processor) -> None:
    """Lengths are planned as rows are then made, and who goes on behind a batch leaves the same prompts out."""
    samples = [parsed(asked(*front), DRAWN) for front in ((), (SEEN,), (TEXT,), (TEXT, TEXT))]
    loader = loader_of(processor, samples, unsteered=0.5, workers=workers, **options)

    def from_(state: Any, count: int) -> list[LoadedBatch]:
        with closing(loader.batches(state)) as stream:
            return list(islice(stream, count))

    through = from_(loader.order.start(), 8)
    again = from_(through[2].state, 5)
    for one, other in zip(through[3:], again, strict=True):
        assert torch.equal(one.batch.input_ids_BT, other.batch.input_ids_BT)
        assert torch.equal(one.batch.media[CODES].pixels_NCHW, other.batch.media[CODES].pixels_NCHW)
    picks, length = [number for one in through for number in one.picks], 0
    assert len(set(picks)) == len(picks)
    for one in through:
        real = (one.batch.segments_BT > 0).sum(1)
        assert int(real.max()) <= 96
        length += int(real.sum())
    state, planned = loader.order.start(), 0
    for _ in range(max(picks) + 1):
        pick = loader.order.next(state)
        planned += loader.size(pick).tokens if pick.number in picks else 0
    assert planned == length


def test_where_it_is_said(processor: Processor) -> None:
    stage = {"name": "s", "learns": [{"part": "backbone", "lr": 0.1}], "data": [{"kind": "picture_book"}], "steps": 1}
    for kind in ("instruct", "caption"):
        told = StageConfig.from_dict(stage | {"objective": {"kind": kind, "unsteered": 0.1}})
        assert loader_options(told).unsteered == 0.1
    blind = ModelConfig(backbone=CausalLMConfig.tiny(), template="plain")
    model, tokenizer = build_pretrained(blind)
    for config_ in (InstructConfig(unsteered=0.1), CaptionConfig(unsteered=0.1)):
        with pytest.raises(ConfigError, match="unsteered for a model that writes no pictures"):
            config_.build(model, Processor(blind, tokenizer), ())
