"""Generators that are told by text: in words between two markers, or in the words of the whole answer; and media that fail."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from sensorium.api import Model
from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import DataError, GenerationError
from sensorium.core.hands import CancelledError, Made, MadeKind, Making
from sensorium.core.responder import Request
from sensorium.core.sample import Part, Sample, parse_sample
from sensorium.encoders import ENCODERS
from sensorium.generators.espeak import EspeakConfig
from sensorium.generators.sam import SamConfig
from sensorium.generators.text_route import TextRouteConfig
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.interop.assemble import build_pretrained
from sensorium.media import RESOLUTIONS
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.model.learning import part_names
from sensorium.output_projectors import OUTPUT_PROJECTORS

MARKS = ("<image>", "</image>")
SEG = ("[SEG]", "[END]")
needs_espeak = pytest.mark.skipif(importlib.util.find_spec("espeakng_loader") is None, reason="espeakng_loader is not installed")


@dataclass
class Painter:
    """Draws a picture as grey as its prompt is long, in three steps; it fails in the second of prompts that say so."""

    told: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    def speak(self, text: str, making: Making = Making()) -> Made:
        self.told.append((text, making.seed))
        for step in range(1, 4):
            if making.progress is not None:
                making.progress(step, 3)
            if making.cancelled is not None and making.cancelled():
                raise CancelledError(f"stopped after step {step} of 3")
            if "fail" in text and step == 2:
                raise GenerationError("it failed after step 1 of 3", where="generator painter")
            if "crash" in text:
                raise MemoryError("no room")
        return Made("image", np.full((4, 4, 3), len(text), np.uint8))


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    backbone = CausalLMConfig.tiny()
    backbone = backbone.model_copy(update={"arch": backbone.arch | {"vocab_size": 267}, "added_tokens": (*MARKS, *SEG)})
    lane = LaneConfig(encoder=ENCODERS.find("clip").tiny(), projector=INPUT_PROJECTORS.find("mlp").tiny(),
                      resolution=RESOLUTIONS.find("anyres").from_dict({"grids": [[1, 2], [2, 1]]}))  # fmt: skip
    hands: dict[MadeKind, HandConfig] = {
        "image": HandConfig(signals=MARKS, generator=TextRouteConfig.tiny()),
        "mask": HandConfig(signals=SEG, projector=OUTPUT_PROJECTORS.find("mapper").tiny(), generator=SamConfig.tiny()),
        "audio": HandConfig(generator=EspeakConfig(words_a_minute=300)),
    }
    return Model(*build_pretrained(ModelConfig(lanes={"image": lane}, backbone=backbone, hands=hands, template="plain")))


@pytest.fixture
def painter(model: Model) -> Painter:
    made = Painter()
    model.network.generators.put("image", made)  # pyright: ignore[reportArgumentType]
    return made


def ids_of(model: Model, *pieces: str) -> list[int]:
    marks = (*MARKS, *SEG)
    return [i for piece in pieces for i in ([model.tokenizer.special_id(piece)] if piece in marks else model.tokenizer.encode(piece))]


def answered(model: Model, monkeypatch: pytest.MonkeyPatch, *pieces: str, making: Making | None = None, speak: bool = False) -> tuple[Part, ...]:
    monkeypatch.setattr(model.engine, "generate", lambda *_, **__: [ids_of(model, *pieces)])
    asked = [{"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (90, 40))}, {"type": "text", "text": "Draw."}]}]
    return model.answer(asked, making=making, speak=speak).content


def drawn(part: Any, text: str = "Here: ") -> Sample:
    return parse_sample({"messages": [{"role": "user", "content": "draw"}, {"role": "assistant", "content": [text, part] if text else [part]}]})


def test_a_hand_is_told_or_reads_states() -> None:
    sam, mapper, route = SamConfig.tiny(), OUTPUT_PROJECTORS.find("mapper").tiny(), TextRouteConfig.tiny()
    for wrong, words in (
        ({"generator": route.generator}, "without signals or projector"),
        ({"generator": sam, "signals": SEG}, "without signals or projector"),
        ({"generator": route, "signals": MARKS, "projector": mapper}, "leave projector out"),
        ({"generator": route}, "0 signals for generator text_route.*name two"),
        ({"generator": EspeakConfig(), "signals": SEG[:1]}, "or none for a voice"),
        ({"generator": sam, "signals": (SEG[0], SEG[0]), "projector": mapper}, "name a token twice"),
        ({"generator": sam, "signals": (SEG[0], " ", " ", SEG[1]), "projector": mapper}, "name a token twice"),
    ):
        with pytest.raises(ValidationError, match=words):
            HandConfig.model_validate(wrong)


def test_what_a_generator_is_told_is_learned_as_text(model: Model) -> None:
    row = {"type": "image", "image": "never-read.png", "prompt": " a red ball "}
    sample = drawn(row)
    assert sample.messages[1].to_json()["content"][1] == row
    example = model.processor.encode(sample)
    (wanted,) = example.wanted
    stands = ids_of(model, MARKS[0], "a red ball", MARKS[1])
    end = wanted.start + len(stands)
    assert example.input_ids[wanted.start : end] == stands
    assert all(example.learn[wanted.start : end])
    assert (wanted.caption, wanted.count) == ("a red ball", len(stands))
    assert model.processor.encode(sample, max_length=end - 1).wanted == ()
    assert len(model.processor.encode(sample, max_length=end - 1)) == wanted.start
    # Without a prompt it is the text of the message.
    assert model.processor.encode(drawn({"type": "image", "image": "x.png"}, "a hill")).wanted[0].caption == "a hill"
    with pytest.raises(DataError, match="nothing is said of"):
        model.processor.encode(drawn({"type": "image", "image": "x.png", "prompt": ""}))
    with pytest.raises(DataError, match="prompt is int"):
        drawn({"type": "image", "image": "x.png", "prompt": 3})
    # A voice says what is there already; nothing of such hands learns.
    assert model.processor.encode(drawn({"type": "audio", "audio": "x.wav"})).input_ids == model.processor.encode(drawn("")).input_ids
    assert [name for name in part_names(model.network) if name.startswith("hands")] == ["hands.mask"]


def test_the_llm_writes_what_the_generator_is_told(model: Model, painter: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ("A ball ", MARKS[0], " red ball ", MARKS[1], " and ", MARKS[0], "sky", SEG[0], MARKS[1])
    parts = answered(model, monkeypatch, *said, making=Making(seed=5))
    assert [(part.type, part.prompt) for part in parts] == [("text", None), ("image", "red ball"), ("text", None), ("image", "sky")]
    assert np.asarray(parts[1].value).max() == len("red ball")
    # Two pictures of one answer are two draws.
    assert painter.told == [("red ball", 5), ("sky", 6)]
    request = Request("a", parse_sample({"messages": [{"role": "user", "content": "draw"}]}).messages)
    (answer,) = model.engine.respond([request])
    assert answer.text == "A ball  and"
    assert len(answer.parts) == 4
    # What a model wrote before comes back as it wrote it.
    before = drawn(parts[1], "")
    again = model.processor.prompt((*before.messages, *request.messages)).input_ids
    assert model.tokenizer.decode(again, keep_special=True).count("<image>red ball</image>") == 1


def test_what_fails_takes_nothing_else_with_it(model: Model, painter: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ("One ", MARKS[0], "fail", MARKS[1], MARKS[0], "crash", MARKS[1], SEG[0], SEG[1], " end")
    parts = answered(model, monkeypatch, *said)
    assert [part.type for part in parts] == ["text", "missing", "missing", "mask", "text"]
    assert parts[1].value == {"kind": "image", "error": "generator painter: it failed after step 1 of 3"}
    assert (parts[1].prompt, parts[2].value["error"]) == ("fail", "it failed (MemoryError: no room)")
    # The mask is of the picture, which has a size of its own, and not of its tiles.
    assert parts[3].value["size"] == [40, 90]
    with pytest.raises(DataError, match="part of type 'missing'"):
        model.processor.encode(drawn(parts[1]))
    model.processor.prompt((*drawn(parts[1]).messages, *drawn("").messages[:1]))
    assert len(painter.told) == 2


def test_what_is_cut_off_is_said(model: Model, painter: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    for said, prompt in ((("Look ", MARKS[0], "a red"), "a red"), (("Look ", SEG[0]), None)):
        text, cut = answered(model, monkeypatch, *said)
        assert (text.value, cut.type, cut.prompt) == ("Look", "missing", prompt)
        assert "raise max_tokens" in cut.value["error"]
    assert painter.told == []
    # A mark that closes nothing is nothing.
    assert [part.type for part in answered(model, monkeypatch, "Look", MARKS[1], SEG[1])] == ["text"]


def test_who_stops_keeps_what_there_is(model: Model, painter: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[int, int]] = []
    making = Making(progress=lambda *step: steps.append(step), cancelled=lambda: len(steps) >= 4)
    said = ("One ", MARKS[0], "a", MARKS[1], MARKS[0], "b", MARKS[1], MARKS[0], "c", MARKS[1])
    parts = answered(model, monkeypatch, *said, making=making)
    assert [part.type for part in parts] == ["text", "image", "missing", "missing"]
    assert [part.value["error"] for part in parts[2:]] == ["stopped after step 1 of 3", "stopped before it was begun"]
    assert steps == [(1, 3), (2, 3), (3, 3), (1, 3)]
    assert len(painter.told) == 2


@needs_espeak
def test_an_answer_is_spoken_where_it_is_asked_for(model: Model, painter: Painter, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ("A red ball. ", MARKS[0], "not spoken", MARKS[1])
    *others, sound = answered(model, monkeypatch, *said, making=Making(size=(8, 8)), speak=True)
    assert [part.type for part in others] == ["text", "image"]
    assert sound.type == "audio"
    direct = EspeakConfig(words_a_minute=300).build().speak("A red ball.")
    np.testing.assert_array_equal(sound.value.array, direct.array)
    assert [part.type for part in answered(model, monkeypatch, "A ball.")] == ["text"]
    nothing = answered(model, monkeypatch, "...", speak=True)[-1]
    assert (nothing.type, nothing.value["kind"]) == ("missing", "audio")
    assert "nothing to say" in nothing.value["error"]
    # A picture alone is said to be there.
    *others, sound = answered(model, monkeypatch, MARKS[0], "a red ball", MARKS[1], speak=True)
    assert [part.type for part in others] == ["image"]
    assert (sound.prompt, sound.speech) == ("Here is the picture.", True)
    np.testing.assert_array_equal(sound.value.array, EspeakConfig(words_a_minute=300).build().speak("Here is the picture.").array)
    assert painter.told
    # Whoever has no voice of their own speaks with eSpeak NG's.
    monkeypatch.setitem(model.network.config.hands, "audio", model.network.config.hands["mask"])
    assert answered(model, monkeypatch, "A red ball.", speak=True)[-1].value.array.size > direct.array.size


def test_a_mask_of_a_tiled_picture_is_of_the_whole_picture(model: Model) -> None:
    def row(size: list[int]) -> Sample:
        return parse_sample({"messages": [
            {"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (90, 40))}, {"type": "text", "text": "The lawn?"}]},
            {"role": "assistant", "content": [{"type": "mask", "mask": {"size": size, "counts": [0, size[0] * size[1]]}}]}]})  # fmt: skip

    example = model.processor.encode(row([40, 90]))
    assert example.media["image"].plans[0].images > 1
    (wanted,) = example.wanted
    assert (wanted.medium.size, wanted.count) == ((40, 90), 2)
    with pytest.raises(DataError, match="a mask of 45x40 pixels for a picture of 90x40"):
        model.processor.encode(row([40, 45]))


def test_an_answer_longer_than_the_context_is_refused(model: Model) -> None:
    longest = model.network.config.longest_row
    with pytest.raises(DataError, match=rf"and {longest} to answer; expected at most {longest} together.*lower max_tokens"):
        model.answer("draw", max_tokens=longest)
