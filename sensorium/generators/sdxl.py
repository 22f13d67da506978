"""Stable Diffusion XL: vectors and a pooled one -> a picture.

Sources: arXiv:2307.01952, layout `stabilityai/stable-diffusion-xl-base-1.0`: 77 vectors of 2,048 and a pooled one of 1,280, which is
the last row of our condition, filled up with zeros. Emu2 (arXiv:2312.13286) has a UNet of its own that sees 64 vectors of
1,792, whose mean is the pooled one (`pooled: mean`); it has no text encoder, and is published in a pipeline with code, of which a source of
weights with `format: emu2_gen` makes one without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.core.errors import ConfigError
from sensorium.core.hands import MadeKind
from sensorium.generators import tiny_parts
from sensorium.generators.diffusion import DiffusionConfig
from sensorium.generators.latent_pictures import LatentPictures
from sensorium.generators.pipeline_folder import Layout, check_sizes

ORIGINAL = (1024, 1024)
"""Emu2 tells its UNet this size of the original whatever it makes."""
TEXT = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")


class SdxlConfig(DiffusionConfig):
    """Defaults are the published base; Emu2: length 64, width 1792, pooled mean."""

    kind: Literal["sdxl"] = "sdxl"
    length: int = 78
    width: int = 2048
    pooled: Literal["last", "mean"] = "last"
    """`last`: the last row of a condition is the pooled vector; `mean`: that of all rows is."""
    pooled_width: int = 1280
    """Of the last row, what counts."""

    @classmethod
    def tiny(cls) -> SdxlConfig:
        return cls(length=tiny_parts.TEXT_LENGTH + 1, width=64, pooled_width=32, scale="tiny")

    @property
    def makes(self) -> MadeKind:
        return "image"

    @property
    def layout(self) -> Layout:
        made = ("vae", "unet", "scheduler")
        return Layout(
            "StableDiffusionXLPipeline", (*made, *TEXT) if self.pooled == "last" else made,
            ("image_encoder", "feature_extractor") if self.pooled == "last" else (*TEXT, "image_encoder", "feature_extractor"),
            "stabilityai/stable-diffusion-xl-base-1.0",
        )  # fmt: skip

    def tiny_pipeline(self, diffusers: Any) -> Any:
        has_text = self.pooled == "last"
        pooled = self.pooled_width if has_text else self.width
        unet = tiny_parts.unet(
            self.width, addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=pooled + 6 * 8, transformer_layers_per_block=(1, 1),
        )  # fmt: skip
        first = self.width - pooled
        return diffusers.StableDiffusionXLPipeline(
            vae=tiny_parts.vae(), unet=unet, scheduler=tiny_parts.scheduler("EulerDiscreteScheduler"), add_watermarker=False,
            text_encoder=tiny_parts.clip_text(first) if has_text else None,
            text_encoder_2=tiny_parts.clip_text(pooled, projection=True) if has_text else None,
            tokenizer=tiny_parts.clip_tokenizer() if has_text else None,
            tokenizer_2=tiny_parts.clip_tokenizer() if has_text else None,
        )  # fmt: skip

    def check_pipeline(self, pipe: Any) -> None:
        check_sizes(self.kind, "condition width", pipe.unet.config.cross_attention_dim, self.width)
        times = 6 * pipe.unet.config.addition_time_embed_dim
        pooled = self.pooled_width if self.pooled == "last" else self.width
        check_sizes(self.kind, "pooled width", pipe.unet.config.projection_class_embeddings_input_dim - times, pooled)

    def generator(self, pipe: Any) -> Sdxl:
        return Sdxl(self, pipe)


class Sdxl(LatentPictures):
    """Conditions in place of encoded prompts and their pooled vector."""

    config: SdxlConfig

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """What the pipeline's two text encoders make of each text, the pooled vector last: (B, L, C).

        Raises:
            ConfigError: the pipeline has none.
        """
        if self.pipe.text_encoder_2 is None:
            raise ConfigError("a pipeline without a text encoder cannot encode text", where="generator sdxl")
        with torch.no_grad():
            tokens_BLC, _, pooled_BP, _ = self.pipe.encode_prompt(list(texts), device=self.device, do_classifier_free_guidance=False)
        last_B1C = F.pad(pooled_BP, (0, self.config.width - pooled_BP.shape[-1]))[:, None]
        return torch.cat([tokens_BLC, last_B1C], dim=1)

    def arguments(self, condition_BLC: Tensor, negative_BLC: Tensor | None) -> dict[str, Any]:
        tokens, pooled = self._parts(condition_BLC)
        given = {"prompt_embeds": tokens, "pooled_prompt_embeds": pooled}
        if negative_BLC is not None:
            tokens, pooled = self._parts(negative_BLC)
            given |= {"negative_prompt_embeds": tokens, "negative_pooled_prompt_embeds": pooled}
        return given | ({"original_size": ORIGINAL} if self.config.pooled == "mean" else {})

    def predict(self, latents: Tensor, steps_B: Tensor, condition_BLC: Tensor) -> Tensor:
        """What the UNet says of noised latents of whole pictures, of which it is told the size."""
        tokens_BLC, pooled_BP = self._parts(condition_BLC.to(latents.dtype))
        height, width = (side * self.pipe.vae_scale_factor for side in latents.shape[-2:])
        original = ORIGINAL if self.config.pooled == "mean" else (height, width)
        told_B6 = torch.tensor([[*original, 0, 0, height, width]]).to(latents).expand(len(latents), -1)
        return self.pipe.unet(latents, steps_B, encoder_hidden_states=tokens_BLC, added_cond_kwargs={"text_embeds": pooled_BP, "time_ids": told_B6}).sample

    def _parts(self, values_BLC: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.pooled == "mean":
            return values_BLC, values_BLC.mean(dim=1)
        return values_BLC[:, :-1], values_BLC[:, -1, : self.config.pooled_width]
