"""Masks of boxes: a generator that cuts boxes out, what teaches it, and answers whose boxes get masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.boxes import Box
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.hands import Cuts
from sensorium.core.masks import Mask
from sensorium.core.sample import Part, parse_sample
from sensorium.data.config import FileSource
from sensorium.encoders import ENCODERS
from sensorium.generators.cutter import Cutter, CutterConfig
from sensorium.generators.sam import SamConfig
from sensorium.inference.making import Maker
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.interop.start import start_from
from sensorium.media.anyres import AnyResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.model.learning import Learn
from sensorium.processing.processor import Processor
from sensorium.training.config import Recipe, StageConfig
from sensorium.training.objectives.cut import CutConfig
from sensorium.training.run import train_recipe
from sensorium.training.trainer import TrainerOptions


def model_config(generator: CutterConfig | SamConfig = CutterConfig.tiny()) -> ModelConfig:
    lane = LaneConfig(encoder=ENCODERS.find("clip").tiny(), projector=INPUT_PROJECTORS.find("mlp").tiny())
    return ModelConfig(lanes={"image": lane}, backbone=CausalLMConfig.tiny(), template="plain", boxes="minigpt_v2",
                       hands={"mask": HandConfig(generator=generator)})  # fmt: skip


def disc() -> tuple[np.ndarray, Mask]:
    """A bright disc in a corner of a dark picture, and its mask."""
    y, x = np.mgrid[:40, :60]
    inside = (y - 30) ** 2 + (x - 48) ** 2 <= 64
    picture = np.full((40, 60, 3), 30, dtype=np.uint8)
    picture[inside] = 220
    return picture, Mask.from_array(inside)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    picture, mask = disc()
    Image.fromarray(picture).save(tmp_path / "a.png")
    answer = [{"type": "boxes", "boxes": [list(mask.box.numbers)]}, {"type": "mask", "mask": mask.to_json()}]
    value = {"messages": [{"role": "user", "content": [{"type": "image", "image": "a.png"}]},
                          {"role": "assistant", "content": answer}]}  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join([json.dumps(value)] * 4))
    return tmp_path / "rows.jsonl"


def test_masks_of_boxes_take_no_tokens_and_are_known_to_training(rows: Path) -> None:
    config = model_config()
    processor = Processor(config, build_pretrained(config)[1])
    value = json.loads(rows.read_text().splitlines()[0])
    found = processor.encode(parse_sample(value, root=rows.parent))
    assert [one.medium for one in found.wanted] == [disc()[1]]
    del value["messages"][1]["content"][1]
    assert processor.encode(parse_sample(value, root=rows.parent)).input_ids == found.input_ids


def test_a_stage_teaches_it_and_saves_it_with_the_model(rows: Path, tmp_path: Path) -> None:
    stage = StageConfig(name="cut", objective=CutConfig(), data=(FileSource(path=str(rows)),), steps=30, batch_size=4, max_length=128,
                        learns=(Learn(part="objective", lr=1e-2),), precision="fp32")  # fmt: skip
    recipe = Recipe(name="cut", description="tiny", model=model_config(), stages=(stage,))
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, TrainerOptions(folder=tmp_path / "run", cache=tmp_path / "cache"))
    model, _ = load_model(tmp_path / "run" / "model")
    picture, mask = disc()
    cutter = model.generators["mask"]
    assert isinstance(cutter, Cuts)
    assert isinstance(cutter, Cutter)
    assert mask.box is not None
    found, elsewhere = cutter.cut(picture, [mask.box, Box(2, 2, 12, 12)])
    assert found.kind == "mask"
    assert found.array.shape == (40, 60)
    assert Mask.from_array(found.array).iou(mask) > 0.7
    assert not elsewhere.array[20:, 30:].any()
    # A model that starts from this one cuts as well, though it does not learn to, and is saved so.
    again, tokenizer = build_pretrained(recipe.model)
    started = start_from(again, tmp_path / "run" / "model")
    save_model(again, tokenizer, tmp_path / "next", started.names)
    last = load_model(tmp_path / "next")[0].generators["mask"]
    assert isinstance(last, Cutter)
    assert np.array_equal(last.cut(picture, [mask.box])[0].array, found.array)
    other, _ = build_pretrained(model_config(CutterConfig(side_px=16, width=8)))
    start_from(other, tmp_path / "run" / "model")
    assert isinstance(other.generators["mask"], Cutter)


@pytest.mark.parametrize("generator", [CutterConfig.tiny(), SamConfig.tiny()])
def test_each_box_of_an_answer_gets_its_mask(generator: CutterConfig | SamConfig, rows: Path) -> None:
    torch.manual_seed(0)
    model, tokenizer = build_pretrained(model_config(generator))
    processor = Processor(model.config, tokenizer)
    asked = parse_sample(json.loads(rows.read_text().splitlines()[0]), root=rows.parent)
    prompt = processor.encode(asked)
    ids = tokenizer.encode("two: {<10><20><30><40>} and {<50><50><90><99>}.")
    parts = Maker(model, processor).parts(prompt, ids, asked)
    assert [part.type for part in parts] == ["text", "boxes", "mask", "text", "boxes", "mask", "text"]
    assert all(part.value["size"] == [40, 60] and part.value["picture"] == 1 for part in parts if part.type == "mask")
    boxes = [Box(*part.value["places"][0]) for part in parts if part.type == "boxes"]
    cutter = model.generators["mask"]
    assert isinstance(cutter, Cuts)
    alone = [Mask.from_array(made.array).to_json() for made in cutter.cut(disc()[0], boxes)]
    assert [part.value["counts"] for part in parts if part.type == "mask"] == [one["counts"] for one in alone]


@pytest.mark.parametrize("thumbnail", [True, False])
def test_masks_of_a_tiled_picture_are_of_the_whole_picture(thumbnail: bool, tmp_path: Path) -> None:
    picture, mask = disc()
    wide = np.concatenate([np.full((40, 140, 3), 30, dtype=np.uint8), picture], axis=1)
    truth = Mask.from_array(np.pad(mask.array(), ((0, 0), (140, 0))))
    Image.fromarray(wide).save(tmp_path / "wide.png")
    config = model_config()
    tiles = AnyResolution.tiny().model_copy(update={"thumbnail": thumbnail})
    lane = config.lanes["image"].model_copy(update={"resolution": tiles})
    model, tokenizer = build_pretrained(config.model_copy(update={"lanes": {"image": lane}}))
    processor = Processor(model.config, tokenizer)
    assert truth.box is not None
    said = [{"type": "boxes", "boxes": [list(truth.box.numbers)]}, {"type": "mask", "mask": truth.to_json()}]
    asked = {"messages": [{"role": "user", "content": [{"type": "image", "image": "wide.png"}, {"type": "text", "text": "Where?"}]},
                          {"role": "assistant", "content": said}]}  # fmt: skip
    sample = parse_sample(asked, root=tmp_path)
    example = processor.encode(sample)
    assert len(example.media["image"].pixels_NCHW) > 1
    # What is learned is the mask as it was given; what is answered, the place in the picture, not in a tile.
    assert [one.medium for one in example.wanted] == [truth]
    ids = [i for i, learn in zip(example.input_ids, example.learn, strict=True) if learn]
    boxes, found = Maker(model, processor).parts(processor.prompt(sample.messages[:1], tmp_path), ids, sample)[:2]
    assert boxes.value["places"][0] == pytest.approx(truth.box.numbers, abs=3.0)
    assert (found.type, found.value["size"]) == ("mask", [40, 200])
    said[1] = {"type": "mask", "mask": mask.to_json()}
    with pytest.raises(DataError, match=r"a mask of 60x40 pixels for a picture of 200x40; expected masks of the whole picture"):
        processor.encode(parse_sample(asked, root=tmp_path))


def test_damaged_weights_cost_the_masks_alone(rows: Path) -> None:
    model, tokenizer = build_pretrained(model_config())
    cutter = model.generators["mask"]
    assert isinstance(cutter, Cutter)
    torch.nn.init.constant_(cutter.out.weight, torch.nan)
    processor = Processor(model.config, tokenizer)
    asked = parse_sample(json.loads(rows.read_text().splitlines()[0]), root=rows.parent)
    boxes, missing = Maker(model, processor).parts(processor.encode(asked), tokenizer.encode("{<10><20><30><40>}"), asked)
    assert (boxes.type, missing.value["kind"]) == ("boxes", "mask")
    assert missing.value["error"].startswith("generator cutter: masks that are not finite")


def test_a_picture_that_is_lost_costs_the_mask_alone(rows: Path) -> None:
    model, tokenizer = build_pretrained(model_config())
    processor = Processor(model.config, tokenizer)
    asked = parse_sample(json.loads(rows.read_text().splitlines()[0]), root=rows.parent)
    prompt = processor.encode(asked)
    (rows.parent / "a.png").unlink()
    kept = Maker(model, processor).parts(prompt, tokenizer.encode("{<10><20><30><40>}"), asked)
    assert [part.type for part in kept] == ["boxes", "missing"]
    assert isinstance(kept[1], Part)
    assert "a.png" in kept[1].value["error"]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="told by boxes"):
        _ = CutterConfig.tiny().condition
    with pytest.raises(ConfigError, match="shape"):
        CutterConfig.tiny().build().cut(np.zeros((4, 4), dtype=np.uint8), [Box(0, 0, 2, 2)])
    config = model_config(SamConfig.tiny())
    model, tokenizer = build_pretrained(config)
    with pytest.raises(ConfigError, match="expected one that learns to cut boxes out"):
        CutConfig().build(model, Processor(config, tokenizer), ())
    plain = config.model_copy(update={"hands": {}})
    model, tokenizer = build_pretrained(plain)
    with pytest.raises(ConfigError, match="makes no masks"):
        CutConfig().build(model, Processor(plain, tokenizer), ())
