"""Generators make what diffusers' pipelines make of the same condition and seed, bit for bit, from folders that
diffusers wrote; what their text encoders say of a text is the condition that makes what the text makes."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorium.core.errors import WeightsError
from sensorium.core.hands import Made, Making
from sensorium.generators import GENERATORS, tiny_parts
from sensorium.generators.sdxl import SdxlConfig
from sensorium.generators.stable_diffusion import StableDiffusionConfig
from sensorium.nn.diffusion_loss import diffusion_loss

pytestmark = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
SECOND = "stable_diffusion-2.1"
KINDS = ("stable_diffusion", SECOND, "unclip", "sdxl", "text_to_video", "audioldm", "audioldm2")
"""Kinds of generators, and a second version of one."""
TWO = Making(steps=2, guidance=4.0, seed=3)
TEXTS = ["a red cat", "two dogs"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of each kind a generator whose pipeline was saved by diffusers and read back."""

    @cache
    def load(kind: str) -> Any:
        config: Any = StableDiffusionConfig.tiny().model_copy(update={"width": 48}) if kind == SECOND else GENERATORS.find(kind).tiny()
        folder = tmp_path_factory.mktemp(kind)
        torch.manual_seed(0)
        pipe = version_2(config) if kind == SECOND else config.build().pipe
        pipe.save_pretrained(folder)
        return config.build(folder), folder

    return load


def version_2(config: StableDiffusionConfig) -> Any:
    """What is otherwise in the folder of 2.1: heads by their number, linear maps around attention, another CLIP's GELU, velocity foretold."""
    pipe = config.build().pipe
    told = pipe.text_encoder.config
    told.hidden_act = "gelu"
    pipe.register_modules(
        text_encoder=type(pipe.text_encoder)(told).eval(),
        unet=tiny_parts.unet(config.width, attention_head_dim=(2, 4), use_linear_projection=True),
        scheduler=tiny_parts.scheduler(prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1),
    )
    return pipe


def direct(generator: Any, making: Making, **arguments: Any) -> list[np.ndarray[Any, Any]]:
    """A pipeline of diffusers' own making over the same components, called as its users call it."""
    pipe = type(generator.pipe)(**generator.pipe.components, **KEPT.get(generator.config.kind, {}))
    pipe.set_progress_bar_config(disable=True)
    output = pipe(
        **arguments, num_inference_steps=making.steps, guidance_scale=making.guidance, output_type="np",
        generator=[torch.Generator().manual_seed(making.seed) for _ in TEXTS],
    )  # fmt: skip
    if generator.config.makes == "audio":
        return list(output.audios)
    return [(array * 255).round().astype("uint8") for array in (output.frames if generator.config.makes == "video" else output.images)]


KEPT = {"stable_diffusion": {"requires_safety_checker": False}}


def recorded(record: Callable[..., None], kind: str, made: list[Made], wanted: list[np.ndarray[Any, Any]], *, exact: bool = True) -> None:
    """Bytes and samples are those of the reference, bit for bit unless they need not be; and another condition makes another medium."""
    for one, array in zip(made, wanted, strict=True):
        if exact:
            np.testing.assert_array_equal(one.array, array)
        record(kind, "made", ours=torch.as_tensor(one.array.astype(np.float32)), theirs=torch.as_tensor(np.asarray(array, np.float32)))
    assert (made[0].array != made[1].array).any()


def embeds(kind: str, values_BLC: Tensor, prefix: str = "") -> dict[str, Tensor]:
    """A condition as the pipeline's arguments, written down once more."""
    if kind == "sdxl":
        return {f"{prefix}prompt_embeds": values_BLC[:, :-1], f"{prefix}pooled_prompt_embeds": values_BLC[:, -1, :32]}
    if kind == "audioldm":
        return {f"{prefix}prompt_embeds": values_BLC[:, 0]}
    if kind == "audioldm2":
        text_BTC = values_BLC[:, 4:]
        return {
            f"{prefix}generated_prompt_embeds": values_BLC[:, :4, :16], f"{prefix}prompt_embeds": text_BTC,
            f"{prefix}attention_mask": (text_BTC.abs().sum(-1) > 0).long(),
        }  # fmt: skip
    return {f"{prefix}prompt_embeds": values_BLC}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "unclip"])
@pytest.mark.parametrize("negative", [False, True])
def test_a_condition_makes_what_it_makes_in_diffusers(loaded: Any, kind: str, negative: bool, record: Callable[..., None]) -> None:
    generator, _ = loaded(kind)
    shape = generator.config.condition
    drawn = torch.Generator().manual_seed(5)
    condition_BLC, negative_BLC = (torch.randn(2, shape.length, shape.width, generator=drawn) for _ in range(2))
    if kind == "audioldm2":
        condition_BLC[1, -3:] = 0  # A text that is shorter.
    options = {"num_frames": 2} if kind == "text_to_video" else {}
    against = embeds(kind, negative_BLC, "negative_") if negative else {}
    ours = generator.generate(condition_BLC, negative_BLC=negative_BLC if negative else None, making=TWO)
    theirs = direct(generator, TWO, **embeds(kind, condition_BLC), **against, **options)
    recorded(record, kind, ours, theirs)
    assert all(made.array.std() > 1e-3 for made in ours)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "unclip"])
def test_the_condition_of_a_text_makes_what_the_text_makes(loaded: Any, kind: str, record: Callable[..., None]) -> None:
    generator, _ = loaded(kind)
    # AudioLDM 2 writes its negative text after as much padding as the text is long, so that is left out.
    making = replace(TWO, guidance=1.0) if kind == "audioldm2" else TWO
    condition_BLC = generator.encode_text(TEXTS)
    assert condition_BLC.shape == (2, generator.config.length, generator.config.width)
    options = {"num_frames": 2} if kind == "text_to_video" else {}
    ours = generator.generate(condition_BLC, making=making)
    theirs = direct(generator, making, prompt=TEXTS, **options)
    recorded(record, kind, ours, theirs, exact=kind != "audioldm2")


def test_a_picture_s_embedding_makes_what_the_picture_makes(loaded: Any, record: Callable[..., None]) -> None:
    generator, _ = loaded("unclip")
    pictures = list(np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), dtype=np.uint8))
    condition_BLC = generator.encode_images(pictures)
    assert condition_BLC.shape == (2, 1, 32)
    ours = generator.generate(condition_BLC, making=TWO)
    recorded(record, "unclip", ours, direct(generator, TWO, image_embeds=condition_BLC[:, 0], prompt=["", ""]))
    pixels = generator.pipe.feature_extractor(images=pictures, return_tensors="pt").pixel_values
    recorded(record, "unclip", ours, direct(generator, TWO, image=pixels, prompt=["", ""]))


def test_emu2_s_unet_sees_vectors_and_their_mean(record: Callable[..., None]) -> None:
    torch.manual_seed(0)
    generator = SdxlConfig(length=6, width=48, pooled="mean", scale="tiny").build()
    assert generator.pipe.text_encoder_2 is None
    condition_BLC = torch.randn(2, 6, 48)
    zeros_BLC = torch.zeros_like(condition_BLC)
    theirs = direct(
        generator, TWO, prompt_embeds=condition_BLC, pooled_prompt_embeds=condition_BLC.mean(1), negative_prompt_embeds=zeros_BLC,
        negative_pooled_prompt_embeds=zeros_BLC.mean(1), original_size=(1024, 1024),
    )  # fmt: skip
    for negative_BLC in (zeros_BLC, None):
        recorded(record, "sdxl", generator.generate(condition_BLC, negative_BLC=negative_BLC, making=TWO), theirs)


@pytest.mark.parametrize("kind", [*KINDS, "instruct_pix2pix"])
def test_a_folder_is_read_as_diffusers_reads_it(loaded: Any, kind: str, record: Callable[..., None]) -> None:
    generator, folder = loaded(kind)
    diffusers: Any = importlib.import_module("diffusers")
    theirs = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    assert type(theirs) is type(generator.pipe)
    for name, component in theirs.components.items():
        ours = generator.pipe.components[name]
        assert type(ours) is type(component)
        if isinstance(component, torch.nn.Module):
            # The normaliser makes its parameters anew whenever it runs.
            assert name == "image_normalizer" or not any(weight.requires_grad for weight in ours.parameters())
            for one, other in zip(ours.state_dict().items(), component.state_dict().items(), strict=True):
                assert one[0] == other[0]
                torch.testing.assert_close(one[1], other[1], atol=0, rtol=0)
    record(kind, "weights")


def test_audioldm2_reads_the_bare_language_model_of_published_folders(loaded: Any, tmp_path: Path) -> None:
    generator, _ = loaded("audioldm2")
    pipe = type(generator.pipe)(**generator.pipe.components)
    pipe.register_modules(language_model=pipe.language_model.transformer)
    pipe.save_pretrained(tmp_path)
    assert '"GPT2Model"' in (tmp_path / "model_index.json").read_text()
    bare = generator.config.build(tmp_path)
    condition_BLC = bare.encode_text(TEXTS)
    torch.testing.assert_close(condition_BLC, generator.encode_text(TEXTS), atol=1e-6, rtol=1e-6)
    ours, theirs = bare.generate(condition_BLC, making=TWO), generator.generate(condition_BLC, making=TWO)
    np.testing.assert_allclose(ours[1].array, theirs[1].array, atol=1e-5)


def test_the_older_layout_of_a_tokenizer_is_read(loaded: Any, tmp_path: Path) -> None:
    """Published folders have vocab.json and merges.txt, and no tokenizer.json."""
    import json
    import shutil

    generator, folder = loaded("stable_diffusion")
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    written = json.loads((copy / "tokenizer/tokenizer.json").read_text())["model"]
    (copy / "tokenizer/tokenizer.json").unlink()
    (copy / "tokenizer/vocab.json").write_text(json.dumps(written["vocab"]))
    (copy / "tokenizer/merges.txt").write_text("#version: 0.2\n")
    torch.testing.assert_close(generator.config.build(copy).encode_text(TEXTS), generator.encode_text(TEXTS), atol=0, rtol=0)


@pytest.mark.parametrize(("kind", "prediction"), [("stable_diffusion", "epsilon"), (SECOND, "v_prediction")])
def test_the_loss_through_the_frozen_unet_is_diffusers_own_sum(loaded: Any, kind: str, prediction: str, record: Callable[..., None]) -> None:
    from diffusers.training_utils import compute_snr

    generator, _ = loaded(kind)
    assert generator.prediction == prediction
    # The scheduler that trains has the same schedule.
    diffusers: Any = importlib.import_module("diffusers")
    theirs = diffusers.DDPMScheduler.from_config(generator.pipe.scheduler.config)
    pixels = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    clean = generator.latents(pixels, seed=0)
    assert clean.shape == (3, 4, 8, 8)
    noise, steps_B = torch.randn_like(clean), torch.tensor([0, 400, 999])
    condition_BLC = torch.randn(3, generator.config.length, generator.config.width, requires_grad=True)
    losses_B = diffusion_loss(
        generator.predict, condition_BLC, clean, noise, steps_B, generator.alphas_T, prediction=generator.prediction
    )
    losses_B.mean().backward()
    assert condition_BLC.grad is not None
    assert float(condition_BLC.grad.abs().min(dim=0).values.max()) > 0
    assert all(weight.grad is None for weight in generator.pipe.unet.parameters())

    with torch.no_grad():
        said = generator.pipe.unet(theirs.add_noise(clean, noise, steps_B), steps_B, condition_BLC).sample
    wanted = noise if prediction == "epsilon" else theirs.get_velocity(clean, noise, steps_B)
    snr_B = compute_snr(theirs, steps_B)
    weights_B = snr_B.clamp(max=5.0) / (snr_B if prediction == "epsilon" else snr_B + 1)
    record(kind, "loss", ours=losses_B.detach(), theirs=(said - wanted).square().mean(dim=(1, 2, 3)) * weights_B)


def test_zeroscope_xl_s_folder_is_of_another_pipeline_with_the_same_components(loaded: Any, tmp_path: Path) -> None:
    generator, folder = loaded("text_to_video")
    shutil.copytree(folder, tmp_path / "xl")
    index = tmp_path / "xl" / "model_index.json"
    index.write_text(index.read_text().replace("TextToVideoSDPipeline", "VideoToVideoSDPipeline"))
    condition_BLC = generator.encode_text(TEXTS[:1])
    [ours], [theirs] = (one.generate(condition_BLC, making=TWO) for one in (generator.config.build(tmp_path / "xl"), generator))
    np.testing.assert_array_equal(ours.array, theirs.array)
    index.write_text(index.read_text().replace("VideoToVideoSDPipeline", "StableVideoDiffusionPipeline"))
    with pytest.raises(WeightsError, match="the folder holds 'StableVideoDiffusionPipeline'; expected TextToVideoSDPipeline"):
        generator.config.build(tmp_path / "xl")
