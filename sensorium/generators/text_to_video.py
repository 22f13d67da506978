"""Zeroscope and its like (ModelScope's text-to-video): 77 vectors -> frames.

Sources: arXiv:2308.06571; layout `cerspense/zeroscope_v2_576w` (width 1024, 576 x 320 pixels, 24 frames). NExT-GPT steers it so.

Shape legend: B items, F frames, C channels, H/W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor

from sensorium.core.hands import Made, MadeKind
from sensorium.generators import tiny_parts
from sensorium.generators.diffusion import DiffusionConfig, as_bytes
from sensorium.generators.latent import LatentGenerator
from sensorium.generators.pipeline_folder import Layout, check_sizes
from sensorium.generators.stable_diffusion import encode_prompts


class TextToVideoConfig(DiffusionConfig):
    """Defaults are Zeroscope's."""

    kind: Literal["text_to_video"] = "text_to_video"
    length: int = 77
    width: int = 1024
    frames: int = 24
    """Where no seconds are asked for."""
    fps: float = 8.0
    """At which the frames are meant to be shown; the pipeline knows no time."""

    @classmethod
    def tiny(cls) -> TextToVideoConfig:
        return cls(length=tiny_parts.TEXT_LENGTH, width=32, frames=2, scale="tiny")

    @property
    def makes(self) -> MadeKind:
        return "video"

    @property
    def layout(self) -> Layout:
        return Layout(
            "TextToVideoSDPipeline", ("vae", "text_encoder", "tokenizer", "unet", "scheduler"), published="cerspense/zeroscope_v2_576w",
            # zeroscope_v2_XL's, which NExT-GPT 1.5 makes videos of texts with all the same.
            also=("VideoToVideoSDPipeline",),
        )  # fmt: skip

    def tiny_pipeline(self, diffusers: Any) -> Any:
        return diffusers.TextToVideoSDPipeline(
            vae=tiny_parts.vae(), text_encoder=tiny_parts.clip_text(self.width), tokenizer=tiny_parts.clip_tokenizer(),
            unet=tiny_parts.video_unet(self.width), scheduler=tiny_parts.scheduler(),
        )  # fmt: skip

    def check_pipeline(self, pipe: Any) -> None:
        check_sizes(self.kind, "condition width", pipe.unet.config.cross_attention_dim, self.width)

    def generator(self, pipe: Any) -> TextToVideo:
        return TextToVideo(self, pipe)


class TextToVideo(LatentGenerator):
    """Conditions in place of encoded prompts; all frames at once."""

    config: TextToVideoConfig
    sized = True
    timed = True

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """What the pipeline's text encoder makes of each text: (B, L, C)."""
        return encode_prompts(self.pipe, texts)

    def arguments(self, condition_BLC: Tensor, negative_BLC: Tensor | None) -> dict[str, Any]:
        return {"prompt_embeds": condition_BLC, "negative_prompt_embeds": negative_BLC}

    def span(self, seconds: float) -> dict[str, Any]:
        return {"num_frames": max(1, round(seconds * self.config.fps))}

    def own_span(self) -> dict[str, Any]:
        return {"num_frames": self.config.frames}

    def made(self, output: Any) -> list[Made]:
        return [Made("video", array, fps=self.config.fps) for array in as_bytes(output.frames, self.config.kind)]

    def latents(self, pixels_BFCHW: Tensor, seed: int) -> Tensor:
        """Latents (B, C, F, H, W) of videos, uint8, each frame drawn from what the VAE says of it."""
        drawn = self.drawn(self.picture_values(pixels_BFCHW.flatten(0, 1)), seed)
        return drawn.unflatten(0, pixels_BFCHW.shape[:2]).transpose(1, 2)
