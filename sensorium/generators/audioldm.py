"""AudioLDM: the embedding of a text by CLAP -> sound.

Sources: arXiv:2301.12503; layout `cvssp/audioldm-l-full` (one vector of 512, 16,000 samples a second). NExT-GPT steers it so. The embedding has
length one, as CLAP compares it; it is added to the time embedding of the UNet.

Shape legend: B items, N samples, L condition tokens (one), C condition width.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.core.hands import Made, MadeKind
from sensorium.generators import tiny_parts
from sensorium.generators.diffusion import DiffusionConfig, DiffusionGenerator, as_sound
from sensorium.generators.latent import LatentGenerator
from sensorium.generators.pipeline_folder import Layout, check_sizes
from sensorium.nn.log_mel import MelShape, log_mel


class AudioLdmConfig(DiffusionConfig):
    """Defaults are the published ones."""

    kind: Literal["audioldm"] = "audioldm"
    length: Literal[1] = 1  # pyright: ignore[reportIncompatibleVariableOverride]
    width: int = 512
    window: int = 1024
    """Samples that a row of its spectrograms is made of; all else of them is the vocoder's."""

    @classmethod
    def tiny(cls) -> AudioLdmConfig:
        return cls(width=32, window=64, scale="tiny")

    @property
    def makes(self) -> MadeKind:
        return "audio"

    @property
    def layout(self) -> Layout:
        return Layout(
            "AudioLDMPipeline", ("vae", "text_encoder", "tokenizer", "unet", "scheduler", "vocoder"), published="cvssp/audioldm-l-full"
        )

    def tiny_pipeline(self, diffusers: Any) -> Any:
        return diffusers.AudioLDMPipeline(
            vae=tiny_parts.vae(channels=1), text_encoder=tiny_parts.clap_text(self.width), tokenizer=tiny_parts.roberta_tokenizer(),
            unet=tiny_parts.audio_unet(self.width), scheduler=tiny_parts.scheduler(), vocoder=tiny_parts.vocoder(bins=16),
        )  # fmt: skip

    def check_pipeline(self, pipe: Any) -> None:
        check_sizes(self.kind, "condition width", pipe.unet.config.projection_class_embeddings_input_dim, self.width)

    def generator(self, pipe: Any) -> AudioLdm:
        return AudioLdm(self, pipe)


class SoundGenerator(DiffusionGenerator):
    """Its output is sound."""

    timed = True

    def span(self, seconds: float) -> dict[str, Any]:
        return {"audio_length_in_s": seconds}

    def made(self, output: Any) -> list[Made]:
        rate = int(self.pipe.vocoder.config.sampling_rate)
        return [Made("audio", array, sample_rate_hz=rate) for array in as_sound(output.audios, self.config.kind)]


class AudioLdm(LatentGenerator, SoundGenerator):
    """Conditions in place of CLAP's embeddings."""

    config: AudioLdmConfig

    @property
    def mel(self) -> MelShape:
        """The spectrograms that its VAE and its vocoder know."""
        vocoder = self.pipe.vocoder.config
        return MelShape(vocoder.sampling_rate, vocoder.model_in_dim, prod(vocoder.upsample_rates), self.config.window)

    def latents(self, samples_BN: Tensor, seed: int) -> Tensor:
        """Latents of sounds, drawn from what the VAE says of their spectrograms.

        Args:
            samples_BN: -1..1, at the rate of `mel`.
        """
        return self.drawn(log_mel(samples_BN.to(self.device), self.mel)[:, None], seed)

    def predict(self, latents: Tensor, steps_B: Tensor, condition_BLC: Tensor) -> Tensor:
        """What the UNet says of noised latents; gradients reach the condition."""
        labels_BC = condition_BLC[:, 0].to(latents.dtype)
        return self.pipe.unet(latents, steps_B, encoder_hidden_states=None, class_labels=labels_BC).sample

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """CLAP's embedding of each text, of length one: (B, 1, C)."""
        read = self.pipe.tokenizer(
            list(texts), padding="max_length", max_length=self.pipe.tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).to(self.device)
        with torch.no_grad():
            embeds_BC = self.pipe.text_encoder(read.input_ids, attention_mask=read.attention_mask).text_embeds
        return F.normalize(embeds_BC, dim=-1)[:, None]

    def arguments(self, condition_BLC: Tensor, negative_BLC: Tensor | None) -> dict[str, Any]:
        return {
            "prompt_embeds": condition_BLC[:, 0],
            "negative_prompt_embeds": None if negative_BLC is None else negative_BLC[:, 0],
        }
