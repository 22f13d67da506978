"""The loss of latent diffusion is the formula of its paper, term by term."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sensorium.core.errors import ConfigError
from sensorium.nn.diffusion_loss import diffusion_loss, min_snr_weights, noised, target

ALPHAS = torch.linspace(0.999, 0.0, 11)
"""A schedule that ends in pure noise."""


def by_hand(said: float, clean: float, noise: float, alpha: float, prediction: str, gamma: float | None) -> float:
    """arXiv:2303.09556: the error of the clean latents that a prediction means, times the smaller of ratio and gamma."""
    ratio = alpha / (1 - alpha)
    mixed = math.sqrt(alpha) * clean + math.sqrt(1 - alpha) * noise
    if gamma is None:
        wanted = noise if prediction == "epsilon" else math.sqrt(alpha) * noise - math.sqrt(1 - alpha) * clean
        return (said - wanted) ** 2
    if prediction == "epsilon":
        meant = (mixed - math.sqrt(1 - alpha) * said) / math.sqrt(alpha)
        # The paper's weight of noise: of the clean latents' error, min(ratio, gamma), whatever is predicted.
        return min(ratio, gamma) * (meant - clean) ** 2
    meant = math.sqrt(alpha) * mixed - math.sqrt(1 - alpha) * said
    return min(ratio, gamma) * (meant - clean) ** 2


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("gamma", [None, 1.0, 5.0])
def test_it_is_the_weighed_error_of_the_clean_latents(prediction: Any, gamma: float | None) -> None:
    steps_B = torch.tensor([0, 3, 5, 9])
    clean, noise, said = torch.randn(3, 4, 2, 3, 3).double()
    losses_B = diffusion_loss(
        lambda *_: said, torch.zeros(4, 1, 1), clean, noise, steps_B, ALPHAS, prediction=prediction, gamma=gamma
    )
    for i, step in enumerate(steps_B.tolist()):
        values = zip(said[i].flatten().tolist(), clean[i].flatten().tolist(), noise[i].flatten().tolist())
        errors = [by_hand(s, c, n, float(ALPHAS[step]), prediction, gamma) for s, c, n in values]
        assert float(losses_B[i]) == pytest.approx(sum(errors) / len(errors), rel=2e-3)


def test_weights_have_limits_at_both_ends() -> None:
    ends = torch.tensor([0, 10])
    alphas_T = torch.cat([torch.ones(1), ALPHAS[1:]])
    assert min_snr_weights(ends, alphas_T, "epsilon").tolist() == [0.0, 1.0]
    assert min_snr_weights(ends, alphas_T, "v_prediction").tolist() == [0.0, 0.0]
    assert min_snr_weights(ends, alphas_T, "epsilon", None).tolist() == [1.0, 1.0]
    middle = torch.arange(1, 10)
    ratios = ALPHAS[1:10] / (1 - ALPHAS[1:10])
    torch.testing.assert_close(min_snr_weights(middle, ALPHAS, "epsilon"), ratios.clamp(max=5) / ratios)
    torch.testing.assert_close(min_snr_weights(middle, ALPHAS, "v_prediction"), ratios.clamp(max=5) / (ratios + 1))


def test_what_goes_in_is_noised_and_the_right_answer_costs_nothing() -> None:
    clean, noise = torch.randn(2, 3, 4, 2, 2)
    steps_B = torch.tensor([1, 4, 10])
    seen: list[Any] = []

    def predict(latents: torch.Tensor, steps: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        seen.append((latents, steps, condition))
        return target(clean, noise, steps_B, ALPHAS, "v_prediction")

    condition_BLC = torch.randn(3, 2, 5)
    losses_B = diffusion_loss(predict, condition_BLC, clean, noise, steps_B, ALPHAS, prediction="v_prediction")
    assert losses_B.tolist() == [0.0, 0.0, 0.0]
    torch.testing.assert_close(seen[0][0], noised(clean, noise, steps_B, ALPHAS))
    torch.testing.assert_close(seen[0][0][2], noise[2])
    assert seen[0][1] is steps_B
    assert seen[0][2] is condition_BLC


def test_another_prediction_is_refused() -> None:
    with pytest.raises(ConfigError, match="'sample'; expected epsilon or v_prediction"):
        target(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1).long(), ALPHAS, "sample")  # pyright: ignore[reportArgumentType]
