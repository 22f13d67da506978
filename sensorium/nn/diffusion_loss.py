"""The loss of latent diffusion, with weights that hold steps of little noise back (min-SNR).

Latents are mixed with noise by a schedule: at step t, `sqrt(a) clean + sqrt(1 - a) noise`, where a is the schedule's
product of alphas. The ratio of signal to noise is `a / (1 - a)`; Hang et al. (arXiv:2303.09556) weigh the error of the clean
latents by the smaller of it and gamma, which is, for a network that predicts noise, `min(ratio, gamma) / ratio`, and for one that predicts
velocity, `min(ratio, gamma) / (ratio + 1)`. MiniGPT-5 trains its mapper through a frozen UNet so (gamma 5): gradients reach the
condition, weights of the UNet get none.

Everything here is a function of its arguments; whatever is drawn at random comes in drawn.

Shape legend: B items, T steps of the schedule, L condition tokens, C condition width; latents are (B, ...).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.core.errors import ConfigError

Prediction = Literal["epsilon", "v_prediction"]


def noised(clean: Tensor, noise: Tensor, steps_B: Tensor, alphas_T: Tensor) -> Tensor:
    """Latents at a step of the schedule.

    Args:
        alphas_T: products of alphas, from the first step to the last (`alphas_cumprod` in diffusers).
    """
    signal, noisy = _mixture(clean, steps_B, alphas_T)
    return signal * clean + noisy * noise


def target(clean: Tensor, noise: Tensor, steps_B: Tensor, alphas_T: Tensor, prediction: Prediction) -> Tensor:
    """What the network should say: the noise, or the velocity `sqrt(a) noise - sqrt(1 - a) clean`.

    Raises:
        ConfigError: another kind of prediction.
    """
    if prediction == "epsilon":
        return noise
    if prediction != "v_prediction":
        raise ConfigError(f"prediction {prediction!r}", expected="epsilon or v_prediction", where="diffusion loss")
    signal, noisy = _mixture(clean, steps_B, alphas_T)
    return signal * noise - noisy * clean


def min_snr_weights(steps_B: Tensor, alphas_T: Tensor, prediction: Prediction, gamma: float | None = 5.0) -> Tensor:
    """The weight of each item's squared error, (B,); None: all 1. A step of pure noise has weight 1 for noise, 0 for velocity."""
    alphas_B = alphas_T.to(steps_B.device)[steps_B].double()
    if gamma is None:
        return torch.ones_like(alphas_B).float()
    # Written without dividing by the ratio, which is 0 where all is noise, nor by 1 - a, which is 0 where nothing is.
    if prediction == "epsilon":
        return (gamma * (1 - alphas_B) / alphas_B).clamp(max=1.0).float()
    return torch.minimum(alphas_B, gamma * (1 - alphas_B)).float()


def diffusion_loss(
    predict: Callable[[Tensor, Tensor, Tensor], Tensor], condition_BLC: Tensor, clean: Tensor, noise: Tensor, steps_B: Tensor,
    alphas_T: Tensor, *, prediction: Prediction = "epsilon", gamma: float | None = 5.0,
) -> Tensor:  # fmt: skip
    """The weighed squared error of each item, (B,), through a network that sees the condition.

    Args:
        predict: (latents, steps_B, condition_BLC) -> prediction; a frozen UNet, say. Gradients reach the condition through it.
        noise: drawn from a normal distribution, in the shape of `clean`.
        steps_B: drawn evenly from 0..T-1.
        gamma: of min-SNR; None: plain squared error.
    """
    said = predict(noised(clean, noise, steps_B, alphas_T), steps_B, condition_BLC)
    wanted = target(clean, noise, steps_B, alphas_T, prediction)
    errors_B = F.mse_loss(said.float(), wanted.float(), reduction="none").flatten(1).mean(dim=1)
    return errors_B * min_snr_weights(steps_B, alphas_T, prediction, gamma)


def _mixture(clean: Tensor, steps_B: Tensor, alphas_T: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of signal and noise, shaped to multiply latents."""
    alphas_B = alphas_T.to(clean.device, torch.float32)[steps_B]
    shape = (-1, *[1] * (clean.ndim - 1))
    return alphas_B.sqrt().view(shape).to(clean.dtype), (1 - alphas_B).sqrt().view(shape).to(clean.dtype)
