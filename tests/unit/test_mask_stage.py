"""LISA's stage as training runs it: what learns, what a batch knows of its masks, and that a taught decoder is saved."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.masks import Mask
from sensorium.core.sample import Sample, parse_sample
from sensorium.data.config import FileSource
from sensorium.encoders import ENCODERS
from sensorium.generators.sam import SamConfig
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.media.augment import Augmentation
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.model.learning import Learn
from sensorium.nn.pretrained import read_file
from sensorium.output_projectors.mask_prompt import MaskPromptConfig
from sensorium.processing.collate import collate
from sensorium.processing.masks import mask_part
from sensorium.processing.processor import Processor
from sensorium.training.config import Recipe, StageConfig
from sensorium.training.objectives.masks import MaskConfig, MaskObjective
from sensorium.training.objectives.next_token import InstructConfig, next_token_losses
from sensorium.training.run import train_recipe
from sensorium.training.trainer import TrainerOptions


def model_config() -> ModelConfig:
    backbone = CausalLMConfig.tiny()
    backbone = backbone.model_copy(update={"arch": backbone.arch | {"vocab_size": 264}, "added_tokens": ("[SEG]",)})
    hand = HandConfig(signals=("[SEG]",), projector=MaskPromptConfig(), generator=SamConfig.tiny())
    lane = LaneConfig(encoder=ENCODERS.find("clip").tiny(), projector=INPUT_PROJECTORS.find("mlp").tiny())
    return ModelConfig(lanes={"image": lane}, backbone=backbone, hands={"mask": hand}, template="plain")


def a_mask(x0: int, x1: int) -> Mask:
    inside = np.zeros((20, 40), dtype=bool)
    inside[5:15, x0:x1] = True
    return Mask.from_array(inside)


def row(*answer: Any, image: str = "a.png") -> dict[str, Any]:
    content = [{"type": "image", "image": image}, {"type": "text", "text": "What is what?"}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": list(answer)}]}


ROWS = [
    row("Left ", mask_part(a_mask(2, 9)).to_json(), ", right ", mask_part(a_mask(20, 38)).to_json()),
    row("Sure, ", mask_part(a_mask(0, 40)).to_json(), "."),
    row("Nothing."),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path / "a.png")
    (path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    return path


def samples(folder: Path) -> list[Sample]:
    return [parse_sample(value, root=folder) for value in ROWS]


def recipe(folder: Path, *learns: str) -> Recipe:
    stage = StageConfig(
        name="masks", objective=MaskConfig(), data=(FileSource(path=str(folder / "rows.jsonl")),),
        learns=tuple(Learn(part=part, lr=1e-2) for part in learns), steps=2, batch_size=3, max_length=128,
        precision="fp32",
    )  # fmt: skip
    return Recipe(name="masked", description="tiny", model=model_config(), stages=(stage,))


def test_a_batch_knows_its_masks_and_their_picture(folder: Path) -> None:
    config = model_config()
    _, tokenizer = build_pretrained(config)
    processor = Processor(config, tokenizer)
    first, second, third = (processor.encode(sample) for sample in samples(folder))
    assert [one.medium for one in first.wanted] == [a_mask(2, 9), a_mask(20, 38)]
    assert {(one.picture, one.root) for one in first.wanted} == {("a.png", folder)}
    assert third.wanted == ()
    assert len(processor.measure(samples(folder)[0])) == len(first)
    batch = collate([[second, first], [third]], tokenizer.pad_id)
    assert [one.medium.area for one in batch.wanted] == [400, 70, 180]
    wrong = row("x ", mask_part(Mask(40, 20, (800,))).to_json())
    with pytest.raises(DataError, match="a mask of 20x40 pixels for a picture of 40x20"):
        processor.encode(parse_sample(wrong, root=folder))


def test_a_picture_with_a_mask_is_not_moved(folder: Path) -> None:
    """Cropped or on a larger canvas it would have another size than its mask."""
    config = model_config()
    processor = Processor(config, build_pretrained(config)[1])
    for seed in range(4):
        example = processor.encode(samples(folder)[0], augmentation=Augmentation(random.Random(seed)))
        assert [one.medium for one in example.wanted] == [a_mask(2, 9), a_mask(20, 38)]


def test_the_loss_is_words_plus_masks_whatever_shares_a_row(folder: Path) -> None:
    torch.manual_seed(0)
    model, tokenizer = build_pretrained(model_config())
    processor = Processor(model.config, tokenizer)
    objective = MaskConfig().build(model, processor, ())
    assert isinstance(objective, MaskObjective)
    examples = [processor.encode(sample) for sample in samples(folder)]
    looks: list[int] = []
    handle = model.generators["mask"].model.vision_encoder.register_forward_hook(lambda *_: looks.append(1))  # pyright: ignore
    with torch.no_grad():
        apart = objective(model, collate([[e] for e in examples], tokenizer.pad_id))
        packed = objective(model, collate([examples], tokenizer.pad_id))
        none = objective(model, collate([examples[2:]], tokenizer.pad_id))
        words = next_token_losses(model, collate([[e] for e in examples], tokenizer.pad_id))
    handle.remove()
    # Apart each picture is looked at once for both of its masks; two samples of one row and one file share a look.
    assert len(looks) == 2 + 1
    for name, value in apart.parts.items():
        assert packed.parts[name] == pytest.approx(value, abs=1e-5)
    assert apart.parts["next_token"] == pytest.approx(words.parts["next_token"], abs=1e-5)
    total = apart.parts["next_token"] + 2 * apart.parts["bce"] + 0.5 * apart.parts["dice"]
    assert float(apart.total) / apart.count == pytest.approx(total, abs=1e-5)
    assert set(none.parts) == {"next_token"}


def test_what_looks_at_pictures_is_where_the_model_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the batch on which a stage is tried: on a GPU, where only the decoder's layers had gone with the model, LISA stopped there."""
    model, tokenizer = build_pretrained(model_config())
    objective = MaskConfig().build(model, Processor(model.config, tokenizer), ())
    example = Processor(model.config, tokenizer).encode(samples(folder)[0])
    moved: list[torch.device] = []
    monkeypatch.setattr(objective.sam, "to", moved.append)  # pyright: ignore[reportAttributeAccessIssue]
    objective(model, collate([[example]], tokenizer.pad_id))
    assert moved == [model.device]


@pytest.mark.parametrize("taught", [True, False])
def test_a_taught_decoder_is_saved_with_the_model(taught: bool, folder: Path, tmp_path: Path) -> None:
    own = recipe(folder, "hands.mask", *(["objective"] if taught else []))
    kept: list[Any] = []

    def build() -> Any:
        model, tokenizer = build_pretrained(own.model)
        kept.append((model, {n: v.clone() for n, v in model.generators["mask"].state_dict().items()}))  # pyright: ignore
        return model, tokenizer

    train_recipe(own, build, save_model, TrainerOptions(folder=tmp_path, cache=tmp_path / "cache"))
    model, before = kept[-1]
    after = model.generators["mask"].state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert bool(moved) is taught
    assert all(name.startswith("model.mask_decoder.") for name in moved)
    saved = tmp_path / "model" / "generators" / "mask"
    assert saved.is_dir() is taught
    if not taught:
        return
    again, tokenizer = load_model(tmp_path / "model")
    for name, value in again.generators["mask"].state_dict().items():  # pyright: ignore
        assert torch.equal(value, after[name]), name
    # Saved again elsewhere, it is not lost.
    save_model(again, tokenizer, tmp_path / "copy", learnt=set())
    assert (tmp_path / "copy" / "generators" / "mask" / "model.safetensors").is_file()


def test_a_run_that_goes_on_in_a_later_stage_keeps_the_taught_decoder(folder: Path, tmp_path: Path) -> None:
    taught = recipe(folder, "hands.mask", "objective")
    later = StageConfig(name="words", objective=InstructConfig(), data=taught.stages[0].data, steps=1, batch_size=3,
                        learns=(Learn(part="projectors.image", lr=1e-3),), max_length=128, precision="fp32")  # fmt: skip
    own = taught.model_copy(update={"stages": (*taught.stages, later)})
    file = tmp_path / "model" / "generators" / "mask" / "model.safetensors"
    found: list[dict[str, torch.Tensor]] = []
    for resume in (False, True):
        # The second time everything is done but the saving, in a process that never saw the first stage.
        options = TrainerOptions(folder=tmp_path, cache=tmp_path / "cache", resume=resume)
        train_recipe(own, lambda: build_pretrained(own.model), save_model, options)
        found.append(read_file(file))
        file.unlink()
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_models_that_make_no_masks_are_refused(folder: Path) -> None:
    config = model_config().model_copy(update={"hands": {}})
    model, tokenizer = build_pretrained(config)
    with pytest.raises(ConfigError, match="makes no masks"):
        MaskConfig().build(model, Processor(config, tokenizer), ())
    model, tokenizer = build_pretrained(model_config())
    model.generators.put("mask", replace)  # pyright: ignore
    with pytest.raises(ConfigError, match="generator of type function"):
        MaskConfig().build(model, Processor(model.config, tokenizer), ())
