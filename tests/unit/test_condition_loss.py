"""Losses of conditions, and embeddings that come one after another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sensorium.nn.condition_loss import CONDITION_LOSSES, token_norm_loss
from sensorium.nn.continuous import continuous_embeddings


def test_l2_is_the_norm_of_each_token_not_squared() -> None:
    """GILL's arithmetic, number by number: 5, 0 and 13 are the lengths."""
    wanted_BLC = torch.randn(1, 3, 2)
    made_BLC = wanted_BLC + torch.tensor([[[3.0, 4.0], [0.0, 0.0], [5.0, -12.0]]])
    torch.testing.assert_close(token_norm_loss(made_BLC, wanted_BLC), torch.tensor([6.0]))
    others = {name: float(loss(made_BLC, wanted_BLC)) for name, loss in CONDITION_LOSSES.items()}
    assert others["mse"] == pytest.approx((9 + 16 + 25 + 144) / 6, rel=1e-5)


def test_losses_are_the_originals_formulas_item_by_item() -> None:
    made, wanted = torch.randn(3, 5, 7), torch.randn(3, 5, 7)
    l2 = ((made - wanted) ** 2).sum(dim=-1) ** 0.5
    torch.testing.assert_close(CONDITION_LOSSES["l2"](made, wanted).mean(), l2.mean())
    torch.testing.assert_close(CONDITION_LOSSES["mse"](made, wanted).mean(), nn.functional.mse_loss(made, wanted))
    for name, loss in CONDITION_LOSSES.items():
        alone = [float(loss(made[n : n + 1], wanted[n : n + 1])) for n in range(3)]
        assert loss(made, wanted).tolist() == pytest.approx(alone, rel=1e-5), name
        assert loss(wanted, wanted).tolist() == pytest.approx([0.0] * 3, abs=1e-6), name


@pytest.mark.parametrize("name", CONDITION_LOSSES)
def test_a_token_that_is_right_does_not_break_the_gradient(name: str) -> None:
    wanted = torch.randn(1, 2, 4)
    made = wanted.clone().requires_grad_()
    CONDITION_LOSSES[name](made, wanted).sum().backward()
    assert made.grad is not None
    assert bool(made.grad.isfinite().all())


@pytest.mark.parametrize("name", CONDITION_LOSSES)
def test_shapes_are_never_broadcast(name: str) -> None:
    with pytest.raises(ValueError, match="beside a target"):
        CONDITION_LOSSES[name](torch.zeros(2, 5, 7), torch.zeros(2, 1, 7))


class Causal(nn.Module):
    """A language model of one layer that looks back only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True, norm_first=True)

    def forward(self, embeds_BTD: Tensor) -> Tensor:
        length = embeds_BTD.shape[1]
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        return self.layer(embeds_BTD, src_mask=later)


def test_one_after_another_is_what_emu2_computes_anew_each_time() -> None:
    """Emu2's order: all of the text and what was made goes through the model again, and all embeddings are taken
    again from the states at [IMG] and behind it."""
    width, small, count = 16, 6, 5
    model, down, up = Causal(width).eval(), nn.Linear(width, small, bias=False), nn.Linear(small, width, bias=False)
    prompt = torch.randn(2, 4, width)  # The last of it is [IMG].
    with torch.no_grad():
        embeds = prompt
        expected = torch.empty(0)
        for n in range(count):
            embeds = prompt if n == 0 else torch.cat([prompt, up(expected)], dim=1)
            expected = down(model(embeds)[:, -n - 1 :])

        steps: list[Tensor] = []

        def step(embedding_BC: Tensor) -> Tensor:
            steps.append(embedding_BC)
            return model(torch.cat([prompt, up(torch.stack(steps, dim=1))], dim=1))[:, -1]

        first = model(prompt)[:, -1]
        made = torch.stack(list(continuous_embeddings(down, step, first, count)), dim=1)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)
    assert len(steps) == count - 1
    assert list(continuous_embeddings(down, step, first, 0)) == []
