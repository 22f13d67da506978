"""AudioLDM 2: vectors of a language of sound and vectors of a text -> sound, music or speech.

Sources: arXiv:2308.05734; layout `cvssp/audioldm2`. Its UNet looks at two conditions: 8 vectors of 768, which a GPT-2 writes after it has read
CLAP's and T5's view of the text, and T5's own vectors of 1,024, as many as the text has tokens. Our condition is
both, one below the other: first the rows of the language of sound, filled up with zeros, then those of the
text. A row of zeros there is beyond the text's end, and nothing looks at it.

Shape legend: see `diffusion`; S rows of the language of sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.errors import ConfigError
from sensorium.core.hands import MadeKind
from sensorium.generators import tiny_parts
from sensorium.generators.audioldm import SoundGenerator
from sensorium.generators.diffusion import DiffusionConfig
from sensorium.generators.pipeline_folder import Layout, check_sizes


class AudioLdm2Config(DiffusionConfig):
    """8 rows of sound and up to 32 of text."""

    kind: Literal["audioldm2"] = "audioldm2"
    length: int = 40
    width: int = 1024
    sounds: int = 8
    """Of the rows, those of the language of sound."""
    sound_width: int = 768

    @classmethod
    def tiny(cls) -> AudioLdm2Config:
        return cls(length=4 + tiny_parts.TEXT_LENGTH, width=32, sounds=4, sound_width=16, scale="tiny")

    @property
    def makes(self) -> MadeKind:
        return "audio"

    @property
    def layout(self) -> Layout:
        return Layout(
            "AudioLDM2Pipeline",
            ("vae", "text_encoder", "text_encoder_2", "projection_model", "language_model", "tokenizer", "tokenizer_2",
             "feature_extractor", "unet", "scheduler", "vocoder"),
            published="cvssp/audioldm2",
        )  # fmt: skip

    def tiny_pipeline(self, diffusers: Any) -> Any:
        return diffusers.AudioLDM2Pipeline(
            vae=tiny_parts.vae(channels=1), text_encoder=tiny_parts.clap(24), text_encoder_2=tiny_parts.t5(self.width),
            projection_model=tiny_parts.sound_projection(24, self.width, self.sound_width),
            language_model=tiny_parts.gpt2(self.sound_width, self.sounds), tokenizer=tiny_parts.roberta_tokenizer(),
            tokenizer_2=tiny_parts.t5_tokenizer(), feature_extractor=tiny_parts.clap_sounds(),
            unet=tiny_parts.two_text_unet(self.sound_width, self.width), scheduler=tiny_parts.scheduler(), vocoder=tiny_parts.vocoder(bins=16),
        )  # fmt: skip

    def check_pipeline(self, pipe: Any) -> None:
        check_sizes(self.kind, "text width", pipe.text_encoder_2.config.hidden_size, self.width)
        check_sizes(self.kind, "width of the language of sound", pipe.language_model.config.hidden_size, self.sound_width)

    def generator(self, pipe: Any) -> AudioLdm2:
        return AudioLdm2(self, pipe)


class AudioLdm2(SoundGenerator):
    """Conditions in place of what the pipeline's three text models say."""

    config: AudioLdm2Config

    def __init__(self, config: AudioLdm2Config, pipe: Any) -> None:
        super().__init__(config, pipe)
        if not hasattr(pipe.language_model, "_update_model_kwargs_for_generation"):
            pipe.register_modules(language_model=_writer(pipe.language_model))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """What the pipeline's text models make of each text: (B, L, C).

        Raises:
            ConfigError: a text has more tokens than the condition has rows for.
        """
        config = self.config
        with torch.no_grad():
            text_BTC, mask_BT, sound_BSC = self.pipe.encode_prompt(
                list(texts), self.device, 1, False, max_new_tokens=config.sounds
            )
        rows = config.length - config.sounds
        if text_BTC.shape[1] > rows:
            raise ConfigError(
                f"a text of {text_BTC.shape[1]} tokens", expected=f"at most {rows}", where=f"generator {config.kind}",
                fix="shorten it, or raise the generator's length",
            )  # fmt: skip
        text_BTC = F.pad(text_BTC * mask_BT[..., None], (0, 0, 0, rows - text_BTC.shape[1]))
        return torch.cat([F.pad(sound_BSC, (0, config.width - config.sound_width)), text_BTC], dim=1)

    def arguments(self, condition_BLC: Tensor, negative_BLC: Tensor | None) -> dict[str, Any]:
        sounds, text, mask = self._parts(condition_BLC)
        given: dict[str, Any] = {"generated_prompt_embeds": sounds, "prompt_embeds": text, "attention_mask": mask}
        if negative_BLC is not None:
            sounds, text, mask = self._parts(negative_BLC)
            given |= {
                "negative_generated_prompt_embeds": sounds, "negative_prompt_embeds": text, "negative_attention_mask": mask,
            }  # fmt: skip
        # The negative text is written as many states long as the condition.
        return given | {"max_new_tokens": self.config.sounds}

    def _parts(self, values_BLC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sounds_BSC = values_BLC[:, : self.config.sounds, : self.config.sound_width]
        text_BTC = values_BLC[:, self.config.sounds :]
        return sounds_BSC, text_BTC, (text_BTC != 0).any(dim=-1).long()


def _writer(bare: Any) -> Any:
    """A GPT-2 that the pipeline can write with: published folders hold the bare model, which later versions of
    transformers cannot step (github.com/huggingface/diffusers/issues/12630). States are the same."""
    from transformers import GPT2LMHeadModel

    with torch.device("meta"):
        writer: Any = GPT2LMHeadModel(bare.config)
    writer.transformer, writer.lm_head = bare, nn.Identity()
    return writer.requires_grad_(False).eval()
