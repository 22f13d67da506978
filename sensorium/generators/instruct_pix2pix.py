"""InstructPix2Pix: a picture and 77 vectors of CLIP's text width that say what is to change -> the changed picture.

Sources: arXiv:2211.09800; layout `timbrooks/instruct-pix2pix`. Stable Diffusion 1.5 whose UNet sees the picture's latents as
four more channels beside the noise. Two weights lead away from two things: `guidance` from the picture alone, `picture_guidance` from nothing at all.
MGIE (arXiv:2309.17102) steers it by an LLM, and begins with the folder of a Stable Diffusion.

Shape legend: B items, L condition tokens, C condition width, H/W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn

from sensorium.core.errors import ConfigError
from sensorium.core.hands import Making
from sensorium.generators import tiny_parts
from sensorium.generators.diffusion import DTYPES
from sensorium.generators.pipeline_folder import (
    Layout,
    check_sizes,
    load_pipeline,
    need_diffusers,
    pipeline_class,
    quiet,
    settled,
)
from sensorium.generators.stable_diffusion import StableDiffusion, StableDiffusionConfig


class InstructPix2PixConfig(StableDiffusionConfig):
    """A condition of Stable Diffusion 1.5's, and a picture."""

    kind: Literal["instruct_pix2pix"] = "instruct_pix2pix"  # pyright: ignore[reportIncompatibleVariableOverride]
    longest_px: int = Field(default=512, ge=8)
    """Pictures whose longer side is longer are scaled down to it, as the authors' script does, where no size is asked for."""

    @property
    def looks(self) -> bool:
        return True

    @property
    def layout(self) -> Layout:
        plain = super().layout
        return Layout("StableDiffusionInstructPix2PixPipeline", plain.needed, plain.optional, "timbrooks/instruct-pix2pix")

    def tiny_pipeline(self, diffusers: Any) -> Any:
        return diffusers.StableDiffusionInstructPix2PixPipeline(
            vae=tiny_parts.vae(), text_encoder=tiny_parts.clip_text(self.width), tokenizer=tiny_parts.clip_tokenizer(),
            unet=tiny_parts.unet(self.width, in_channels=2 * tiny_parts.LATENT_CHANNELS), scheduler=tiny_parts.scheduler("EulerAncestralDiscreteScheduler"),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip

    def build(self, folder: Path | None = None) -> StableDiffusion:
        """As for any pipeline; of a folder of a Stable Diffusion, its parts with a UNet that has four channels more."""
        if folder is None or pipeline_class(folder) != super().layout.pipeline:
            return cast(StableDiffusion, super().build(folder))
        plain = load_pipeline(self.kind, super().layout, folder, DTYPES[self.dtype])
        with quiet():
            pipe = settled(need_diffusers(self.kind).StableDiffusionInstructPix2PixPipeline(
                **plain.components | {"unet": widened(plain.unet)}, requires_safety_checker=plain.safety_checker is not None))  # fmt: skip
        self.check_pipeline(pipe)
        return self.generator(pipe)

    def check_pipeline(self, pipe: Any) -> None:
        super().check_pipeline(pipe)
        check_sizes(self.kind, "number of channels", pipe.unet.config.in_channels, 2 * pipe.vae.config.latent_channels)

    def generator(self, pipe: Any) -> InstructPix2Pix:
        return InstructPix2Pix(self, pipe)


def widened(unet: Any) -> Any:
    """A UNet with twice the channels at its entrance, of which the new ones are not looked at yet: it says what it said."""
    old = unet.conv_in
    new = nn.Conv2d(2 * old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding).to(old.weight)
    with torch.no_grad():
        new.weight.zero_()[:, : old.in_channels].copy_(old.weight)
        cast(Tensor, new.bias).copy_(old.bias)
    unet.register_to_config(in_channels=new.in_channels)
    unet.conv_in = new
    return unet


class InstructPix2Pix(StableDiffusion):
    """Conditions in place of encoded instructions."""

    config: InstructPix2PixConfig

    @property
    def network(self) -> nn.Module:
        """What MGIE's checkpoint holds of it."""
        return self.pipe.unet

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        with torch.no_grad():
            return self.pipe._encode_prompt(list(texts), self.device, 1, False)

    def _check_making(self, making: Making) -> None:
        super()._check_making(making)
        where = f"generator {self.config.kind}"
        if not making.pictures:
            raise ConfigError("no picture to edit", where=where, expected="making.pictures: one for all items, or one for each")
        # The pipeline would do without any guidance, and not say so.
        if making.guidance > 1 > making.picture_guidance:
            raise ConfigError(f"picture_guidance {making.picture_guidance} with guidance {making.guidance}", expected="at least 1", where=where)

    def _asked(self, making: Making, items: int) -> dict[str, Any]:
        pictures = making.pictures_of(items, f"generator {self.config.kind}")
        if making.size is None and len({picture.shape for picture in pictures}) > 1:
            raise ConfigError("pictures of several sizes at once", expected="one size, or making.size",
                              where=f"generator {self.config.kind}")  # fmt: skip
        seen = [self._sized(picture, making.size) for picture in pictures]
        return {"image": seen, "image_guidance_scale": making.picture_guidance}

    def _sized(self, picture_HWC: np.ndarray[Any, Any], size: tuple[int, int] | None) -> Image.Image:
        """The picture, at most `longest_px` long; the pipeline itself cuts sides down to whole latents."""
        picture = Image.fromarray(picture_HWC)
        longest, side = max(picture.size), self.pipe.vae_scale_factor
        if size is None and longest <= self.config.longest_px:
            return picture
        scale = self.config.longest_px / longest
        height, width = size or (max(side, int(n * scale)) for n in (picture.height, picture.width))
        return picture.resize((width, height), Image.Resampling.LANCZOS)
