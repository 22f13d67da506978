"""A pipeline of latent diffusion through which conditions are trained, or whose UNet is: Stable Diffusion, SDXL.

Shape legend: B items, L condition tokens, C condition width, H/W pixels, T steps of the schedule.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sensorium.generators.diffusion import PictureGenerator
from sensorium.nn.diffusion_loss import Prediction


class LatentPictures(PictureGenerator):
    """What `training.objectives.noising` needs."""

    @property
    def looks(self) -> bool:
        """Whether the UNet sees a picture beside the noise."""
        return self.config.looks

    @property
    def unet(self) -> nn.Module:
        return self.pipe.unet

    @property
    def decoder(self) -> nn.Module:
        """What can learn of it."""
        return self.pipe.unet

    def save(self, folder: Path) -> None:
        """Write it in diffusers' layout."""
        self.pipe.save_pretrained(folder, safe_serialization=True)

    @property
    def side_px(self) -> int:
        """Of the pictures that it was trained on."""
        return self.pipe.unet.config.sample_size * self.pipe.vae_scale_factor

    @property
    def alphas_T(self) -> Tensor:
        """Products of the schedule's alphas."""
        return self.pipe.scheduler.alphas_cumprod

    @property
    def prediction(self) -> Prediction:
        """What the UNet predicts."""
        return self.pipe.scheduler.config.prediction_type

    def predict(self, latents: Tensor, steps_B: Tensor, condition_BLC: Tensor) -> Tensor:
        """What the UNet says of noised latents; gradients reach the condition."""
        return self.pipe.unet(latents, steps_B, encoder_hidden_states=condition_BLC.to(latents.dtype)).sample

    def latents(self, pixels_BCHW: Tensor, seed: int) -> Tensor:
        """Latents of pictures, uint8, drawn from what the VAE says of them."""
        drawn = self._encoded(pixels_BCHW).sample(torch.Generator().manual_seed(seed))
        return drawn * self.pipe.vae.config.scaling_factor

    def looked(self, pixels_BCHW: Tensor) -> Tensor:
        """Latents of pictures, uint8, as a UNet sees them that looks at pictures: the likeliest ones, not scaled."""
        return self._encoded(pixels_BCHW).mode()

    @torch.no_grad()
    def _encoded(self, pixels_BCHW: Tensor) -> Any:
        values = pixels_BCHW.to(self.device, self.pipe.vae.dtype) / 127.5 - 1
        return self.pipe.vae.encode(values).latent_dist
