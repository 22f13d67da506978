"""Videos in Samples: frames become pictures of questions and answers, in Emu's, Emu2's and SEED-LLaMA's tiny forms."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image
from test_picture_words import config as words_config
from torch import Tensor

from sensorium.api import Model
from sensorium.core.errors import ConfigError, DataError, MediaError
from sensorium.core.sample import Sample, parse_messages, parse_sample
from sensorium.core.video import VideoConfig
from sensorium.data.both_ways import BothWaysSource
from sensorium.data.config import FileSource
from sensorium.data.formats.webdataset import open_webdataset
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.processing.collate import collate
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.training.log import read_log
from sensorium.training.objectives.regress import RegressConfig
from sensorium.training.options import TrainerOptions
from sensorium.training.run import train_recipe

needs_diffusers = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
SYSTEMS = [pytest.param(name, marks=needs_diffusers) for name in ("emu", "emu2", "seed-llama")]
COUNT = 23
"""Frames of the video."""


def shots(count: int = COUNT) -> list[Image.Image]:
    """A square that goes to the right."""
    made = [Image.new("RGB", (48, 40), (200, 210, 220)) for _ in range(count)]
    for i, one in enumerate(made):
        one.paste((10 * i % 256, 30, 90), (i, 8, i + 16, 24))
    return made


@pytest.fixture
def film(tmp_path: Path) -> Path:
    first, *others = shots()
    first.save(tmp_path / "walk.png", save_all=True, append_images=others)
    return tmp_path / "walk.png"


def tiny(name: str) -> Model:
    torch.manual_seed(0)
    return Model(*build_pretrained(TINY_FORMS.find(name)().model))


def asked(part: dict[str, Any] | list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    parts = part if isinstance(part, list) else [part]
    return {"messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "What happens?"}]},
                         {"role": "assistant", "content": "It moves."}], **more}  # fmt: skip


def as_pictures(name: str) -> list[dict[str, Any]]:
    """The frames that the authors' code takes of `COUNT`."""
    size = (COUNT - 1) / 8
    at = [int(size / 2) + round(size * i) for i in range(8)] if name != "seed-llama" else [2, 7, 13, 19]
    return [{"type": "image", "image": shots()[i]} for i in at]


def pixels(example: Any) -> Tensor:
    (media,) = example.media.values()
    return media.pixels_NCHW


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_video_is_its_frames(name: str, film: Path) -> None:
    model = tiny(name)
    video = {"type": "video", "video": "walk.png"}
    sample = parse_sample(asked(video), root=film.parent)
    found = model.processor.encode(sample)
    wanted = model.processor.encode(parse_sample(asked(as_pictures(name))))
    ids, learn = found.input_ids, found.learn
    if name == "emu2":
        # A token of its own in front of the first frame.
        token = model.tokenizer.special_id("[VIDEO]")
        place = ids.index(token)
        assert ids.count(token) == 1
        assert ids[place + 1] == model.tokenizer.special_id("[IMG]")
        ids, learn = ids[:place] + ids[place + 1 :], learn[:place] + learn[place + 1 :]
    assert (ids, learn) == (wanted.input_ids, wanted.learn)
    assert torch.equal(pixels(found), pixels(wanted))
    # Lengths are planned by headers.
    assert model.processor.measure(sample).input_ids == found.input_ids
    assert len(found.seen) == len(as_pictures(name))


@pytest.mark.parametrize("name", SYSTEMS)
def test_an_answer_is_of_what_was_seen(name: str, film: Path, tmp_path: Path) -> None:
    model = tiny(name)
    question = parse_messages([{"role": "user", "content": [{"type": "video", "video": str(film)}, {"type": "text", "text": "What?"}]}])
    shown = parse_messages([{"role": "user", "content": [*as_pictures(name), {"type": "text", "text": "What?"}]}])
    if name != "emu2":
        assert model.respond(question, max_tokens=6) == model.respond(shown, max_tokens=6)
    # How a model reads videos is saved with it.
    save_model(model.network, model.tokenizer, tmp_path / "saved", learnt=set())
    again, _ = load_model(tmp_path / "saved")
    assert again.config.video == model.network.config.video


@needs_diffusers
def test_emu_foretells_the_frames_of_a_video_behind_its_text(film: Path) -> None:
    """All that it writes of pictures holds for them: each frame is a picture of the answer, learned embedding by embedding."""
    model = tiny("emu")
    text = {"type": "text", "text": "A square moves."}
    answer = lambda parts: parse_sample({"messages": [{"role": "assistant", "content": [text, *parts]}]})  # noqa: E731
    processor = model.processor.with_template("emu_document")
    found, wanted = (processor.encode(answer(parts)) for parts in ([{"type": "video", "video": str(film)}], as_pictures("emu")))
    assert (found.input_ids, found.learn, len(found.wanted)) == (wanted.input_ids, wanted.learn, 8)
    assert [(one.kind, one.start, one.count) for one in found.wanted] == [(one.kind, one.start, one.count) for one in wanted.wanted]
    objective = RegressConfig(layout="emu_document").build(model.network, processor, ())
    batches = [collate([[one]], model.tokenizer.pad_id) for one in (found, wanted)]
    losses = [objective(model.network, batch) for batch in batches]
    assert float(losses[0].total.detach()) == float(losses[1].total.detach())
    assert losses[0].count > 8


@needs_diffusers
def test_of_seeds_videos_the_caption_alone_is_learned(film: Path) -> None:
    model = tiny("seed-llama")
    sample = parse_sample({"messages": [{"role": "user", "content": [{"type": "video", "video": str(film)}]},
                                        {"role": "assistant", "content": "A square."}]})  # fmt: skip
    example = model.processor.with_template("document").encode(sample)
    batch = model.network.read(collate([[example]], model.tokenizer.pad_id))
    coded = torch.isin(batch.input_ids_BT, cast(Tensor, model.network.code_words))
    (codes,) = example.media.values()
    assert len(codes.plans) == 4
    assert int(coded.sum()) == 4 * model.network.picture_tokenizer.config.grid().tokens  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue, reportAttributeAccessIssue]
    assert not bool((coded & batch.learn_BT).any())
    assert bool(batch.learn_BT.any())


@needs_diffusers
@pytest.mark.parametrize("name", ["emu", "seed-llama"])
def test_rows_with_videos_train(name: str, film: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    talk, pair = asked({"type": "video", "video": "walk.png"}), asked([{"type": "video", "video": [f"{i}.png" for i in range(3)]}])
    for i, one in enumerate(shots(3)):
        one.save(tmp_path / f"{i}.png")
    rows.write_text("".join(json.dumps(row) + "\n" for row in (talk, pair)), encoding="utf-8")
    recipe = TINY_FORMS.find(name)().override([f"model.video.frames={2}"])
    source: Any = FileSource(path=str(rows), format="samples")
    first, *_, second = recipe.stages
    stages = (first.model_copy(update={"data": (BothWaysSource(source=source) if name == "emu" else source,), "steps": 2}),
              second.model_copy(update={"data": (source,), "steps": 2}))  # fmt: skip
    recipe = recipe.model_copy(update={"stages": stages})
    options = TrainerOptions(folder=tmp_path / "run", cache=tmp_path / "cache")
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)
    losses = [line["loss"] for line in read_log(tmp_path / "run" / "log.jsonl")]
    assert len(losses) == 4
    assert all(loss is not None and loss > 0 for loss in losses)


def test_shards_hold_videos_with_captions(film: Path, tmp_path: Path) -> None:
    import io
    import tarfile

    with tarfile.open(tmp_path / "0000.tar", "w") as shard:
        for name, content in (("a.mp4", film.read_bytes()), ("a.txt", b"A square moves.")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    sample = open_webdataset(tmp_path / "0000.tar")[0]
    assert [part.type for part in sample.media()] == ["video"]
    assert sample.messages[-1].text == "A square moves."


def test_a_model_that_takes_none_says_so(film: Path) -> None:
    torch.manual_seed(0)
    model = Model(*build_pretrained(RECIPES.find("tiny")().model))
    sample = parse_sample(asked({"type": "video", "video": str(film)}))
    with pytest.raises(DataError, match=r"does not take a part of type 'video'[\s\S]*text or image"):
        model.processor.encode(sample)
    with pytest.raises(ConfigError, match="does not take video"):
        model.respond(sample.messages[:1])
    given = Model(*build_pretrained(RECIPES.find("tiny")().model.model_copy(update={"video": VideoConfig(frames=2)})))
    assert len(given.processor.encode(sample).seen) == 2
    with pytest.raises(MediaError, match="no such file"):
        given.processor.encode(Sample(parse_sample(asked({"type": "video", "video": "gone.mp4"})).messages, root=film.parent))


def test_a_model_without_pictures_cannot_have_frames() -> None:
    blind = words_config(shared=True).model_dump() | {"picture_words": None, "video": {"frames": 2}}
    with pytest.raises(ConfigError, match="reads no pictures"):
        type(words_config(shared=True)).from_dict(json.loads(json.dumps(blind)))
