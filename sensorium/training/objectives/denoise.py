"""Conditions that are heard through their generators, too: what a frozen UNet foretells of the noise in the medium that an answer holds.

Source: NExT-GPT 1.5 (nextgpt/model/language_model/nextgpt_llama.py, `compute_image_loss` and its like): a squared error for each kind of medium
beside the distance of its condition, pictures' weighed by min-SNR 5.

The medium is decoded with its row (`Processor.readers`), so that one that cannot be read is an error of that row.

Shape legend: B media, L condition tokens, C condition width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor

from sensorium.core.batch import Wanted
from sensorium.core.config import Config
from sensorium.core.errors import ConfigError
from sensorium.core.hands import MadeKind
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.processor import Processor
from sensorium.processing.square import square_pixels
from sensorium.processing.wanted_moving import sound_samples, video_pixels
from sensorium.training.objectives.noising import Foretelling, foretold_losses

Reader = Callable[[Wanted], Tensor]


class NoiseConfig(Config):
    """How one kind of medium is heard through its generator."""

    weight: float = Field(default=1.0, ge=0.0)
    """Of the error, beside the distance."""
    gamma: float | None = Field(default=None, gt=0.0)
    """Of min-SNR; None: plain squared error."""

    def reader(self, generator: Any, processor: Processor) -> Reader:
        """Makes of an answer's medium what the generator's `latents` take, one item of it."""
        raise TypeError(f"{type(self).__name__} does not define reader()")


class PictureNoise(NoiseConfig):
    """The middle of each picture."""

    size_px: int | None = Field(default=None, ge=1)
    """Side of the squares; None: the generator's own."""

    def reader(self, generator: Any, processor: Processor) -> Reader:
        side, limits = self.size_px or generator.side_px, processor.limits
        return lambda one: square_pixels(one.medium, side, one.root, limits, "lanczos")


class VideoNoise(NoiseConfig):
    """The beginning of each video; what a shorter one lacks is black. Defaults are NExT-GPT 1.5's."""

    height_px: int = Field(default=320, ge=1)
    width_px: int = Field(default=576, ge=1)
    """To which frames are stretched."""
    frames: int = Field(default=16, ge=1)
    fps: float = Field(default=1.0, gt=0.0)
    """Frames that are seen of each second."""

    def reader(self, generator: Any, processor: Processor) -> Reader:
        size, limits = (self.height_px, self.width_px), processor.limits
        return lambda one: video_pixels(one, size, self.frames, self.fps, limits)


class SoundNoise(NoiseConfig):
    """The beginning of each sound; what a shorter one lacks is silence. The default is NExT-GPT 1.5's."""

    seconds: float = Field(default=10.4, gt=0.0)

    def reader(self, generator: Any, processor: Processor) -> Reader:
        rate_hz, shortest = generator.mel.rate_hz, generator.mel.window / generator.mel.rate_hz
        if self.seconds < shortest:
            raise ConfigError(f"{self.seconds} seconds of sound", where="objective.denoise.audio.seconds",
                              expected=f"at least {shortest}, of which a row of the spectrogram is made")  # fmt: skip
        return lambda one: sound_samples(one, self.seconds, rate_hz)


class DenoiseConfig(Config):
    """The kinds of media that are heard through their generators."""

    image: PictureNoise | None = None
    video: VideoNoise | None = None
    audio: SoundNoise | None = None

    def kinds(self) -> dict[MadeKind, NoiseConfig]:
        """Those that are."""
        found: dict[MadeKind, NoiseConfig | None] = {"image": self.image, "video": self.video, "audio": self.audio}
        return {kind: one for kind, one in found.items() if one is not None}


class Denoise:
    """The errors of one kind of medium."""

    def __init__(self, config: NoiseConfig, generator: Foretelling) -> None:
        self.config = config
        self.generator = generator

    def __call__(self, condition_BLC: Tensor, wanted: Sequence[Wanted]) -> Tensor:
        """Of each medium, (B,); gradients reach the condition."""
        # An earlier stage may have taught it.
        self.generator.unet.requires_grad_(False)
        media = torch.stack([cast(Tensor, one.medium) for one in wanted])
        clean = self.generator.latents(media, int(torch.randint(2**31, ())))
        return foretold_losses(self.generator, condition_BLC, clean, self.config.gamma)


def denoisers(config: DenoiseConfig, model: MultimodalModel, processor: Processor) -> dict[MadeKind, Denoise]:
    """What hears each kind; from now on the Processor reads such media of answers with their rows.

    Raises:
        ConfigError: the model makes no such medium of its states, or by something that cannot be trained through.
    """
    made: dict[MadeKind, Denoise] = {}
    for kind, one in config.kinds().items():
        hand = model.config.hands.get(kind)
        where = f"objective.denoise.{kind}"
        if hand is None or hand.projector is None:
            raise ConfigError(f"noise of {kind} for a model that makes none of its states", where=where, fix=f"leave it out, or give the model hands.{kind}")
        generator: Any = model.generators[kind]
        if not hasattr(generator, "predict"):
            raise ConfigError(f"noise of {kind} by a generator of kind {hand.generator.kind}", where=where,
                              expected="a pipeline of latent diffusion that can be trained through: stable_diffusion, text_to_video, audioldm")  # fmt: skip
        processor.readers[kind] = one.reader(generator, processor)
        made[kind] = Denoise(one, generator)
    return made
