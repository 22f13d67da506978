"""Media that are noised and foretold by a UNet under a condition: what objectives of latent diffusion share.

Random numbers are drawn from torch's own generator, which a checkpoint keeps.

Shape legend: B media, L condition tokens, C condition width, C/H/W of pixels, T steps of the schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from sensorium.core.batch import Wanted
from sensorium.nn.diffusion_loss import Prediction, diffusion_loss
from sensorium.processing.processor import Processor
from sensorium.processing.square import square_pixels


class Foretelling(Protocol):
    """A generator that can be trained through (`generators.latent`)."""

    @property
    def unet(self) -> nn.Module: ...
    @property
    def alphas_T(self) -> Tensor: ...
    @property
    def prediction(self) -> Prediction: ...
    def latents(self, media: Tensor, seed: int, /) -> Tensor: ...
    def predict(self, latents: Tensor, steps_B: Tensor, condition_BLC: Tensor) -> Tensor: ...


class Diffusing(Foretelling, Protocol):
    """One that makes pictures (`generators.latent_pictures`)."""

    @property
    def looks(self) -> bool: ...
    @property
    def side_px(self) -> int: ...
    @property
    def decoder(self) -> nn.Module: ...
    def to(self, device: torch.device) -> object: ...
    def looked(self, pixels_BCHW: Tensor) -> Tensor: ...
    def encode_text(self, texts: Sequence[str]) -> Tensor: ...


def foretold_losses(generator: Foretelling, condition_BLC: Tensor, clean: Tensor, gamma: float | None, looked: Tensor | None = None) -> Tensor:
    """The weighed squared error of each medium, (B,), at a random step and with random noise.

    Args:
        clean: latents, (B, ...).
        gamma: of min-SNR; None: plain squared error.
        looked: what the UNet sees beside the noise, (B, C, H, W), of a generator that looks at pictures.
    """
    noise = torch.randn(clean.shape).to(clean)
    steps_B = torch.randint(len(generator.alphas_T), (len(clean),)).to(clean.device)

    def predict(latents: Tensor, steps_B: Tensor, condition_BLC: Tensor) -> Tensor:
        return generator.predict(latents if looked is None else torch.cat([latents, looked], dim=1), steps_B, condition_BLC)

    return diffusion_loss(predict, condition_BLC, clean, noise, steps_B, generator.alphas_T,
                          prediction=generator.prediction, gamma=gamma)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Noising:
    """How pictures are cut, and their losses weighed."""

    size_px: int | None
    """Side of the squares; None: the generator's own."""
    gamma: float | None
    """Of min-SNR; None: plain squared error."""
    processor: Processor
    """Its limits hold for what is decoded."""

    def losses(self, drawing: Diffusing, condition_BLC: Tensor, wanted: Sequence[Wanted], unseen_B: Tensor | None = None) -> Tensor:
        """The weighed squared error of each medium, (B,).

        Args:
            unseen_B: which of them are drawn without a look at the picture that is edited, by a generator that looks.
        """
        side = self.size_px or drawing.side_px
        pixels_BCHW = torch.stack([square_pixels(one.medium, side, one.root, self.processor.limits) for one in wanted])
        clean = drawing.latents(pixels_BCHW, int(torch.randint(2**31, ())))
        looked: Tensor | None = None
        if drawing.looks:
            seen_BCHW = torch.stack([square_pixels(one.picture, side, one.root, self.processor.limits) for one in wanted])
            looked = drawing.looked(seen_BCHW)
            looked = looked if unseen_B is None else looked * ~unseen_B[:, None, None, None]
        return foretold_losses(drawing, condition_BLC, clean, self.gamma, looked)


def source_weights(batch_weights_BT: Tensor | None, wanted: Sequence[Wanted], device: torch.device) -> Tensor:
    """Of each medium, (B,): its source's."""
    if batch_weights_BT is None:
        return torch.ones(len(wanted), device=device)
    return batch_weights_BT[[one.row for one in wanted], [one.start for one in wanted]]
