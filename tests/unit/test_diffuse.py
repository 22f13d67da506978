"""Latent diffusion as an objective: what it adds up to, where its gradients go, and a UNet that is taught."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.sample import parse_sample
from sensorium.data.config import FileSource
from sensorium.encoders import ENCODERS
from sensorium.generators import GENERATORS
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.model.learning import Learn
from sensorium.model.multimodal import MultimodalModel
from sensorium.output_projectors import OUTPUT_PROJECTORS
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.recipes import TINY_FORMS
from sensorium.training.config import Recipe, StageConfig
from sensorium.training.objectives.base import ObjectiveConfig
from sensorium.training.objectives.diffuse import Diffuse, DiffuseConfig
from sensorium.training.objectives.known_states import KnownStates, _alike
from sensorium.training.objectives.next_token import InstructConfig, next_token_losses
from sensorium.training.objectives.picture_latents import PictureLatentsConfig
from sensorium.training.preflight import check_stages
from sensorium.training.run import train_recipe
from sensorium.training.trainer import TrainerOptions

pytestmark = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
SIGNALS = ("[IMG0]", "[IMG1]")


def config(generator: str = "stable_diffusion", projector: str = "encoder_decoder") -> ModelConfig:
    backbone = CausalLMConfig.tiny()
    backbone = backbone.model_copy(update={"arch": backbone.arch | {"vocab_size": 265}, "added_tokens": SIGNALS})
    made = GENERATORS.find(generator).tiny()
    hand = HandConfig(signals=SIGNALS, projector=OUTPUT_PROJECTORS.find(projector).tiny(), generator=made)
    lane = LaneConfig(encoder=ENCODERS.find("clip").tiny(), projector=INPUT_PROJECTORS.find("mlp").tiny())
    return ModelConfig(lanes={"image": lane}, backbone=backbone, hands={made.makes: hand}, template="plain")


def row(caption: str, colour: tuple[int, int, int], *, size: tuple[int, int] = (64, 64)) -> dict[str, Any]:
    picture = {"type": "image", "image": Image.new("RGB", size, colour)}
    said = {"role": "assistant", "content": [{"type": "text", "text": f"{caption} "}, picture]}
    return {"messages": [{"role": "user", "content": "Draw."}, said]}


ROWS = [row("a lawn", (9, 99, 9)), row("a sea", (9, 9, 200), size=(90, 70))]


@pytest.fixture(scope="module")
def drawing() -> tuple[MultimodalModel, Processor, Batch]:
    torch.manual_seed(0)
    model, tokenizer = build_pretrained(config())
    processor = Processor(model.config, tokenizer)
    return model, processor, collate([[processor.encode(parse_sample(one))] for one in ROWS], tokenizer.pad_id)


def by_hand(model: MultimodalModel, batch: Batch, condition_BLC: torch.Tensor) -> torch.Tensor:
    """MiniGPT-5's: diffusers' own scheduler adds the noise, weights are ratio-clipped, and means are taken."""
    torch.rand(2)
    pipe: Any = model.generators["image"].pipe  # pyright: ignore[reportAttributeAccessIssue]
    # Both pictures are of one colour, so that cutting changes nothing.
    pixels_BCHW = torch.tensor([[9.0, 99, 9], [9, 9, 200]])[:, :, None, None].expand(-1, -1, 64, 64) / 127.5 - 1
    drawn = pipe.vae.encode(pixels_BCHW).latent_dist.sample(torch.Generator().manual_seed(int(torch.randint(2**31, ()))))
    clean, schedule = drawn * pipe.vae.config.scaling_factor, pipe.scheduler
    noise = torch.randn(clean.shape)
    steps_B = torch.randint(schedule.config.num_train_timesteps, (2,))
    said = pipe.unet(schedule.add_noise(clean, noise, steps_B), steps_B, condition_BLC).sample
    alphas_B = schedule.alphas_cumprod[steps_B]
    ratios_B = alphas_B / (1 - alphas_B)
    return (F.mse_loss(said, noise, reduction="none").mean(dim=(1, 2, 3)) * ratios_B.clamp(max=5) / ratios_B).mean()


@pytest.mark.parametrize("unsteered", [0.0, 1.0])
def test_it_is_words_pictures_and_captions(unsteered: float, drawing: tuple[MultimodalModel, Processor, Batch]) -> None:
    model, processor, batch = drawing
    wanted = DiffuseConfig(text_weight=0.01, weight=0.5, caption_weight=0.1, unsteered=unsteered)
    objective = wanted.build(model, processor, ())
    with torch.no_grad():
        torch.manual_seed(3)
        losses = objective(model, batch)
        places = [(one.row, one.start) for one in batch.wanted]
        condition_BLC = model.condition("image", model(batch).hidden_BTD, batch.input_ids_BT, places)
        if unsteered:
            condition_BLC = model.hands["image"].negative(2)  # pyright: ignore[reportCallIssue]
        torch.manual_seed(3)
        picture = by_hand(model, batch, condition_BLC)
        captions = ["", ""] if unsteered else ["a lawn", "a sea"]
        target_BLC = model.generators["image"].encode_text(captions)  # pyright: ignore[reportAttributeAccessIssue]
        words = next_token_losses(model, batch).parts["next_token"]
    whole = 0.01 * words + 0.5 * float(picture) + 0.1 * float(F.mse_loss(condition_BLC, target_BLC))
    assert float(losses.total) / losses.count == pytest.approx(whole, abs=1e-5)
    assert losses.parts["diffusion"] == pytest.approx(float(picture), abs=1e-5)
    assert losses.parts["next_token"] == pytest.approx(words, abs=1e-5)


def test_gradients_reach_projector_and_llm_and_nothing_of_the_pipeline(drawing: tuple[MultimodalModel, Processor, Batch]) -> None:
    model, processor, batch = drawing
    objective = DiffuseConfig(text_weight=0.0).build(model, processor, ())
    model.zero_grad()
    objective(model, batch).total.backward()
    reached = {name.partition(".")[0] for name, weight in model.named_parameters() if weight.grad is not None and bool(weight.grad.any())}
    assert reached == {"hands", "backbone"}
    pipe: Any = model.generators["image"].pipe  # pyright: ignore[reportAttributeAccessIssue]
    weights = [weight for part in (pipe.unet, pipe.vae, pipe.text_encoder) for weight in part.parameters()]
    assert all(weight.grad is None and not weight.requires_grad for weight in weights)
    assert not hasattr(objective, "module")
    # Words alone cost what they cost; and a batch is the same loss however its rows are packed.
    plain = processor.encode(parse_sample({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}))
    pad = processor.tokenizer.pad_id
    both = [processor.encode(parse_sample(one)) for one in ROWS]
    values: list[float] = []
    for rows in ([[both[0]], [both[1]], [plain]], [[both[0], both[1], plain]]):
        torch.manual_seed(5)
        values.append(float(objective(model, collate(rows, pad)).total.detach()))
    assert values[0] == pytest.approx(values[1], abs=1e-5)
    assert set(objective(model, collate([[plain]], pad)).parts) == {"next_token"}


def test_states_are_known_where_nothing_of_the_llm_learns(drawing: tuple[MultimodalModel, Processor, Batch]) -> None:
    model, processor, batch = drawing
    objective = DiffuseConfig(text_weight=0.0).build(model, processor, ())
    assert isinstance(objective, Diffuse)
    found: list[dict[str, float]] = []
    for learns in (True, False, False):
        model.backbone.requires_grad_(learns)
        torch.manual_seed(4)
        found.append(objective(model, batch).parts)
    model.backbone.requires_grad_(True)
    assert set(found[0]) - set(found[1]) == {"next_token"}
    assert found[1]["diffusion"] == pytest.approx(found[0]["diffusion"], abs=1e-5)
    assert found[2] == found[1]
    assert len(objective.known.kept) == 2
    objective.begin(model)
    assert not objective.known.kept


def test_texts_that_are_read_together_are_what_each_is_alone(drawing: tuple[MultimodalModel, Processor, Batch]) -> None:
    """As a GPU reads them: beside padding, whoever the neighbours are."""
    model, processor, _ = drawing
    known = KnownStates(processor.tokenizer.pad_id)
    signals = processor.signals["image"]
    texts = [(*range(40, 40 + count), *signals) for count in (3, 28, 31, 7, 50)]
    alone = {text: known.read(model, [text], alone=True)[0] for text in texts}
    assert [list(some) for some in _alike(texts, alone=False)] == [[texts[0], texts[1], texts[3]], [texts[2], texts[4]]]
    assert [list(some) for some in _alike(texts, alone=True)] == [[texts[i]] for i in (0, 1, 3, 2, 4)]
    together = {text: state for some in _alike(texts, alone=False) for text, state in zip(some, known.read(model, some, alone=False), strict=True)}
    assert all(torch.allclose(alone[text], together[text], atol=1e-5) for text in texts)
    # Whoever the neighbours are, no bit changes.
    for some in _alike([texts[2], texts[1], texts[0]], alone=False):
        assert all(torch.equal(state, together[text]) for text, state in zip(some, known.read(model, some, alone=False), strict=True))


def test_what_cannot_be_taught_is_said() -> None:
    def build(model_config: ModelConfig, objective: ObjectiveConfig = DiffuseConfig()) -> None:
        model, tokenizer = build_pretrained(model_config)
        objective.build(model, Processor(model_config, tokenizer), ())

    with pytest.raises(ConfigError, match="draws no pictures"):
        build(config("text_to_video"))
    with pytest.raises(ConfigError, match="generator of kind unclip; expected stable_diffusion"):
        build(config("unclip"))
    with pytest.raises(ConfigError, match="makes nothing of zeros"):
        build(config(projector="mapper"), DiffuseConfig(unsteered=0.1))
    with pytest.raises(ConfigError, match="looks at no picture"):
        build(config(), DiffuseConfig(unseen=0.1))
    with pytest.raises(ConfigError, match=r"draws by stable_diffusion; expected hands\.image"):
        build(config(), PictureLatentsConfig())


@pytest.mark.parametrize("taught", [False, True])
def test_a_stage_teaches_and_a_taught_unet_is_saved_in_diffusers_layout(taught: bool, tmp_path: Path) -> None:
    plain = config()
    hand = plain.hands["image"]
    pipeline = tmp_path / "pipeline"
    hand.generator.build().save(pipeline)  # pyright: ignore[reportAttributeAccessIssue]
    generator = type(hand.generator).from_dict(hand.generator.to_dict() | {"weights": [{"kind": "folder", "path": str(pipeline)}]})
    model_config = plain.model_copy(update={"hands": {"image": hand.model_copy(update={"generator": generator})}})
    Image.new("RGB", (40, 64), (200, 30, 9)).save(tmp_path / "a.png")
    said = [{"type": "text", "text": "red "}, {"type": "image", "image": "a.png"}]
    line = json.dumps({"messages": [{"role": "user", "content": "Draw."}, {"role": "assistant", "content": said}]})
    (tmp_path / "rows.jsonl").write_text("\n".join([line] * 2))
    parts = ("hands.image", *(["objective"] if taught else []))
    stage = StageConfig(
        name="draw", objective=DiffuseConfig(teach_unet=taught), data=(FileSource(path=str(tmp_path / "rows.jsonl")),), steps=2,
        learns=tuple(Learn(part=part, lr=1e-2) for part in parts), batch_size=2, max_length=64, precision="fp32",
    )  # fmt: skip
    kept: list[MultimodalModel] = []

    def build() -> Any:
        torch.manual_seed(0)
        model, tokenizer = build_pretrained(model_config)
        kept.append(model)
        return model, tokenizer

    recipe = Recipe(name="draws", description="tiny", model=model_config, stages=(stage,))
    first = {name: value.clone() for name, value in generator.build(pipeline).unet.state_dict().items()}  # pyright: ignore[reportAttributeAccessIssue]
    train_recipe(recipe, build, save_model, TrainerOptions(folder=tmp_path / "run", cache=tmp_path / "cache"))
    after: dict[str, torch.Tensor] = kept[-1].generators["image"].unet.state_dict()  # pyright: ignore[reportAttributeAccessIssue]
    moved = [name for name, value in first.items() if not torch.equal(value, after[name])]
    assert bool(moved) is taught
    saved = tmp_path / "run" / "model" / "generators" / "image"
    assert saved.is_dir() is taught
    if taught:
        assert json.loads((saved / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"
        again: Any = load_model(tmp_path / "run" / "model")[0].generators["image"]
        assert all(np.array_equal(value, again.unet.state_dict()[name]) for name, value in after.items())


def test_what_a_stage_requires_binds_no_other() -> None:
    """MGIE's rows hold the picture that is edited; those of a stage that only talks need not."""
    recipe = TINY_FORMS.find("mgie")()
    model, tokenizer = build_pretrained(recipe.model)
    edit = recipe.stages[0]
    talk = {"name": "talk", "objective": InstructConfig(), "learns": tuple(one for one in edit.learns if one.part != "objective")}
    both = recipe.model_copy(update={"stages": (edit, edit.model_copy(update=talk))})
    _, (edits, talks) = check_stages(both, model, Processor(recipe.model, tokenizer))
    sample = parse_sample(ROWS[0])
    with pytest.raises(DataError, match="without one in front of it"):
        edits.processor.encode(sample)
    assert [one.kind for one in talks.processor.encode(sample).wanted] == ["image"]
