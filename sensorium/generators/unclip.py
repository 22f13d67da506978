"""Stable Diffusion 2.1 unCLIP: the embedding of a picture by CLIP ViT-H/14 -> a picture like it.

Sources: arXiv:2204.06125; layout `stabilityai/stable-diffusion-2-1-unclip`. SEED steers it with one vector of 1,024. The
embedding is added to the time embedding of the UNet; its cross-attention sees an empty text. What it leads away
from is a zero embedding, always.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sensorium.core.hands import Asked, MadeKind
from sensorium.generators import tiny_parts
from sensorium.generators.diffusion import DiffusionConfig, PictureGenerator
from sensorium.generators.pipeline_folder import Layout, check_sizes

TINY_TEXT = 16


class UnclipConfig(DiffusionConfig):
    """One embedding of a picture."""

    kind: Literal["unclip"] = "unclip"
    length: Literal[1] = 1  # pyright: ignore[reportIncompatibleVariableOverride]
    width: int = 1024

    @classmethod
    def tiny(cls) -> UnclipConfig:
        return cls(width=32, scale="tiny")

    @property
    def makes(self) -> MadeKind:
        return "image"

    @property
    def heeds(self) -> frozenset[Asked]:
        return super().heeds - {"negative"}

    @property
    def layout(self) -> Layout:
        return Layout(
            "StableUnCLIPImg2ImgPipeline",
            ("feature_extractor", "image_encoder", "image_normalizer", "image_noising_scheduler", "tokenizer", "text_encoder",
             "unet", "scheduler", "vae"),
            published="stabilityai/stable-diffusion-2-1-unclip",
        )  # fmt: skip

    def tiny_pipeline(self, diffusers: Any) -> Any:
        normaliser = import_module("diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer").StableUnCLIPImageNormalizer
        unet = tiny_parts.unet(TINY_TEXT, class_embed_type="projection", projection_class_embeddings_input_dim=2 * self.width)
        return diffusers.StableUnCLIPImg2ImgPipeline(
            feature_extractor=tiny_parts.clip_pictures(), image_encoder=tiny_parts.clip_vision(self.width),
            image_normalizer=normaliser(embedding_dim=self.width), unet=unet, vae=tiny_parts.vae(),
            image_noising_scheduler=tiny_parts.scheduler("DDPMScheduler"), scheduler=tiny_parts.scheduler("DDIMScheduler", prediction_type="v_prediction"),
            tokenizer=tiny_parts.clip_tokenizer(), text_encoder=tiny_parts.clip_text(TINY_TEXT),
        )  # fmt: skip

    def check_pipeline(self, pipe: Any) -> None:
        # What the UNet takes is the embedding beside that of its noise level.
        check_sizes(self.kind, "picture embedding", pipe.unet.config.projection_class_embeddings_input_dim, 2 * self.width)

    def generator(self, pipe: Any) -> Unclip:
        return Unclip(self, pipe)


class Unclip(PictureGenerator):
    """Has no text encoder that speaks of conditions; a picture encoder does (`encode_images`)."""

    own_negative = True

    def encode_images(self, images: list[np.ndarray[Any, Any]]) -> Tensor:
        """What the pipeline's picture encoder makes of pictures (H, W, 3), uint8: (B, 1, C)."""
        pixels = self.pipe.feature_extractor(images=images, return_tensors="pt").pixel_values
        with torch.no_grad():
            embeds_BC = self.pipe.image_encoder(pixels.to(self.device, self.pipe.image_encoder.dtype)).image_embeds
        return embeds_BC[:, None]

    def arguments(self, condition_BLC: Tensor, negative_BLC: Tensor | None) -> dict[str, Any]:
        del negative_BLC
        return {"image_embeds": condition_BLC[:, 0], "prompt": [""] * len(condition_BLC)}
