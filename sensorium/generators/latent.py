"""A pipeline of latent diffusion through which conditions are trained, whatever it makes.

Shape legend: B items, L condition tokens, C condition width, T steps of the schedule; latents are (B, ...).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sensorium.generators.diffusion import DiffusionGenerator
from sensorium.nn.diffusion_loss import Prediction


class LatentGenerator(DiffusionGenerator):
    """What `training.objectives.noising` needs of all of them; a kind says how a medium becomes `latents`."""

    @property
    def unet(self) -> nn.Module:
        return self.pipe.unet

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

    def drawn(self, values: Tensor, seed: int) -> Tensor:
        """Latents of what the VAE reads, drawn from what it says of it, as the UNet knows them."""
        return self.encoded(values).sample(torch.Generator().manual_seed(seed)) * self.pipe.vae.config.scaling_factor

    @torch.no_grad()
    def encoded(self, values: Tensor) -> Any:
        """What the VAE says of its input, which is (B, C, H, W)."""
        return self.pipe.vae.encode(values.to(self.device, self.pipe.vae.dtype)).latent_dist

    def picture_values(self, pixels_BCHW: Tensor) -> Tensor:
        """uint8 as a VAE of pictures reads them."""
        return pixels_BCHW.to(self.device, self.pipe.vae.dtype) / 127.5 - 1
