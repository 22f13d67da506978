"""A small pipeline's VAE learns to give the pictures of answers back; the LLM does not run.

After arXiv:2112.10752: distances of pixels and a slight pull of the latents' distribution to a normal one. No discriminator, which
flat pictures do not need. Latents are drawn to mean 0 and deviation 1 of each channel over a batch, where the paper scales them afterwards.

Shape legend: B pictures, C colours, H/W pixels, c channels of latents, h/w their sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError
from sensorium.data.source import Source
from sensorium.generators.small_diffusion import SmallDiffusion
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.processor import Processor
from sensorium.processing.square import square_pixels
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig


class PictureLatentsConfig(ObjectiveConfig):
    """Teaches the VAE of `hands.image`'s small pipeline: `learns` names the part `objective`, module `vae`."""

    kind: Literal["picture_latents"] = "picture_latents"
    l1: float = Field(default=1.0, ge=0.0)
    l2: float = Field(default=1.0, ge=0.0)
    """Weights of the mean absolute and squared distance of values in -1..1."""
    kl: float = Field(default=1e-4, ge=0.0)
    """Of each number's distance in nats from a standard normal one."""
    spread: float = Field(default=0.1, ge=0.0)
    """Of the squared distance of the channels' means from 0 and of their variances from 1."""

    @property
    def runs_llm(self) -> bool:
        return False

    @property
    def from_answers(self) -> tuple[str, ...]:
        return ("image",)

    def build(self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]) -> Objective:
        """The objective.

        Raises:
            ConfigError: the model has no small pipeline.
        """
        hand = model.config.hands.get("image")
        generator = None if hand is None else model.generators["image"]
        if not isinstance(generator, SmallDiffusion):
            found = "makes no pictures" if hand is None else f"draws by {hand.generator.kind}"
            raise ConfigError(f"objective {self.kind!r} for a model that {found}", where="objective.kind",
                              expected="hands.image with generator: {kind: small_diffusion}")  # fmt: skip
        return PictureLatents(self, generator, processor)


class PictureLatents:
    """It owns VAE and UNet, so that the next stage goes on from what this one taught; the UNet learns nothing."""

    def __init__(self, config: PictureLatentsConfig, drawing: SmallDiffusion, processor: Processor) -> None:
        self.config = config
        self.side_px = drawing.side_px
        self.module: nn.Module = drawing.decoder.requires_grad_(False)
        self.limits = processor.limits

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        wanted = [one for one in batch.wanted if one.kind == "image"]
        if not wanted:
            return Losses(torch.zeros((), device=model.device), 0, {})
        pixels_BCHW = torch.stack([square_pixels(one.medium, self.side_px, one.root, self.limits) for one in wanted])
        values_BCHW = pixels_BCHW.to(model.device, torch.float32) / 127.5 - 1
        vae = cast(Any, self.module.vae)
        found = vae.encode(values_BCHW).latent_dist
        made_BCHW = cast(Tensor, vae.decode(found.sample()).sample)
        parts = {
            "l1": self.config.l1 * F.l1_loss(made_BCHW, values_BCHW),
            "l2": self.config.l2 * F.mse_loss(made_BCHW, values_BCHW),
            "kl": self.config.kl * found.kl().mean() / found.mean[0].numel(),
            "spread": self.config.spread * _spread(found.mean),
        }
        named = {name: float(part.detach()) for name, part in parts.items()}
        return Losses(torch.stack(list(parts.values())).sum() * len(wanted), len(wanted), named)


def _spread(latents_Bchw: Tensor) -> Tensor:
    """How far channels are from mean 0 and variance 1."""
    variance_c, mean_c = torch.var_mean(latents_Bchw, dim=(0, 2, 3), correction=0)
    return mean_c.square().mean() + (variance_c - 1).square().mean()
