"""Stable Diffusion 1.x and 2.x: 77 vectors of CLIP's text width -> a picture.

Sources: arXiv:2112.10752; layouts `stable-diffusion-v1-5` (width 768, 512 pixels) and `stable-diffusion-2-1`(`-base`)
(width 1024, 768 or 512 pixels; whether noise or velocity is predicted stands in the folder's scheduler). GILL, NExT-GPT and MiniGPT-5
steer it so; Emu does with 32 vectors and a UNet of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from sensorium.core.errors import ConfigError
from sensorium.core.hands import MadeKind
from sensorium.generators import tiny_parts
from sensorium.generators.diffusion import DiffusionConfig
from sensorium.generators.latent_pictures import LatentPictures
from sensorium.generators.pipeline_folder import Layout, check_sizes


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


class StableDiffusion(LatentPictures):
    """Conditions in place of encoded prompts."""

    config: StableDiffusionConfig

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


def encode_prompts(pipe: Any, texts: Sequence[str]) -> Tensor:
    """What a pipeline with one CLIP makes of texts; longer ones are cut to the encoder's length."""
    with torch.no_grad():
        return pipe.encode_prompt(list(texts), pipe.unet.device, 1, False)[0]
