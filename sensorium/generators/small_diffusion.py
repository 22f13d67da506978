"""A small Stable Diffusion of our own, that is taught here: a condition -> a picture of 64 pixels.

It is saved in Stable Diffusion's layout without a text encoder. Latents come out of its VAE with a deviation of about 1 (`training/objectives/picture_latents.py`),
so that nothing is scaled. The UNet predicts velocity, and the schedule ends in pure noise, as arXiv:2305.08891 advises: what
decides over a whole picture's colour must be drawn from nothing.

Shape legend: B items, L condition tokens, C condition width, or colours beside H/W pixels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from sensorium.core.hands import Made, Making
from sensorium.generators import tiny_parts
from sensorium.generators.pipeline_folder import Layout, check_sizes
from sensorium.generators.stable_diffusion import StableDiffusion, StableDiffusionConfig

GROUPS = 4


class SmallDiffusionConfig(StableDiffusionConfig):
    """Without a folder, it begins with random weights."""

    kind: Literal["small_diffusion"] = "small_diffusion"  # pyright: ignore[reportIncompatibleVariableOverride]
    length: int = Field(default=6, ge=1)
    width: int = Field(default=96, ge=1)
    reads_text: bool = False
    scale: Literal["published", "tiny"] = "tiny"
    size_px: int = Field(default=64, ge=8)
    vae_widths: tuple[int, ...] = (12, 24, 32)
    """Each level behind the first one halves the sides."""
    unet_widths: tuple[int, ...] = (32, 64)
    """Each level behind the first one halves the sides; the last one alone attends, to itself and to the condition."""
    latent_channels: int = Field(default=4, ge=1)
    strongest: float = Field(default=3.0, ge=1)
    """Guidance beyond this is taken as this."""

    @classmethod
    def tiny(cls) -> SmallDiffusionConfig:
        return cls(length=2, width=16, vae_widths=(8, 8, 8, 8), unet_widths=(16, 16))

    @property
    def layout(self) -> Layout:
        return replace(super().layout, published="", made_by="sensorium train nano-diffuses")

    def tiny_pipeline(self, diffusers: Any) -> Any:
        levels, depth = len(self.vae_widths), len(self.unet_widths)
        vae = diffusers.AutoencoderKL(
            block_out_channels=self.vae_widths, down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
            latent_channels=self.latent_channels, norm_num_groups=GROUPS, layers_per_block=1, sample_size=self.size_px, scaling_factor=1.0,
        )  # fmt: skip
        unet = diffusers.UNet2DConditionModel(
            sample_size=self.size_px // 2 ** (levels - 1), in_channels=self.latent_channels, out_channels=self.latent_channels,
            block_out_channels=self.unet_widths,
            down_block_types=("DownBlock2D",) * (depth - 1) + ("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * (depth - 1),
            layers_per_block=1, attention_head_dim=tiny_parts.HEADS * GROUPS, norm_num_groups=GROUPS, cross_attention_dim=self.width,
        )  # fmt: skip
        scheduler = tiny_parts.scheduler(
            prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False,
            set_alpha_to_one=False, steps_offset=1,
        )  # fmt: skip
        return diffusers.StableDiffusionPipeline(
            vae=vae, unet=unet, scheduler=scheduler, text_encoder=None, tokenizer=None, safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )  # fmt: skip

    def check_pipeline(self, pipe: Any) -> None:
        super().check_pipeline(pipe)
        check_sizes(self.kind, "side of a picture", pipe.unet.config.sample_size * pipe.vae_scale_factor, self.size_px)

    def generator(self, pipe: Any) -> SmallDiffusion:
        return SmallDiffusion(self, pipe)


class SmallDiffusion(StableDiffusion):
    """VAE and UNet can both learn, under these names."""

    def __init__(self, config: SmallDiffusionConfig, pipe: Any) -> None:
        super().__init__(config, pipe)
        self.strongest = config.strongest
        self._learns = nn.ModuleDict({"vae": pipe.vae, "unet": pipe.unet})

    @property
    def decoder(self) -> nn.Module:
        return self._learns

    @property
    def vae(self) -> Any:
        """The autoencoder, diffusers'."""
        return self.pipe.vae

    def redraw(self, pixels_BCHW: Tensor) -> Tensor:
        """uint8 pictures through the VAE and back: the best that could be drawn of them."""
        with torch.no_grad():
            values_BCHW = cast(Tensor, self.vae.decode(self.looked(pixels_BCHW)).sample)
        return ((values_BCHW.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    def generate(self, condition_BLC: Tensor, *, negative_BLC: Tensor | None = None, making: Making = Making()) -> list[Made]:
        """See `core.hands.Generator`; without a negative condition, it leads away from zeros."""
        if negative_BLC is None:
            negative_BLC = torch.zeros_like(condition_BLC[:1])
        weight = min(making.guidance, self.strongest)
        return super().generate(condition_BLC, negative_BLC=negative_BLC, making=replace(making, guidance=weight))
