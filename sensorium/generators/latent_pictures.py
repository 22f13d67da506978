"""Pipelines of latent diffusion that make pictures, and whose UNet can be taught, too: Stable Diffusion, SDXL.

Shape legend: B items, C colours, H/W pixels.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from sensorium.generators.diffusion import PictureGenerator
from sensorium.generators.latent import LatentGenerator
from sensorium.generators.pipeline_folder import quiet


class LatentPictures(LatentGenerator, PictureGenerator):
    """What `training.objectives.noising` needs of pictures."""

    @property
    def looks(self) -> bool:
        """Whether the UNet sees a picture beside the noise."""
        return self.config.looks

    @property
    def decoder(self) -> nn.Module:
        """What can learn of it."""
        return self.pipe.unet

    def save(self, folder: Path) -> None:
        """Write it in diffusers' layout."""
        # It would tell of each component that a pipeline does not have.
        with quiet():
            self.pipe.save_pretrained(folder, safe_serialization=True)

    @property
    def side_px(self) -> int:
        """Of the pictures that it was trained on."""
        return self.pipe.unet.config.sample_size * self.pipe.vae_scale_factor

    def latents(self, pixels_BCHW: Tensor, seed: int) -> Tensor:
        """Latents of pictures, uint8, drawn from what the VAE says of them."""
        return self.drawn(self.picture_values(pixels_BCHW), seed)

    def looked(self, pixels_BCHW: Tensor) -> Tensor:
        """Latents of pictures, uint8, as a UNet sees them that looks at pictures: the likeliest ones, not scaled."""
        return self.encoded(self.picture_values(pixels_BCHW)).mode()
