"""Videos and sound in Samples, through one lane with pictures: NExT-GPT's tiny forms, whose ImageBind takes clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pretend_gpu import PretendGpu, move_to_gpu
from torch import Tensor
from torch.nn.functional import cross_entropy

from sensorium.api import Model
from sensorium.core.clips import FrameClips
from sensorium.core.errors import ConfigError, DataError, MediaError
from sensorium.core.sample import Sample, parse_sample
from sensorium.core.video import VideoConfig
from sensorium.encoders.imagebind import ImageBindConfig
from sensorium.encoders.imagebind_sound import SoundConfig
from sensorium.features.store import FeatureStore, StoreOptions, storable, used_by
from sensorium.fusion.gated_cross_attention import GatedCrossAttentionConfig
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.media.audio_file import wav_bytes
from sensorium.model.check import check_model
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.dividing import dividable_blocks
from sensorium.model.learning import Learn
from sensorium.model.places import PlacesConfig
from sensorium.processing import clips as clips_module
from sensorium.processing.collate import collate
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.training.config import StageConfig
from sensorium.training.log import read_log
from sensorium.training.objectives.next_token import InstructConfig
from sensorium.training.options import TrainerOptions
from sensorium.training.run import train_recipe

RATE_HZ = 8000
SYSTEMS = ("next-gpt", "next-gpt-1.5")
KINDS = ("image", "video", "audio")


def film(colour: tuple[int, int, int], count: int = 5) -> list[Image.Image]:
    """A square of a colour that goes to the right."""
    made = [Image.new("RGB", (48, 36), (220, 220, 220)) for _ in range(count)]
    for i, one in enumerate(made):
        one.paste(colour, (4 + 5 * i, 4, 28 + 5 * i, 32))
    return made


def tone(hz: float, seconds: float = 1.5) -> bytes:
    return wav_bytes(0.5 * np.sin(2 * np.pi * hz * np.arange(round(RATE_HZ * seconds)) / RATE_HZ), RATE_HZ)


def write_media(folder: Path) -> Path:
    """Two animations, sounds and pictures."""
    for name, colour, hz in (("a", (220, 20, 20), 200.0), ("b", (20, 20, 220), 2500.0)):
        first, *others = film(colour)
        first.save(folder / f"{name}.webp", save_all=True, append_images=others, duration=500, lossless=True)
        first.save(folder / f"{name}.png")
        (folder / f"{name}.wav").write_bytes(tone(hz))
    return folder


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return write_media(tmp_path)


def medium(kind: str, name: str) -> dict[str, Any]:
    return {"type": kind, kind: f"{name}.{ {'image': 'png', 'video': 'webp', 'audio': 'wav'}[kind] }"}


def row(*media: dict[str, Any], answer: str = "It is red.") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [*media, {"type": "text", "text": "What is it?"}]}, {"role": "assistant", "content": answer}]}


def sample(root: Path, *media: dict[str, Any], answer: str = "It is red.") -> Sample:
    return parse_sample(row(*media, answer=answer), root=root)


def tiny(name: str = "next-gpt") -> Model:
    torch.manual_seed(0)
    return Model(*build_pretrained(TINY_FORMS.find(name)().model))


def states(model: Model, *rows: list[Any]) -> Tensor:
    with torch.no_grad():
        batch = collate(rows, model.tokenizer.pad_id)
        return model.network.logits(model.network(batch).hidden_BTD)


@pytest.mark.parametrize("name", SYSTEMS)
def test_all_go_through_one_lane(name: str, files: Path) -> None:
    """In the order in which they stand, between the same marks; lengths are planned without them."""
    model = tiny(name)
    asked = sample(files, *(medium(kind, "a") for kind in ("audio", "image", "video")))
    example = model.processor.encode(asked)
    tokens = 1 if name == "next-gpt" else 6
    assert list(example.media) == ["audio", "image", "video"]
    assert {kind: len(places) for kind, places in example.slots.items()} == dict.fromkeys(KINDS, tokens)
    assert example.slots["audio"] < example.slots["image"] < example.slots["video"]
    assert model.processor.measure(asked).input_ids == example.input_ids
    as_pictures = model.processor.encode(sample(files, *[medium("image", "a")] * 3))
    assert as_pictures.input_ids == example.input_ids
    # Places of an answer lie in pictures alone.
    assert (len(example.seen), len(as_pictures.seen)) == (1, 3)
    names = {name.split(".")[1] for name, _ in model.network.named_parameters() if name.startswith(("encoders.", "projectors."))}
    assert names == {"image"}
    first, other = (states(model, [model.processor.encode(sample(files, medium(kind, "a"), medium("image", "b")))]) for kind in ("video", "audio"))
    assert not torch.allclose(first, other, atol=1e-4)


def test_a_still_video_is_its_picture(files: Path) -> None:
    """Two frames that are alike are what a picture is to ImageBind; the mean of clips that are alike is one of them."""
    model = tiny()
    still = np.asarray(Image.open(files / "a.png").convert("RGB").resize((32, 32)))
    pictures, videos = model.embed(still)[0], model.embed(np.stack([still] * 7), kind="video")[0]
    torch.testing.assert_close(videos.values_ND, pictures.values_ND, atol=1e-5, rtol=1e-5)
    (frames,) = model.embed([[Image.fromarray(still)] * 7], kind="video")
    assert torch.equal(frames.values_ND, videos.values_ND)
    moves = model.embed(np.stack([still] * 3 + [255 - still] * 4), kind="video")[0]
    assert not torch.allclose(moves.values_ND, pictures.values_ND, atol=1e-3)


@pytest.mark.parametrize("name", SYSTEMS)
def test_packing_batches_and_padding_change_nothing(name: str, files: Path) -> None:
    model = tiny(name)
    rows = [model.processor.encode(sample(files, *media, answer=text)) for media, text in (
        ((medium("video", "a"), medium("audio", "b")), "yes"), ((medium("image", "b"),), "It is blue, I think."),
        ((medium("audio", "a"), medium("video", "b"), medium("video", "a")), "no"))]  # fmt: skip
    alone = [states(model, [one])[0] for one in rows]
    packed, padded = states(model, rows)[0], states(model, *[[one] for one in rows])
    start = 0
    for i, (one, expected) in enumerate(zip(rows, alone, strict=True)):
        torch.testing.assert_close(packed[start : start + len(one)], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(padded[i, : len(one)], expected, atol=1e-5, rtol=1e-5)
        start += len(one)


def test_it_is_saved_and_answers_the_same(files: Path, tmp_path: Path) -> None:
    model = tiny()
    messages = sample(files, *(medium(kind, "a") for kind in KINDS)).messages[:1]
    said = model.respond(messages, root=files, max_tokens=6)
    save_model(model.network, model.tokenizer, tmp_path / "saved", learnt=set())
    network, tokenizer = load_model(tmp_path / "saved")
    assert network.config == model.network.config
    assert all(torch.equal(one, network.state_dict()[key]) for key, one in model.network.state_dict().items())
    assert Model(network, tokenizer).respond(messages, root=files, max_tokens=6) == said


def test_on_a_gpu_it_is_the_same(files: Path) -> None:
    model = tiny()
    model.processor.stop_ids.clear()
    prompts = [model.processor.prompt(sample(files, *(medium(kind, "a") for kind in KINDS)).messages[:1], files)]
    expected = model.engine.generate(prompts, max_tokens=5)
    move_to_gpu(model.network)
    with PretendGpu() as gpu:
        assert model.engine.generate(prompts, max_tokens=5) == expected
    assert gpu.operations > 100


def of_own_and_others(model: Model, files: Path, kind: str) -> tuple[float, float]:
    """Mean losses of two answers beside their own media, and beside each other's."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for name in "ab":
        for answer in "ab":
            batch = collate([[model.processor.encode(sample(files, medium(kind, name), answer=ANSWERS[kind][answer]))]], model.tokenizer.pad_id)
            with torch.no_grad():
                logits = model.network.logits(model.network(batch).hidden_BTD)
            before = batch.in_front_of_learned()
            loss = cross_entropy(logits[before], batch.input_ids_BT[batch.learn_BT])
            found[name == answer].append(float(loss))
    return sum(found[True]) / 2, sum(found[False]) / 2


ANSWERS = {"video": {"a": "red", "b": "blue"}, "audio": {"a": "low", "b": "high"}, "image": {"a": "rot", "b": "blau"}}


def test_a_tiny_model_learns_what_it_sees_and_hears(files: Path, tmp_path: Path) -> None:
    """Answers become likelier beside their own videos, sounds and pictures than beside others; the run keeps features, and is the run without."""
    lines = [json.dumps(row(medium(kind, name), answer=ANSWERS[kind][name])) for kind in KINDS for name in "ab"]
    (files / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    form = TINY_FORMS.find("next-gpt")()
    data = {"kind": "file", "path": str(files / "rows.jsonl"), "format": "samples"}
    learns = (Learn(part="projectors.image", lr=1e-1), Learn(part="backbone", lr=5e-3))
    losses: list[list[float]] = []
    for cached, steps in ((False, 8), (True, 8), (True, 100)):
        stage = StageConfig.from_dict({"name": "talk", "objective": InstructConfig().to_dict(), "data": [data], "steps": steps, "batch_size": 6, "workers": 0,
                                       "learns": [one.to_dict() for one in learns], "cache_features": cached, "precision": "fp32"})  # fmt: skip
        recipe = form.model_copy(update={"stages": (stage,), "model": form.model.model_copy(update={"adapter": None})})
        folder = tmp_path / f"run{len(losses)}"
        train_recipe(recipe, lambda recipe=recipe: build_pretrained(recipe.model), save_model, TrainerOptions(folder=folder, cache=tmp_path / "cache"))
        losses.append([line["loss"] for line in read_log(folder / "log.jsonl")])
    assert losses[0] == losses[1]
    model = Model(*load_model(folder / "model"))
    for kind in KINDS:
        own, others = of_own_and_others(model, files, kind)
        assert own < others - 0.2, kind


def test_features_of_clips_are_kept(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    rows = [sample(files, *(medium(kind, name) for kind in KINDS)) for name in "ab"]
    expected = [states(model, [model.processor.encode(one)]) for one in rows]
    kinds, _ = storable(model.network)
    assert sorted(kinds) == sorted(KINDS)
    for number in range(2):
        store = FeatureStore(model.network, kinds, StoreOptions(tmp_path / "store"))
        with used_by(model.network, model.processor, store):
            examples = [model.processor.encode(one) for one in rows]
            if number:
                assert all(not len(media.pixels_NCHW) for example in examples for media in example.media.values())
            for one, wanted in zip(examples, expected, strict=True):
                assert torch.equal(states(model, [one]), wanted)
        assert len(set(store.towers.values())) == 1
        assert (store.towers["video"].hits, store.writer.written) == ((6, 0) if number else (0, 6))
    # What is found is not decoded; of a batch some may be new, and what was given as numbers is never kept.
    row_of_both = collate([[model.processor.encode(sample(files, medium("video", "a")))], [model.processor.encode(
        sample(files, {"type": "video", "video": film((0, 200, 0))}))]], model.tokenizer.pad_id)  # fmt: skip
    expected_NJ = model.network.encode("video", row_of_both.media["video"]).values_ND.detach()
    store = FeatureStore(model.network, kinds, StoreOptions(tmp_path / "store"))
    with used_by(model.network, model.processor, store):
        monkeypatch.setattr(clips_module, "mel_clips", lambda *_, **__: pytest.fail("decoded again"))
        model.processor.encode(sample(files, medium("audio", "a")))
        mixed = collate([[model.processor.encode(sample(files, medium("video", "a")))], [model.processor.encode(
            sample(files, {"type": "video", "video": film((0, 200, 0))}))]], model.tokenizer.pad_id).media["video"]  # fmt: skip
        assert len(mixed.pixels_NCHW) == 1
        torch.testing.assert_close(model.network.encode("video", mixed).values_ND, expected_NJ, atol=1e-6, rtol=1e-6)
    assert store.writer.written == 0


def test_rows_whose_media_are_gone_or_broken_say_so(files: Path) -> None:
    model = tiny()
    for kind in ("video", "audio"):
        with pytest.raises(MediaError, match="no such file"):
            model.processor.measure(sample(files, medium(kind, "gone")))
    (files / "broken.wav").write_bytes(b"RIFF....WAVEfmt ")
    assert len(model.processor.measure(sample(files, medium("audio", "broken")))) > 0
    with pytest.raises(MediaError):
        model.processor.encode(sample(files, medium("audio", "broken")))
    with pytest.raises(DataError, match="does not take a part of type 'points'"):
        model.processor.encode(parse_sample(row({"type": "points", "points": "x"})))


def test_a_model_without_clips_takes_none(files: Path) -> None:
    torch.manual_seed(0)
    model = Model(*build_pretrained(RECIPES.find("tiny")().model))
    with pytest.raises(DataError, match=r"does not take a part of type 'audio'[\s\S]*text or image"):
        model.processor.encode(sample(files, medium("audio", "a")))
    with pytest.raises(ConfigError, match=r"does not take audio[\s\S]*image"):
        model.respond(sample(files, medium("audio", "a")).messages[:1], root=files)


def changed(**changes: Any) -> ModelConfig:
    config = TINY_FORMS.find("next-gpt")().model
    lane = {key: changes.pop(key) for key in list(changes) if key in LaneConfig.model_fields}
    lanes = {"lanes": {"image": config.lane("image").model_copy(update=lane)}} if lane else {}
    return config.model_copy(update=lanes | changes)


@pytest.mark.parametrize(("changes", "says"), [
    ({"video": VideoConfig()}, "as frames and as clips"),
    ({"fusion": GatedCrossAttentionConfig.tiny()}, "clips with fusion gated_cross_attention"),
    ({"detail": ImageBindConfig.tiny()}, "detail"),
    ({"places": PlacesConfig()}, "places in a lane that takes clips"),
    ({"encoder": ImageBindConfig(feature="patch", audio=SoundConfig.tiny())}, "means of clips"),
])  # fmt: skip
def test_what_cannot_take_clips_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_model(changed(**changes))


def test_two_lanes_for_one_kind_are_refused() -> None:
    lane = changed().lane("image")
    with pytest.raises(ConfigError, match="video in 2 lanes"):
        check_model(changed(lanes={"image": lane, "other": lane}))
    # A lane by that name would be built, and nothing would go through it.
    with pytest.raises(ConfigError, match="video in 2 lanes, image, video"):
        check_model(changed(lanes={"image": lane, "video": lane.model_copy(update={"encoder": ImageBindConfig.tiny()})}))


def test_processes_do_not_divide_what_runs_as_often_as_media_ask() -> None:
    """A rank without sound would wait for one with some."""
    config = ImageBindConfig.tiny()
    assert dividable_blocks(config.build())
    assert dividable_blocks(config.model_copy(update={"video": FrameClips()}).build()) == []
