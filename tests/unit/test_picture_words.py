"""Pictures as tokens: from a Sample to learned words, from an answer's words to a picture, and what has no room."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from sensorium.api import Model
from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.cli.answering import AnswerOptions
from sensorium.cli.making_options import MakingOptions
from sensorium.cli.saving_answers import Saving, ask_and_save
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.hands import Drawing, Making
from sensorium.core.picture_words import CODES, as_ranges, code_words
from sensorium.core.responder import Request
from sensorium.core.sample import Sample, parse_messages, parse_sample
from sensorium.encoders import ENCODERS
from sensorium.generators.vq import VqConfig
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.model.check import check_model
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.picture_words import CodeTablesConfig, PictureWordsConfig
from sensorium.processing.collate import collate
from sensorium.training.objectives.next_token import next_token_losses

MARKS = ("<pic>", "<row>", "</pic>")
FIRST = 263 + len(MARKS)
ASK = [{"role": "user", "content": "a cat"}]


def config(*, shared: bool, **more: Any) -> ModelConfig:
    vq = VqConfig.tiny()
    words: dict[str, Any] = {"words": ((FIRST, vq.codes),)} if shared else {"tables": CodeTablesConfig(width=4)}
    told = PictureWordsConfig(tokenizer=vq, begin=("<pic>", "{h}x{w}:"), row_end="<row>", end=("</pic>",), **words)
    backbone = CausalLMConfig.tiny()
    arch = backbone.arch | {"vocab_size": FIRST + vq.codes if shared else FIRST, "max_position_embeddings": 256}
    lane = LaneConfig(encoder=ENCODERS.find("clip").tiny(), projector=INPUT_PROJECTORS.find("mlp").tiny())
    return ModelConfig(lanes={} if shared else {"image": lane}, backbone=backbone.model_copy(update={"arch": arch, "added_tokens": MARKS}),
                       picture_words=told.model_copy(update=more), template="plain")  # fmt: skip


def lively(*, shared: bool) -> Model:
    """Of weights so large that every token makes a difference."""
    torch.manual_seed(0)
    made = Model(*build_pretrained(config(shared=shared)))
    with torch.no_grad():
        for parameter in made.network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    return made


@pytest.fixture(scope="module", params=[True, False], ids=["shared", "tables"])
def model(request: pytest.FixtureRequest) -> Model:
    return lively(shared=request.param)


def picture(shade: int = 90) -> Image.Image:
    image = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
    return image.rotate(shade)


def sample(role: str = "assistant") -> Sample:
    return parse_sample({"messages": [
        {"role": "user", "content": [*([{"type": "image", "image": picture(9)}] if role == "user" else []), {"type": "text", "text": "Draw."}]},
        {"role": "assistant", "content": [{"type": "text", "text": "So:"}, {"type": "image", "image": picture()}, {"type": "text", "text": "."}]},
    ]})  # fmt: skip


def frame_of(model: Model) -> Any:
    assert model.processor.frames is not None
    return model.processor.frames.frame()


def test_a_picture_in_an_answer_is_learned_word_by_word(model: Model) -> None:
    example, frame = model.processor.encode(sample()), frame_of(model)
    start = example.input_ids.index(model.processor.frames.opening)  # pyright: ignore[reportOptionalMemberAccess]
    assert all(example.learn[start : start + len(frame)])
    read = model.network.read(collate([[example, example]], model.tokenizer.pad_id))
    (written, again) = model.processor.frames.written(read.input_ids_BT[0].tolist())  # pyright: ignore[reportOptionalMemberAccess]
    assert (written.start, written.stop, written.codes) == (start, start + len(frame), again.codes)
    # The codes are those of the picture as the tokenizer sees it.
    pixels = example.media[CODES].pixels_NCHW
    assert model.network.picture_tokenizer.encode(pixels)[0].tolist() == list(written.codes)
    assert CODES not in read.media
    assert model.network.read(read) is read
    # A cut never goes through it.
    cut = model.processor.encode(sample(), max_length=start + len(frame) - 1)
    assert (len(cut), CODES in cut.media) == (start, False)


def test_a_picture_at_the_front_of_an_answer_is_learned_where_it_is_asked_for(model: Model) -> None:
    """Right behind the prompt, without the space that this template puts in front of what is said."""
    asked, told = Sample(parse_messages(ASK)), {"type": "image", "image": picture()}
    prompt = model.engine.artist.prompt(asked.messages, None)  # pyright: ignore[reportOptionalMemberAccess]
    for content, front in (([told], [frame_of(model).tokens[0]]), (["So:", told], model.tokenizer.encode(" So:"))):
        messages = parse_messages([*ASK, {"role": "assistant", "content": content}])
        example = model.processor.encode(Sample(messages))
        assert example.input_ids[: len(prompt) + len(front)] == [*prompt.input_ids, *front]
        assert example.learn.index(True) == len(prompt)


def test_a_picture_in_a_question_is_read_and_not_learned(model: Model) -> None:
    example = model.processor.encode(sample("user"))
    kinds = {"image", CODES} if "image" in model.network.config.lanes else {CODES}
    assert set(example.media) == kinds
    learned = [i for i in example.slots[CODES] if example.learn[i]]
    assert len(learned) == frame_of(model).grid.tokens
    assert len(example.seen) == 1


def test_losses_are_those_of_words_and_codes(model: Model) -> None:
    """By hand: the LLM's head for words, the codes' own for codes where they have one."""
    network = model.network
    batch = network.read(collate([[model.processor.encode(sample())]], model.tokenizer.pad_id))
    with torch.no_grad():
        hidden_TD = network(batch).hidden_BTD[0]
        logits_TV = network.logits(hidden_TD)
        if network.code_tables is not None:
            logits_TV = torch.cat([logits_TV, network.code_scores(hidden_TD)], dim=1)
        total = 0.0
        for place in batch.learn_BT[0].nonzero()[:, 0].tolist():
            target = int(batch.input_ids_BT[0, place])
            coded = target >= FIRST and network.code_tables is not None
            scores_V = logits_TV[place - 1, FIRST:] if coded else logits_TV[place - 1, : network.config.backbone.vocab_size]
            total += float(F.cross_entropy(scores_V[None], torch.tensor([target - FIRST if coded else target])))
    losses = next_token_losses(network, collate([[model.processor.encode(sample())]], model.tokenizer.pad_id))
    assert float(losses.total) == pytest.approx(total, rel=1e-5)
    assert losses.count == int(batch.learn_BT.sum())


def test_an_answer_that_is_to_begin_with_a_picture(model: Model) -> None:
    """Alike for a seed, another for another; greedy is alike for all."""
    frame = frame_of(model)

    def drawn(seed: int, **how: Any) -> Any:
        making = Making(draw=True, seed=seed, drawing=Drawing(**how) if how else None)
        answer = model.answer(ASK, max_tokens=len(frame) + 3, making=making)
        assert answer.content[0].type == "image"
        return answer.content[0].value.tobytes()

    assert drawn(1) == drawn(1) != drawn(2)
    assert drawn(1, temperature=0.0) == drawn(2, temperature=0.0)
    for away in ("text", "pads", "pictures"):
        assert drawn(1, temperature=0.0, guidance=4.0, away=away, negative="dog", picture_guidance=2.0)
    with pytest.raises(ConfigError, match="sides that"):
        model.answer(ASK, max_tokens=99, making=Making(draw=True, size=(7, 8)))


def test_a_picture_without_room(model: Model) -> None:
    frame = frame_of(model)
    with pytest.raises(DataError, match=f"max_tokens of at least {len(frame)}"):
        model.answer(ASK, max_tokens=len(frame) - 1, making=Making(draw=True))
    with pytest.raises(DataError, match="at most 256 together"):
        model.answer([{"role": "user", "content": "x" * 240}], max_tokens=len(frame), making=Making(draw=True))
    (stopped,) = model.answer(ASK, max_tokens=len(frame), making=Making(draw=True, cancelled=lambda: True)).content
    assert (stopped.type, stopped.value["kind"]) == ("missing", "image")
    assert "stopped" in stopped.value["error"]


def test_a_picture_that_fails_while_it_is_written(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part `missing` says why; the next answer knows nothing of it."""
    frame = frame_of(model)
    steps = iter(range(2))

    def breaking(hidden_BD: torch.Tensor) -> torch.Tensor:
        if next(steps, None) is None:
            raise RuntimeError("out of memory")
        return plain(hidden_BD)

    plain = model.network.code_scores
    making = Making(draw=True)
    with monkeypatch.context() as patch:
        patch.setattr(model.network, "code_scores", breaking)
        (broken,) = model.answer(ASK, max_tokens=len(frame), making=making).content
    assert (broken.type, broken.value["kind"]) == ("missing", "image")
    assert broken.value["error"].startswith("it failed (RuntimeError: out of memory)")
    assert model.answer(ASK, max_tokens=len(frame), making=making).content[0].type == "image"
    assert not model.engine.maker.failed


def test_a_model_that_opens_a_picture_itself(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is drawn whole where there is room, else the answer ends before it; text goes on behind."""
    artist: Any = model.engine.artist
    frame, plain = frame_of(model), artist.text_alone
    letter = model.tokenizer.encode("k")[0]
    said = iter([letter, artist.opening, letter, letter, *[letter] * 99])

    def scripted(logits_BV: torch.Tensor) -> torch.Tensor:
        blocked_BV = plain(logits_BV)
        if model.network.config.picture_words.shared:  # pyright: ignore[reportOptionalMemberAccess]
            assert bool(torch.isinf(blocked_BV[:, FIRST:]).all())
        return torch.full_like(blocked_BV, -1.0).index_fill(-1, torch.tensor([next(said)]), 1.0)

    monkeypatch.setattr(artist, "text_alone", scripted)
    answer = model.answer(ASK, max_tokens=len(frame) + 3)
    assert [part.type for part in answer.content] == ["text", "image", "text"]
    assert answer.content[2].value == "kk"
    said = iter([letter, artist.opening, letter])
    text, missing = model.answer(ASK, max_tokens=len(frame)).content
    assert text.value == "k"
    assert "had no room" in missing.value["error"]
    # A responder's answers are text beside the parts, and a shorter limit beside a longer one cuts no picture.
    said = iter([letter, artist.opening, *[letter] * 99])
    requests = [Request("a", parse_messages(ASK), max_tokens=len(frame) + 2)]
    (got,) = model.engine.respond(requests)
    assert (got.text, [part.type for part in got.parts]) == ("kk", ["text", "image", "text"])
    ids = [letter, *[i if i is not None else model.processor.frames.words[0] for i in frame.tokens]]  # pyright: ignore[reportOptionalMemberAccess]
    assert artist.whole(ids) == ids
    assert artist.whole(ids[:-1]) == [letter, artist.opening]


def test_saved_and_loaded(model: Model, tmp_path: Path) -> None:
    save_model(model.network, model.tokenizer, tmp_path / "m", learnt=set())
    again = Model(*load_model(tmp_path / "m"))
    making = Making(draw=True, drawing=Drawing(temperature=0.0))
    one, two = (one.answer(ASK, max_tokens=99, making=making).content[0].value.tobytes() for one in (model, again))
    assert one == two
    if model.network.config.picture_words.shared:  # pyright: ignore[reportOptionalMemberAccess]
        # On the command line a picture takes what it needs, whatever --max-tokens says.
        options = AnswerOptions(str(tmp_path / "m"), "cpu", 8, 0.0)
        ask_and_save("a cat", None, options, Saving(str(tmp_path / "out"), MakingOptions(1, 0), speak=False, draw=True), as_json=False)
        (row,) = [json.loads((tmp_path / "out" / "sample.json").read_text())]
        assert row["messages"][1]["content"][0] == {"type": "image", "image": "part1.png"}
        assert Image.open(tmp_path / "out" / "part1.png").size == (16, 16)


def test_what_does_not_go_together() -> None:
    shared = config(shared=True)
    with pytest.raises(ConfigError, match="words for"):
        PictureWordsConfig.from_dict(shared.picture_words.to_dict() | {"words": [[300, 2]]})  # pyright: ignore[reportOptionalMemberAccess]
    small = shared.backbone.model_copy(update={"arch": shared.backbone.arch | {"vocab_size": FIRST}})  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigError, match="in a vocabulary of"):
        check_model(shared.model_copy(update={"backbone": small}))
    with pytest.raises(ConfigError, match="read by a lane and as tokens"):
        check_model(shared.model_copy(update={"lanes": config(shared=False).lanes}))
    assert as_ranges(code_words(shared.picture_words, 0)) == shared.picture_words.words  # pyright: ignore
