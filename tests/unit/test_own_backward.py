"""Steps of a layer with backward passes of their own: values and gradients of the plain ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sensorium.nn.rms_norm import rms_norm
from sensorium.nn.rotary import rotate, turned


def plain_norm(x: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    return weight_D * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


@pytest.mark.parametrize("shape", [(7, 32), (1, 5, 32), (2, 3, 4, 32)])
@pytest.mark.parametrize("learns", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("size", [1.0, 1e-4, 1e3])
def test_norm(shape: tuple[int, ...], learns: tuple[bool, bool], size: float) -> None:
    torch.manual_seed(0)
    x, weight_D = (size * torch.randn(shape)).requires_grad_(learns[0]), torch.randn(32, requires_grad=learns[1])
    inputs = [each for each in (x, weight_D) if each.requires_grad]
    ours, plain = rms_norm(x, weight_D, 1e-6), plain_norm(x, weight_D, 1e-6)
    assert torch.allclose(ours, plain, atol=1e-5)
    upstream = torch.randn(shape)
    for found, wanted in zip(*(torch.autograd.grad(out, inputs, upstream) for out in (ours, plain)), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_norm_of_nothing_is_finite() -> None:
    x = torch.zeros(2, 8, requires_grad=True)
    out = rms_norm(x, torch.ones(8), 1e-6)
    assert not out.any()
    assert torch.isfinite(torch.autograd.grad(out.sum(), x)[0]).all()


def test_norm_in_double_precision_has_the_gradient_of_differences() -> None:
    x, weight_D = torch.randn(3, 5, dtype=torch.float64, requires_grad=True), torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 1e-6), (x, weight_D))


@pytest.mark.parametrize("heads", [1, 3])
def test_turned(heads: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, heads, 8, requires_grad=True)
    # Halves that differ, as where rows and columns of a map have angles of their own.
    angles = torch.randn(2, 5, 1, 8)
    ours, plain = (turn(x, angles.cos(), angles.sin()) for turn in (turned, rotate))
    assert torch.allclose(ours, plain, atol=1e-6)
    upstream = torch.randn(x.shape)
    found, wanted = (torch.autograd.grad(out, x, upstream)[0] for out in (ours, plain))
    assert torch.allclose(found, wanted, atol=1e-6)
