"""Edits are what diffusers' pipeline of InstructPix2Pix makes of the same condition, picture and seed, bit for bit."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_diffusers import recorded

from sensorium.core.errors import ConfigError
from sensorium.core.hands import Making
from sensorium.generators import GENERATORS

pytestmark = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
# No multiples of eight.
PICTURES = tuple(np.random.default_rng(0).integers(0, 256, (2, 50, 43, 3), dtype=np.uint8))
TWO = Making(steps=2, guidance=4.0, picture_guidance=1.7, seed=3, pictures=PICTURES)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A generator whose pipeline was written by diffusers and read back."""
    config, folder = GENERATORS.find("instruct_pix2pix").tiny(), tmp_path_factory.mktemp("edits")
    torch.manual_seed(0)
    config.build().pipe.save_pretrained(folder)
    return config.build(folder)


def direct(generator: Any, making: Making, **arguments: Any) -> list[np.ndarray[Any, Any]]:
    """Diffusers' own call of the same components."""
    pipe = type(generator.pipe)(**generator.pipe.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    output = pipe(
        **arguments, num_inference_steps=making.steps, guidance_scale=making.guidance, image_guidance_scale=making.picture_guidance,
        output_type="np", generator=[torch.Generator().manual_seed(making.seed) for _ in range(2)],
    )  # fmt: skip
    return [(array * 255).round().astype("uint8") for array in output.images]


def test_a_condition_and_a_picture_make_what_they_make_in_diffusers(saved: Any, record: Callable[..., None]) -> None:
    shape = saved.config.condition
    condition_BLC, negative_BLC = torch.randn(2, 2, shape.length, shape.width, generator=torch.Generator().manual_seed(5))
    pictures = [Image.fromarray(picture) for picture in PICTURES]
    theirs = direct(saved, TWO, prompt_embeds=condition_BLC, negative_prompt_embeds=negative_BLC, image=pictures)
    ours = saved.generate(condition_BLC, negative_BLC=negative_BLC, making=TWO)
    assert {made.array.shape for made in ours} == {(48, 40, 3)}
    recorded(record, "instruct_pix2pix", ours, theirs)
    # Both weights count, and so does what is looked at.
    for other in (replace(TWO, guidance=2.0), replace(TWO, picture_guidance=1.2), replace(TWO, pictures=PICTURES[:1])):
        assert (saved.generate(condition_BLC, negative_BLC=negative_BLC, making=other)[1].array != ours[1].array).any()
    # Without guidance, and of a text.
    texts, plain = ["make it red", "blur it"], replace(TWO, guidance=1.0)
    theirs = direct(saved, plain, prompt=texts, image=pictures)
    recorded(record, "instruct_pix2pix", saved.generate(saved.encode_text(texts), making=plain), theirs)
    theirs = direct(saved, TWO, prompt=texts, image=pictures)
    recorded(record, "instruct_pix2pix", saved.generate(saved.encode_text(texts), making=TWO), theirs)


def test_large_pictures_are_scaled_and_what_cannot_be_edited_is_said(saved: Any) -> None:
    shape = saved.config.condition
    one = torch.zeros(1, shape.length, shape.width)
    small = type(saved)(saved.config.model_copy(update={"longest_px": 32}), saved.pipe)
    tall = np.zeros((128, 60, 3), np.uint8)
    assert small.generate(one, making=replace(TWO, pictures=(tall,)))[0].array.shape == (32, 8, 3)
    assert saved.generate(one, making=replace(TWO, pictures=(tall,), size=(16, 24)))[0].array.shape == (16, 24, 3)
    for wrong, match in ((replace(TWO, pictures=()), "no picture to edit"), (replace(TWO, picture_guidance=0.5), "picture_guidance 0.5"),
                         (TWO, "2 pictures for 1 items")):  # fmt: skip
        with pytest.raises(ConfigError, match=match):
            saved.generate(one, making=wrong)
    with pytest.raises(ConfigError, match="several sizes"):
        saved.generate(one.expand(2, -1, -1), making=replace(TWO, pictures=(tall, PICTURES[0])))


def test_a_stable_diffusion_becomes_one_that_looks_and_says_what_it_said(tmp_path: Path) -> None:
    plain = GENERATORS.find("stable_diffusion").tiny().build()
    plain.save(tmp_path)
    begun: Any = GENERATORS.find("instruct_pix2pix").tiny().build(tmp_path)
    latents, condition_BLC, steps_B = torch.randn(1, 4, 8, 8), torch.randn(1, 24, 32), torch.tensor([7])
    wide = torch.cat([latents, torch.randn(1, 4, 8, 8)], dim=1)
    with torch.no_grad():
        said, before = begun.predict(wide, steps_B, condition_BLC), plain.predict(latents, steps_B, condition_BLC)
    torch.testing.assert_close(said, before, atol=1e-6, rtol=1e-5)
    assert begun.pipe.unet.config.in_channels == 8
    begun.save(tmp_path / "own")
    again: Any = GENERATORS.find("instruct_pix2pix").tiny().build(tmp_path / "own")
    with torch.no_grad():
        torch.testing.assert_close(again.predict(wide, steps_B, condition_BLC), said, atol=0, rtol=0)
