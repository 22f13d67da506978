"""Pictures of answers that are written embedding by embedding (Emu, Emu2): rows, targets, losses, and the loop that answers."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.api import Model
from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import AlignmentError, ConfigError
from sensorium.core.hands import Made, Making
from sensorium.core.responder import Request
from sensorium.core.sample import Sample, parse_sample
from sensorium.core.video import VideoConfig
from sensorium.encoders import ENCODERS
from sensorium.generators.espeak import EspeakConfig
from sensorium.generators.sdxl import SdxlConfig
from sensorium.generators.stable_diffusion import StableDiffusionConfig
from sensorium.inference.extending import extended
from sensorium.inference.leading_away import condition_of
from sensorium.inference.making import Maker
from sensorium.inference.regressing import Room, go_on, negative
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.input_projectors.avg_pool import AvgPoolConfig
from sensorium.interop.assemble import build_pretrained
from sensorium.media.anyres import AnyResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.fed_back import as_input, true_embeddings
from sensorium.model.hand import HandConfig
from sensorium.output_projectors.regression import RegressionConfig
from sensorium.processing.collate import collate
from sensorium.training.objectives.regress import RegressConfig

pytestmark = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
MARKS = ("[IMG]", "[/IMG]", "<image>")
N = 4
"""Embeddings of a picture."""


def config(system: str, **changes: Any) -> ModelConfig:
    backbone = CausalLMConfig.tiny()
    backbone = backbone.model_copy(update={"arch": backbone.arch | {"vocab_size": 266}, "added_tokens": MARKS})
    clip = ENCODERS.find("clip").tiny()
    if system == "emu":
        lane = LaneConfig(encoder=clip, projector=INPUT_PROJECTORS.find("cformer").tiny())
        generator: Any = StableDiffusionConfig(length=N, width=backbone.d_model, reads_text=False, scale="tiny")
        projector = RegressionConfig()
    else:
        lane = LaneConfig(encoder=clip, projector=AvgPoolConfig(side=2, bias=False))
        generator = SdxlConfig(length=N, width=clip.out_dim, pooled="mean", scale="tiny")
        projector = RegressionConfig(space="encoder")
    hand = HandConfig(signals=MARKS[:2], projector=projector, generator=generator)
    whole = ModelConfig(lanes={"image": lane}, backbone=backbone, hands={"image": hand}, template="emu_document",
                        placeholder_token="<image>")  # fmt: skip
    return whole.model_copy(update=changes)


@pytest.fixture(scope="module", params=["emu", "emu2"])
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)
    return Model(*build_pretrained(config(request.param)))


def picture(shade: int) -> dict[str, Any]:
    return {"type": "image", "image": Image.new("RGB", (40, 30), (shade, 99, 255 - shade))}


def sample(*content: dict[str, Any]) -> Sample:
    return parse_sample({"messages": [
        {"role": "user", "content": [picture(200), {"type": "text", "text": "Next?"}]},
        {"role": "assistant", "content": list(content) or "."},
    ]})  # fmt: skip


TEXT = {"type": "text", "text": "It: "}


def test_a_picture_in_an_answer_is_read_between_its_signals(model: Model) -> None:
    example = model.processor.encode(sample(TEXT, picture(9), {"type": "text", "text": " so"}))
    begin, end = model.processor.signals["image"]
    hole = model.tokenizer.special_id("<image>")
    (wanted,) = example.wanted
    place = wanted.start
    assert example.input_ids[place : place + N + 2] == [begin, *[hole] * N, end]
    assert wanted.count == N + 2
    # What begins a picture is learned, for the model decides; what it reads there and what must follow are not.
    assert example.learn[place - 1 : place + N + 3] == [True, True, *[False] * (N + 1), True]
    # Both pictures are read, and stand in the same frame.
    assert len(example.media["image"].plans) == len(example.seen) == 2
    assert example.slots["image"][N:] == list(range(place + 1, place + 1 + N))
    assert model.processor.measure(sample(TEXT, picture(9), {"type": "text", "text": " so"})).input_ids == example.input_ids
    # It is cut whole.
    for cut in (place + 1, place + N, place + N + 1):
        short = model.processor.encode(sample(TEXT, picture(9)), max_length=cut)
        assert (len(short), short.wanted, len(short.media["image"].plans)) == (place, (), 1)


def test_the_loss_is_of_what_the_model_itself_reads(model: Model) -> None:
    """By hand: states from the first signal on against the pictures' own embeddings, each as much as a word."""
    rows = [model.processor.encode(sample(TEXT, picture(9), picture(80))), model.processor.encode(sample({"type": "text", "text": "No."}))]
    module = model.network
    batch = collate([[rows[1], rows[0]], [rows[0]], [rows[1]]], model.tokenizer.pad_id)
    objective = RegressConfig(weight=0.5).build(module, model.processor, [])
    found = objective(module, batch)
    with torch.no_grad():
        output = module(batch)
        words = torch.nn.functional.cross_entropy(
            module.logits(output.hidden_BTD[:, :-1])[batch.learn_BT[:, 1:]], batch.input_ids_BT[:, 1:][batch.learn_BT[:, 1:]], reduction="sum")
        distances = []
        for one, number in zip(batch.wanted, (2, 3, 5, 6), strict=True):
            states = output.hidden_BTD[one.row, one.start : one.start + N]
            encoded = module.encode("image", batch.media["image"])
            lane = module.projectors["image"]
            own = output.features["image"].values_ND
            if module.config.hands["image"].reader.feeds_back == "encoder":
                own = lane.pooled(encoded).values_ND  # pyright: ignore
                assert torch.allclose(lane.widen(own), output.features["image"].values_ND)  # pyright: ignore
            true = own[number * N : (number + 1) * N]
            distances.append((module.hands["image"](states) - true).norm(dim=-1).sum())
        total = words + 0.5 * sum(distances)
    assert float(found.total) == pytest.approx(float(total), rel=1e-5)
    assert found.count == int(batch.learn_BT[:, 1:].sum()) + 4 * N
    # The pictures' own embeddings are not drawn to what is foretold.
    assert module(batch).features["image"].values_ND.requires_grad
    assert not true_embeddings(module, "image", module.encode("image", batch.media["image"]), module(batch).features["image"]).requires_grad


def asked(model: Model) -> Any:
    return model.processor.prompt(sample().messages[:1])


def test_embeddings_come_as_where_everything_is_computed_anew(model: Model) -> None:
    """Emu's own loop: for each embedding the whole row again, with all of those before in the holes."""
    module, prompt, begin = model.network, asked(model), model.processor.signals["image"][0]
    said = [*model.tokenizer.encode("It: "), begin]
    ids, (made,) = go_on(module, model.processor, "image", prompt, said, Room())
    assert ids == [*said, model.processor.signals["image"][1]]
    hole = model.tokenizer.special_id("<image>")
    with torch.inference_mode():
        wanted = torch.zeros(1, 0, made.shape[-1])
        for count in range(N):
            whole = extended(prompt, [*said, *[hole] * count])
            batch = collate([[whole]], 0)
            embeds = module.fusion.enter(module.backbone.embed(batch.input_ids_BT), module.features(batch.media), batch.slots)
            embeds[:, embeds.shape[1] - count :] = as_input(module, "image", wanted)
            hidden = module.backbone(embeds, positions_BT=batch.positions_BT)
            wanted = module.hands["image"](hidden[:, -count - 1 :])
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-5)
    # Behind no text it is another one.
    assert float((negative(module, model.processor, "image") - made).abs().max()) > 1e-3


def test_text_goes_on_behind_what_was_made(model: Model) -> None:
    """Greedy text behind a picture is that of a row which holds the picture's embeddings; a second one is made, too."""
    module, prompt = model.network, asked(model)
    begin, end = model.processor.signals["image"]
    head: Any = module.backbone.lm.lm_head  # pyright: ignore[reportAttributeAccessIssue]
    plain = head.forward
    calls: list[int] = []

    def script(hidden: torch.Tensor) -> torch.Tensor:
        """Two words, the begin of a picture, and a word at each further call."""
        logits = plain(hidden)
        calls.append(1)
        logits[..., begin] = 1e4 if len(calls) == 3 else -1e4
        logits[..., list(model.processor.stop_ids)] = -1e4
        return logits

    head.forward = script
    try:
        ids, made = go_on(module, model.processor, "image", prompt, [begin], Room(5))
    finally:
        del head.forward
    assert len(made) == 2
    assert (ids[:2], ids[4:6], len(ids)) == ([begin, end], [begin, end], 8)
    with torch.inference_mode():
        batch = collate([[prompt]], 0)
        embeds = module.fusion.enter(module.backbone.embed(batch.input_ids_BT), module.features(batch.media), batch.slots)
        for first, shown in zip((0, 4), made, strict=True):
            more = [module.backbone.embed(torch.tensor([ids[first : first + 1]])), as_input(module, "image", shown)]
            embeds = torch.cat([embeds, *more, module.backbone.embed(torch.tensor([ids[first + 1 : first + 4]]))], dim=1)
        hidden = module.backbone(embeds, positions_BT=torch.arange(embeds.shape[1])[None])
        logits = plain(hidden)[0]
        logits[:, [begin, *model.processor.stop_ids]] = -1e4
    end_of_first = len(prompt) + N + 1
    assert logits[end_of_first : end_of_first + 2].argmax(-1).tolist() == ids[2:4]
    assert logits[-3:-1].argmax(-1).tolist() == ids[6:8]


def test_an_answer_holds_the_picture(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = model.processor.signals["image"][0]
    said = [*model.tokenizer.encode("It: "), begin]
    monkeypatch.setattr(model.engine, "generate", lambda *_, **__: [said])
    few = Making(steps=2, guidance=3.0, seed=4)
    answer = model.answer([message.to_json() for message in sample().messages[:1]], max_tokens=len(said), making=few)
    assert [part.type for part in answer.content] == ["text", "image"]
    _, (made,) = go_on(model.network, model.processor, "image", asked(model), said, Room())
    drawn = model.network.generators["image"].generate(made, negative_BLC=negative(model.network, model.processor, "image"), making=few)
    assert np.array_equal(np.asarray(answer.content[1].value), drawn[0].array)
    # Led away by words: from what it would write behind these.
    away = model.answer([message.to_json() for message in sample().messages[:1]], max_tokens=len(said), making=replace(few, negative="grey"))
    grey = condition_of(model.network, model.processor, "image", "grey")
    led = model.network.generators["image"].generate(made, negative_BLC=grey, making=few)
    assert np.array_equal(np.asarray(away.content[1].value), led[0].array)
    assert (led[0].array != drawn[0].array).any()
    # The begin of a picture ends the text of the engine's own turn.
    assert model.engine.maker.follows() == {(begin,): min(model.processor.stop_ids)}


def test_what_is_told_by_text_may_stand_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A voice between two markers, then a picture: each medium is made of its own."""
    torch.manual_seed(0)
    whole: Any = config("emu")
    marks = ("<say>", "</say>")
    backbone = whole.backbone.model_copy(update={"arch": whole.backbone.arch | {"vocab_size": 268}, "added_tokens": (*MARKS, *marks)})
    hands = {**whole.hands, "audio": HandConfig(signals=marks, generator=EspeakConfig())}
    model = Model(*build_pretrained(whole.model_copy(update={"backbone": backbone, "hands": hands})))
    spoken = [*model.processor.signals["audio"][:1], *model.tokenizer.encode("hi"), *model.processor.signals["audio"][1:]]
    monkeypatch.setattr(model.engine, "generate", lambda *_, **__: [[*spoken, model.processor.signals["image"][0]]])
    monkeypatch.setattr(Maker, "_tell", lambda *_: Made("audio", np.zeros(4, np.float32), sample_rate_hz=8))
    answer = model.answer([message.to_json() for message in sample().messages[:1]], max_tokens=len(spoken) + 1, making=Making(steps=1))
    assert [part.type for part in answer.content] == ["audio", "image"], answer


def test_what_goes_on_behind_a_picture_is_in_every_kind_of_answer(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, prompt = model.engine, asked(model)
    said = [*model.tokenizer.encode("It: "), model.processor.signals["image"][0]]
    monkeypatch.setattr(engine, "generate", lambda *_, **__: [said])
    monkeypatch.setattr(engine.maker, "making", Making(steps=1, guidance=1.0))
    room = len(said) + 5
    head: Any = model.network.backbone.lm.lm_head  # pyright: ignore[reportAttributeAccessIssue]
    (letter,) = model.tokenizer.encode("k")
    monkeypatch.setattr(head, "forward", lambda hidden: torch.zeros(*hidden.shape[:-1], 266).index_fill(-1, torch.tensor([letter]), 1.0))
    ids, _ = go_on(model.network, model.processor, "image", prompt, said, Room(5))
    (got,) = engine.respond([Request("a", sample().messages[:1], room)])
    assert (got.text, got.tokens) == (engine.text(ids), len(ids))
    assert got.text == "It: kkkkk"
    assert model.respond([message.to_json() for message in sample().messages[:1]], max_tokens=room) == got.text

    def run(*args: Any) -> Any:
        for token in said:
            args[3][0].append(token)
            yield [token]

    monkeypatch.setattr(engine, "_run", run)
    assert "".join(engine.stream(prompt, max_tokens=room)).strip() == got.text


def test_beside_a_medium_that_is_told_by_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each picture is drawn of its own embeddings, whatever stands in front of it."""
    says = ("<say>", "</say>")
    plain = config("emu")
    backbone = CausalLMConfig.tiny()
    backbone = backbone.model_copy(update={"arch": backbone.arch | {"vocab_size": 268}, "added_tokens": (*MARKS, *says)})
    hands = {**plain.hands, "audio": HandConfig(signals=says, generator=EspeakConfig())}
    model = Model(*build_pretrained(plain.model_copy(update={"backbone": backbone, "hands": hands})))
    drawn: list[torch.Tensor] = []

    def draw(condition: torch.Tensor, **_: Any) -> list[Made]:
        drawn.append(condition)
        return [Made("image", np.zeros((4, 4, 3), np.uint8))]

    def speak(*_: Any) -> Made:
        return Made("audio", np.zeros(4, np.float32), 8000)

    model.network.generators.put("image", SimpleNamespace(generate=draw))  # pyright: ignore[reportArgumentType]
    model.network.generators.put("audio", SimpleNamespace(speak=speak))  # pyright: ignore[reportArgumentType]
    marks = [model.tokenizer.special_id(token) for token in says]
    said = [marks[0], *model.tokenizer.encode("moo"), marks[1], model.processor.signals["image"][0]]
    monkeypatch.setattr(model.engine, "generate", lambda *_, **__: [said])
    answer = model.answer([message.to_json() for message in sample().messages[:1]], max_tokens=len(said))
    assert [part.type for part in answer.content] == ["audio", "image"]
    _, (made,) = go_on(model.network, model.processor, "image", asked(model), said, Room())
    assert torch.equal(drawn[0], made)


def test_no_room_for_a_picture(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt, (begin, end) = asked(model), model.processor.signals["image"]
    monkeypatch.setattr(type(model.network.config), "longest_row", len(prompt) + N + 1)
    assert go_on(model.network, model.processor, "image", prompt, [begin], Room(9)) == ([begin], [])
    monkeypatch.setattr(model.engine, "generate", lambda *_, **__: [[begin]])
    answer = model.answer([message.to_json() for message in sample().messages[:1]], max_tokens=1)
    assert [part.type for part in answer.content] == ["missing"]
    assert "no room for image" in answer.content[0].value["error"]
    # Where it just fits, nothing follows.
    monkeypatch.setattr(type(model.network.config), "longest_row", len(prompt) + N + 2)
    ids, made = go_on(model.network, model.processor, "image", prompt, [begin], Room(9))
    assert (ids, len(made)) == ([begin, end], 1)


def test_what_does_not_go_together_is_refused() -> None:
    good = config("emu2")
    lane, hand = good.lanes["image"], good.hands["image"]
    wrong = {
        "a lane 'image'": {"lanes": {}},
        "9 tokens of a picture": {"lanes": {"image": lane.model_copy(update={"projector": AvgPoolConfig(side=3, bias=False)})}},
        "space: encoder with projector cformer": {"lanes": {"image": lane.model_copy(update={"projector": INPUT_PROJECTORS.find("cformer").tiny()})}},
        "vectors of 48": {"hands": {"image": hand.model_copy(update={"generator": SdxlConfig(length=N, width=48, pooled="mean", scale="tiny")})}},
    }
    for message, changes in wrong.items():
        with pytest.raises(ConfigError, match=message):
            build_pretrained(good.model_copy(update=changes))
    with pytest.raises(ConfigError, match="width 32 in an LLM of width 48"):
        build_pretrained(good.model_copy(update={"hands": {"image": hand.model_copy(update={"projector": RegressionConfig()})}}))


def test_frames_of_fewer_tokens_than_pictures() -> None:
    """They are read; beside them no picture is foretold, for its embeddings would be counted among theirs."""
    good = config("emu2").model_copy(update={"video": VideoConfig(pool=2)})
    torch.manual_seed(0)
    model = Model(*build_pretrained(good))
    film = {"type": "video", "video": [picture(shade)["image"] for shade in (20, 60)]}
    rows = [parse_sample({"messages": [{"role": "user", "content": [film]}, {"role": "assistant", "content": [*answer]}]})
            for answer in ([TEXT], [TEXT, picture(9)], [TEXT, film])]  # fmt: skip
    short, mixed, foretold = (model.processor.encode(row) for row in rows)
    assert (len(short.slots["image"]), len(mixed.slots["image"])) == (2 * N // 4, 2 * N // 4 + N)
    # What an answer holds has all its tokens.
    assert (len(foretold.wanted), len(foretold.slots["image"])) == (2, 2 * N // 4 + 2 * N)
    objective = RegressConfig().build(model.network, model.processor, [])
    assert objective(model.network, collate([[short]], 0)).count > 0
    with pytest.raises(AlignmentError, match=r"model\.video\.pool"):
        objective(model.network, collate([[mixed]], 0))
    lane = good.lanes["image"]
    wrong = {
        "squares of 3 x 3 on a map of 2 x 2": {"video": VideoConfig(pool=3)},
        "expected a lane image of resolution fixed": {"hands": {}, "lanes": {"image": lane.model_copy(update={"resolution": AnyResolution.tiny()})}},
    }
    for message, changes in wrong.items():
        with pytest.raises(ConfigError, match=message):
            build_pretrained(good.model_copy(update=changes))
