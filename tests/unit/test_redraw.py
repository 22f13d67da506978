"""A decoder of embeddings that learns to draw: what steers it, what it is told, what learns, and what it begins with."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image
from test_fed_back import config
from torch import Tensor
from torch.nn import functional as F

from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.core.hands import Making
from sensorium.core.sample import parse_sample
from sensorium.core.weights import FolderSource
from sensorium.data.both_ways import BothWaysSource
from sensorium.data.config import FileSource
from sensorium.generators.sdxl import SdxlConfig
from sensorium.generators.stable_diffusion import StableDiffusionConfig
from sensorium.inference.regressing import Room, go_on
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.emu_decoder import convert_emu2_gen, rewire
from sensorium.interop.locate import locate
from sensorium.interop.originals.base import Beside
from sensorium.interop.originals.emu import decoder_source
from sensorium.interop.saved import load_model, save_model
from sensorium.model.learning import Learn
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.recipes import RECIPES
from sensorium.training.config import Recipe, StageConfig
from sensorium.training.objectives.redraw import RedrawConfig
from sensorium.training.options import TrainerOptions
from sensorium.training.run import train_recipe

pytestmark = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
COLOURS = [(9, 99, 9), (200, 9, 120)]
Made = tuple[MultimodalModel, Processor, Batch]


def document(text: str, colour: tuple[int, int, int], *, before: bool = False) -> dict[str, Any]:
    picture = {"type": "image", "image": Image.new("RGB", (64, 64), colour)}
    earlier = [{"type": "image", "image": Image.new("RGB", (64, 64), (5, 5, 250))}] if before else []
    return {"messages": [{"role": "assistant", "content": [*earlier, {"type": "text", "text": text}, picture]}]}


def made(system: str, *, packed: bool = False) -> Made:
    torch.manual_seed(0)
    model, tokenizer = build_pretrained(config(system))
    processor = Processor(model.config, tokenizer)
    rows = [processor.encode(parse_sample(document(text, colour))) for text, colour in zip(("a lawn", "some heath"), COLOURS, strict=True)]
    return model.eval(), processor, collate([rows] if packed else [[row] for row in rows], tokenizer.pad_id)


def true_conditions(model: MultimodalModel, batch: Batch) -> Tensor:
    """Of Emu what its projector makes of a picture, of Emu2 what the encoder does, pooled."""
    media = batch.media["image"]
    encoded = model.encode("image", media)
    if model.config.hands["image"].reader.feeds_back == "llm":
        values = model.project("image", encoded, media).values_ND
    else:
        values = cast(Any, model.projectors["image"]).pooled(encoded).values_ND
    return values.view(len(batch.wanted), -1, values.shape[-1])


def noised(pipe: Any, said: Any) -> Tensor:
    """The mean squared error by diffusers' own scheduler, with the random numbers that the objective draws; (B,)."""
    torch.rand(2)
    pixels_BCHW = torch.tensor(COLOURS).float()[:, :, None, None].expand(-1, -1, 64, 64) / 127.5 - 1
    drawn = pipe.vae.encode(pixels_BCHW).latent_dist.sample(torch.Generator().manual_seed(int(torch.randint(2**31, ()))))
    clean = drawn * pipe.vae.config.scaling_factor
    noise = torch.randn(clean.shape)
    steps_B = torch.randint(pipe.scheduler.config.num_train_timesteps, (2,))
    a_B = pipe.scheduler.alphas_cumprod[steps_B][:, None, None, None]
    return F.mse_loss(said(a_B.sqrt() * clean + (1 - a_B).sqrt() * noise, steps_B), noise, reduction="none").mean(dim=(1, 2, 3))


@pytest.mark.parametrize("system", ["emu", "emu2"])
@pytest.mark.parametrize("unsteered", [0.0, 1.0])
@pytest.mark.parametrize("packed", [False, True])
@torch.no_grad()
def test_a_picture_is_drawn_again_from_its_own_embeddings(system: str, unsteered: float, packed: bool) -> None:
    model, processor, batch = made(system, packed=packed)
    objective = RedrawConfig(unsteered=unsteered).build(model, processor, ())
    torch.manual_seed(3)
    found = objective(model, batch)
    condition_BNC = true_conditions(model, batch) * (1 - unsteered)
    pipe: Any = cast(Any, model.generators["image"]).pipe
    more: dict[str, Any] = {}
    if system == "emu2":
        # Size of the original, corner, and the picture's own size.
        told = torch.tensor([[1024.0, 1024, 0, 0, 64, 64]]).expand(2, -1)
        more = {"added_cond_kwargs": {"text_embeds": condition_BNC.mean(dim=1), "time_ids": told}}
    torch.manual_seed(3)
    wanted_B = noised(pipe, lambda latents, steps_B: pipe.unet(latents, steps_B, condition_BNC, **more).sample)
    assert found.count == 2
    assert float(found.total) == pytest.approx(float(wanted_B.sum()), rel=1e-4)
    assert found.parts == {"diffusion": pytest.approx(float(wanted_B.mean()), rel=1e-4)}


@pytest.mark.parametrize("system", ["emu", "emu2"])
@torch.no_grad()
def test_what_is_foretold_is_what_an_answer_would_hold(system: str) -> None:
    """The very embeddings that the model writes behind the same text, whatever stands beside it in a row, and whatever the picture is."""
    model, processor, _ = made(system)
    texts = ["a lawn", "some heath, behind a lake"]
    alone: list[Tensor] = []
    for before, text in zip((False, True), texts, strict=True):
        sample = document(text, (1, 1, 1), before=before)
        sample["messages"][0]["content"].pop()
        prompt = processor.encode(parse_sample(sample))
        prompt.input_ids, prompt.learn, prompt.media_index = prompt.input_ids[:-1], prompt.learn[:-1], prompt.media_index[:-1]
        begin, end = processor.signals["image"]
        said, pictures = go_on(model, processor, "image", prompt, [begin], Room())
        assert said[:2] == [begin, end]
        alone.append(pictures[0])
    rows = [processor.encode(parse_sample(document(text, colour, before=before)))
            for text, colour, before in zip(texts, COLOURS, (False, True), strict=True)]  # fmt: skip
    objective: Any = RedrawConfig(steered_by="foretold").build(model, processor, ())
    for batch in (collate([[row] for row in rows], 0), collate([rows], 0)):
        # Of the second row the earlier picture comes first.
        found_BNC = objective._foretold(model, batch, [batch.wanted[0], batch.wanted[2]])
        torch.testing.assert_close(found_BNC, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_only_the_unet_gets_a_gradient() -> None:
    for system, steered in (("emu", "foretold"), ("emu2", "seen")):
        model, processor, batch = made(system)
        objective: Any = RedrawConfig.from_dict({"steered_by": steered}).build(model, processor, ())
        objective.module.requires_grad_(True)
        objective(model, batch).total.backward()
        assert all(weight.grad is None for weight in model.parameters())
        assert any(bool(weight.grad is not None and weight.grad.any()) for weight in objective.module.parameters())
        pipe: Any = cast(Any, model.generators["image"]).pipe
        assert all(weight.grad is None and not weight.requires_grad for weight in pipe.vae.parameters())


@pytest.mark.parametrize("system", ["emu", "emu2"])
def test_what_was_taught_is_saved_with_the_model(system: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    for i, colour in enumerate(COLOURS):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{i}.png")
    rows.write_text("".join(json.dumps({"messages": [{"role": "user", "content": [{"type": "image", "image": f"{i}.png"}]},
                                                     {"role": "assistant", "content": "a field"}]}) + "\n" for i in range(2)))  # fmt: skip
    source = BothWaysSource(source=FileSource(path=str(rows), format="samples"), last=1.0)
    objective = RedrawConfig(steered_by="foretold" if system == "emu" else "seen")
    stage = StageConfig(name="draw", objective=objective, data=(source,), learns=(Learn(part="objective", lr=1e-2),), steps=30, batch_size=2)
    recipe = Recipe(name="draws", model=config(system), stages=(stage,))
    models: list[MultimodalModel] = []

    def build() -> Any:
        torch.manual_seed(0)
        model, tokenizer = build_pretrained(recipe.model)
        models.append(model)
        return model, tokenizer

    train_recipe(recipe, build, save_model, TrainerOptions(folder=tmp_path / "run", cache=tmp_path / "cache"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["diffusion"] for line in lines if "diffusion" in line]
    assert sum(losses[-8:]) < sum(losses[:8])
    taught: Any = models[0].generators["image"]
    again, _ = load_model(tmp_path / "run" / "model")
    state = cast(Any, again.generators["image"]).decoder.state_dict()
    assert state.keys() == taught.decoder.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in taught.decoder.state_dict().items())
    torch.manual_seed(0)
    fresh, _ = build_pretrained(recipe.model)
    first = cast(Any, fresh.generators["image"]).decoder.state_dict()
    assert any(not torch.equal(first[name], value) for name, value in state.items())
    assert all(torch.equal(fresh.state_dict()[name], value) for name, value in again.state_dict().items())


def test_what_cannot_be_taught_is_refused() -> None:
    model, processor, _ = made("emu")
    tiny, tokenizer = build_pretrained(RECIPES.find("tiny")().model)
    with pytest.raises(ConfigError, match="writes no picture embedding by embedding"):
        RedrawConfig().build(tiny, Processor(tiny.config, tokenizer), ())
    model.generators.put("image", cast(Any, object()))
    with pytest.raises(ConfigError, match="by a generator of kind stable_diffusion"):
        RedrawConfig().build(model, processor, ())


def test_emu2s_decoder_is_taken_out_of_the_pipeline_that_it_was_published_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BAAI/Emu2-Gen: a class of its own, an LLM among the components, bf16 in the names of the files; its code is not run."""
    torch.manual_seed(2)
    told = SdxlConfig(length=4, width=40, pooled="mean", scale="tiny")
    plain: Any = told.build()
    folder = tmp_path / "Emu2-Gen"
    plain.pipe.save_pretrained(folder, safe_serialization=True, variant="bf16")
    assert sorted(file.name for file in (folder / "unet").iterdir()) == ["config.json", "diffusion_pytorch_model.bf16.safetensors"]
    index = json.loads((folder / "model_index.json").read_text())
    theirs = {name: index[name] for name in ("_diffusers_version", "scheduler", "unet", "vae")} | {
        "_class_name": "EmuVisualGenerationPipeline", "multimodal_encoder": ["transformers_modules.modeling_emu", "EmuForCausalLM"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"], "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(theirs))
    (folder / "pipeline_emu2_gen.py").write_text("raise SystemExit('code of a folder was run')")
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    (source,) = decoder_source(Beside(more=(folder,)))
    found = locate((source,))
    assert found is not None
    ours: Any = told.model_copy(update={"scale": "published"}).build(found)
    for part in ("unet", "vae"):
        state = getattr(ours.pipe, part).state_dict()
        assert all(torch.equal(value, state[name]) for name, value in getattr(plain.pipe, part).state_dict().items())
    condition = torch.randn(1, 4, 40)
    one, two = (made.generate(condition, making=Making(steps=2, guidance=1.0))[0].array for made in (plain, ours))
    assert (one == two).all()
    shutil.rmtree(folder / "vae")
    with pytest.raises(WeightsError, match="no vae"):
        convert_emu2_gen(folder, tmp_path / "no")
    assert not (tmp_path / "no").exists()
    with pytest.raises(WeightsError, match="expected EmuVisualGenerationPipeline"):
        convert_emu2_gen(found, tmp_path / "no")


@pytest.mark.parametrize("system", ["emu", "emu2"])
def test_a_decoder_begins_with_a_published_pipeline(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that does not see the condition is the pipeline's own; what does is new, and as wide as embeddings are."""
    torch.manual_seed(1)
    plain: Any = (StableDiffusionConfig if system == "emu" else SdxlConfig).tiny().build()
    plain.pipe.save_pretrained(tmp_path / "from", safe_serialization=True)
    rewire(tmp_path / "from", tmp_path / "to", type(plain.pipe).__name__, 40)
    told = StableDiffusionConfig(length=4, width=40, reads_text=False) if system == "emu" else SdxlConfig(length=4, width=40, pooled="mean")
    ours: Any = told.build(tmp_path / "to")
    old, new = plain.pipe.unet.state_dict(), ours.pipe.unet.state_dict()
    other = {name for name, value in new.items() if old[name].shape != value.shape}
    assert old.keys() == new.keys()
    assert other == {name for name in new if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
                     or (system == "emu2" and name == "add_embedding.linear_1.weight")}  # fmt: skip
    assert all(torch.equal(old[name], new[name]) for name in new.keys() - other)
    assert all(bool(new[name].any()) for name in other)
    assert all(torch.equal(value, ours.pipe.vae.state_dict()[name]) for name, value in plain.pipe.vae.state_dict().items())
    made_picture = ours.generate(torch.randn(1, 4, 40), making=Making(steps=2, guidance=1.0))
    assert made_picture[0].array.shape == (64, 64, 3)
    # The same from the same folder; another pipeline is none.
    rewire(tmp_path / "from", tmp_path / "again", type(plain.pipe).__name__, 40)
    assert all(torch.equal(value, new[name]) for name, value in cast(Any, told.build(tmp_path / "again")).pipe.unet.state_dict().items())
    with pytest.raises(WeightsError, match="the folder holds"):
        rewire(tmp_path / "from", tmp_path / "no", "AudioLDMPipeline", 40)
    assert not (tmp_path / "no").exists()
    # As a source of weights it is converted once, until a file of a component is another.
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    source = FolderSource(path=str(tmp_path / "from"), format="emu_decoder" if system == "emu" else "emu2_decoder")
    first = locate((source,))
    assert first == locate((source,))
    assert first is not None
    assert json.loads((first / "unet" / "config.json").read_text())["cross_attention_dim"] == (5120 if system == "emu" else 1792)
    (tmp_path / "from" / "unet" / "config.json").write_text((tmp_path / "from" / "unet" / "config.json").read_text() + " ")
    assert locate((source,)) != first
