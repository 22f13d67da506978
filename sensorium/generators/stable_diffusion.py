"""Stable Diffusion 1.x and 2.x: 77 vectors of CLIP's text width -> a picture.

Sources: arXiv:2112.10752; layouts `stable-diffusion-v1-5` (width 768, 512 pixels) and `stable-diffusion-2-1`(`-base`)
(width 1024, 768 or 512 pixels; whether noise or velocity is predicted stands in the folder's scheduler). GILL, NExT-GPT and MiniGPT-5
steer it so; Emu does with 32 vectors and a UNet of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sensorium.core.errors import ConfigError
from sensorium.core.hands import MadeKind
from sensorium.generators import tiny_parts
from sensorium.generators.diffusion import DiffusionConfig, PictureGenerator
from sensorium.generators.pipeline_folder import Layout, check_sizes
from sensorium.nn.diffusion_loss import Prediction


class StableDiffusionConfig(DiffusionConfig):
    """Defaults are 1.5; width 1024 is 2.1."""

    kind: Literal["stable_diffusion"] = "stable_diffusion"
    length: int = 77
    width: int = 768
    reads_text: bool = True
    """False: the pipeline has no text encoder of its own (Emu)."""

    @classmethod
    def tiny(cls) -> StableDiffusionConfig:
        return cls(length=tiny_parts.TEXT_LENGTH, width=32, scale="tiny")

    @property
    def makes(self) -> MadeKind:
        return "image"

    @property
    def layout(self) -> Layout:
        made, text, checks = ("vae", "unet", "scheduler"), ("text_encoder", "tokenizer"), ("safety_checker", "feature_extractor", "image_encoder")
        if not self.reads_text:
            return Layout("StableDiffusionPipeline", made, (*text, *checks), "BAAI/Emu")
        return Layout(
            "StableDiffusionPipeline", (*made, *text), checks,
            "stable-diffusion-v1-5/stable-diffusion-v1-5" if self.width == 768 else "stabilityai/stable-diffusion-2-1",
        )  # fmt: skip

    def tiny_pipeline(self, diffusers: Any) -> Any:
        return diffusers.StableDiffusionPipeline(
            vae=tiny_parts.vae(), text_encoder=tiny_parts.clip_text(self.width) if self.reads_text else None,
            tokenizer=tiny_parts.clip_tokenizer() if self.reads_text else None,
            unet=tiny_parts.unet(self.width), scheduler=tiny_parts.scheduler("PNDMScheduler", skip_prk_steps=True, steps_offset=1),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip

    def check_pipeline(self, pipe: Any) -> None:
        check_sizes(self.kind, "condition width", pipe.unet.config.cross_attention_dim, self.width)

    def generator(self, pipe: Any) -> StableDiffusion:
        return StableDiffusion(self, pipe)


class StableDiffusion(PictureGenerator):
    """Conditions in place of encoded prompts."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """What the pipeline's text encoder makes of each text: (B, L, C).

        Raises:
            ConfigError: the pipeline has none.
        """
        if self.pipe.text_encoder is None:
            raise ConfigError("a pipeline without a text encoder cannot encode text", where="generator stable_diffusion")
        return encode_prompts(self.pipe, texts)

    def arguments(self, condition_BLC: Tensor, negative_BLC: Tensor | None) -> dict[str, Any]:
        return {"prompt_embeds": condition_BLC, "negative_prompt_embeds": negative_BLC}

    # What `training.objectives.diffuse` needs to train a condition through the frozen UNet, or the UNet itself.

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

    @property
    def network(self) -> nn.Module:
        """What MGIE's checkpoint holds of it."""
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


def encode_prompts(pipe: Any, texts: Sequence[str]) -> Tensor:
    """What a pipeline with one CLIP makes of texts; longer ones are cut to the encoder's length."""
    with torch.no_grad():
        return pipe.encode_prompt(list(texts), pipe.unet.device, 1, False)[0]
