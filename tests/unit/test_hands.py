"""Signal tokens: from a Sample's picture or mask to tokens and targets, from an answer's tokens to media."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.api import Model
from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.hands import MadeKind
from sensorium.core.masks import read_mask
from sensorium.core.sample import Sample, parse_sample
from sensorium.encoders import ENCODERS
from sensorium.generators import GENERATORS
from sensorium.generators.sam import SamConfig
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.output_projectors import OUTPUT_PROJECTORS
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.processing.split import rows_of

SEG = ("[SEG]", "[END]")


def config(projector: str = "mapper", signals: tuple[str, ...] = SEG) -> ModelConfig:
    backbone = CausalLMConfig.tiny()
    backbone = backbone.model_copy(update={"arch": backbone.arch | {"vocab_size": 265}, "added_tokens": SEG})
    hand = HandConfig(signals=signals, projector=OUTPUT_PROJECTORS.find(projector).tiny(), generator=SamConfig.tiny())
    lane = LaneConfig(encoder=ENCODERS.find("clip").tiny(), projector=INPUT_PROJECTORS.find("mlp").tiny())
    return ModelConfig(lanes={"image": lane}, backbone=backbone, hands={"mask": hand}, template="plain")


def sample(*, role: str = "assistant") -> Sample:
    mask = {"size": [60, 120], "counts": [0, 7200]}
    return parse_sample({"messages": [
        {"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (120, 60), (9, 99, 9))}, {"type": "text", "text": "The lawn?"}]},
        {"role": role, "content": [{"type": "text", "text": "Sure, "}, {"type": "mask", "mask": mask}, {"type": "text", "text": "."}]},
    ]})  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model(*build_pretrained(config()))


def test_a_mask_in_an_answer_becomes_learned_signals_and_a_target(model: Model) -> None:
    example = model.processor.encode(sample())
    ids = model.processor.signals["mask"]
    (wanted,) = example.wanted
    assert tuple(example.input_ids[wanted.start : wanted.start + 2]) == ids
    assert all(example.learn[wanted.start : wanted.start + 2])
    assert (wanted.kind, wanted.caption) == ("mask", "Sure, .")
    # In rows it is counted from the row's begin, whatever stands before it and above it.
    batch = collate([[example], [example, example]], model.tokenizer.pad_id)
    assert [one.row for one in batch.wanted] == [0, 1, 1]
    for one in batch.wanted:
        assert tuple(batch.input_ids_BT[one.row, one.start : one.start + 2].tolist()) == ids
    assert [one.row for one in rows_of(batch, 1, 2).wanted] == [0, 0]
    # What somebody else says is no answer, and this model looks at no masks.
    with pytest.raises(DataError, match="part of type 'mask'"):
        model.processor.encode(sample(role="user"))


def test_signals_are_cut_whole(model: Model) -> None:
    whole = model.processor.encode(sample())
    start = whole.wanted[0].start
    assert model.processor.encode(sample(), max_length=start + 2).wanted == whole.wanted
    cut = model.processor.encode(sample(), max_length=start + 1)
    assert (len(cut), cut.wanted) == (start, ())


@pytest.mark.parametrize(("projector", "signals"), [("mapper", SEG), ("mask_prompt", SEG[:1])])
def test_an_answer_is_text_and_media_in_order(
    projector: str, signals: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(*build_pretrained(config(projector, signals)))
    asked = sample().messages[:1]
    ids = model.processor.signals["mask"]
    said = [*model.tokenizer.encode("It is "), *ids, *model.tokenizer.encode(" there")]
    monkeypatch.setattr(model.engine, "generate", lambda *_, **__: [said])
    answer = model.answer([message.to_json() for message in asked])
    assert [part.type for part in answer.content] == ["text", "mask", "text"]
    assert (answer.content[0].value, answer.content[2].value) == ("It is", "there")
    assert answer.content[1].value["picture"] == 1
    mask = read_mask({k: v for k, v in answer.content[1].value.items() if k in ("size", "counts")}, "mask")
    assert mask.size == (60, 120)
    # The same by hand: GILL's mapper reads the signals' own states and embeddings, LISA's the state in front.
    prompt = model.processor.prompt(asked)
    hidden = _hidden(model, prompt, said)
    place = len(prompt) + 6
    with torch.inference_mode():
        states = hidden[:, place : place + 2] + model.network.backbone.embed(torch.tensor([ids]))
        states = states if projector == "mapper" else hidden[:, place - 1 : place]
        condition = model.network.hands["mask"](states)
        picture = np.full((60, 120, 3), (9, 99, 9), np.uint8)
        sam = model.network.generators["mask"]
        looked = sam.look(picture)
        logits, _ = sam.decode(looked, condition)
    assert np.array_equal(mask.array(), (sam.to_picture(logits, looked)[0, 0] > 0).numpy())


def _hidden(model: Model, prompt: Any, said: list[int]) -> torch.Tensor:
    from dataclasses import replace

    whole = replace(prompt, input_ids=[*prompt.input_ids, *said], learn=[False] * (len(prompt) + len(said)),
                    media_index=[*prompt.media_index, *[1] * len(said)])  # fmt: skip
    with torch.inference_mode():
        return model.network(collate([[whole]], 0)).hidden_BTD


def test_half_a_signal_is_completed_and_a_cut_one_is_known(model: Model) -> None:
    first, second = model.processor.signals["mask"]
    prompt = model.processor.prompt(sample().messages[:1])
    head = model.network.backbone.lm.lm_head
    plain = head.forward

    def eager(hidden: torch.Tensor) -> torch.Tensor:
        logits = plain(hidden)
        logits[..., first] = 1e4
        return logits

    head.forward = eager
    try:
        ids = model.engine.generate([prompt], max_tokens=5)[0]
    finally:
        del head.forward
    assert ids == [first, second, first, second, first]
    maker = model.engine.maker
    assert [(one.start, one.whole) for one in maker.find(ids)] == [(0, True), (2, True), (4, False)]
    assert [(one.start, one.whole) for one in maker.find([first])] == [(0, False)]


def test_a_space_between_two_signals_is_a_space_everywhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """It forces the second signal behind the first alone, and stays in the text."""
    model = Model(*build_pretrained(config(signals=(SEG[0], "Ġ", SEG[1]))))
    first, space, last = model.processor.signals["mask"]
    spoken = model.tokenizer.encode("a b c")
    assert space in spoken
    prompt = model.processor.prompt(sample().messages[:1])
    wanted = iter([*spoken, space, first])
    monkeypatch.setattr("sensorium.inference.engine.Sampler", lambda *_: lambda logits, said: torch.tensor([next(wanted, spoken[0])]))
    ids = model.engine.generate([prompt], max_tokens=len(spoken) + 5)[0]
    assert ids == [*spoken, space, first, space, last, spoken[0]]
    parts = model.engine.maker.parts(prompt, ids, sample())
    assert [part.type for part in parts] == ["text", "mask", "text"]
    assert (parts[0].value, parts[2].value) == ("a b c", "a")


def test_a_space_between_the_signals_of_two_kinds_is_shared() -> None:
    tokens = (*SEG, "[PIC]", "[/PIC]")
    backbone = CausalLMConfig.tiny()
    backbone = backbone.model_copy(update={"arch": backbone.arch | {"vocab_size": 267}, "added_tokens": tokens})
    mapper, sam, painter = OUTPUT_PROJECTORS.find("mapper").tiny(), SamConfig.tiny(), GENERATORS.find("small_diffusion").tiny()
    hands: dict[MadeKind, HandConfig] = {
        "mask": HandConfig(signals=(SEG[0], "Ġ", SEG[1]), projector=mapper, generator=sam),
        "image": HandConfig(signals=("[PIC]", "Ġ", "[/PIC]"), projector=mapper, generator=painter),
    }
    told = config().model_copy(update={"backbone": backbone, "hands": hands})
    processor = Model(*build_pretrained(told)).processor
    assert processor.signals["mask"][1] == processor.signals["image"][1]
    shared = hands | {"image": hands["image"].model_copy(update={"signals": ("[PIC]", "Ġ", SEG[1])})}
    with pytest.raises(ConfigError, match=r"signal '\[END\]' of two kinds"):
        Processor(told.model_copy(update={"hands": shared}), processor.tokenizer)


def test_what_cannot_be_made_is_said(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not make image.*mask"):
        model.network.generators["image"]
    with pytest.raises(ConfigError, match=r"no token '\[SEG\]'.*added_tokens"):
        Processor(config(), build_pretrained(config().model_copy(update={
            "hands": {}, "backbone": CausalLMConfig.tiny()}))[1])  # fmt: skip
    save_model(model.network, model.tokenizer, tmp_path / "m", learnt=set())
    again, _ = load_model(tmp_path / "m")
    names = [n for n, _ in again.named_parameters() if n.startswith("hands.")]
    assert names
    assert all(torch.equal(again.state_dict()[n], model.network.state_dict()[n]) for n in names)
    # A generator's weights are its source's: they are not part of what is saved.
    assert not any("sam" in n or n.startswith("generators") for n in again.state_dict())
