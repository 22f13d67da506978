"""Frozen layers whose weights are laid out: the same products, names and files, and only where and while they are meant to be."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sensorium.nn import frozen_linear
from sensorium.nn.frozen_linear import LaidOutLinear, frozen_linears, laid_out
from sensorium.nn.onednn import FEWEST_ROWS, has_onednn

pytestmark = pytest.mark.skipif(
    not has_onednn(),
    reason="this build of torch has no oneDNN",
)


def layer_of(inputs: int, outputs: int, bias: bool = True, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs, bias).requires_grad_(False)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 300), st.integers(1, 130), st.sampled_from([(FEWEST_ROWS,), (3, 250), (1, 2, 300), (5,)]), st.booleans())
def test_products_and_gradients_are_those_of_a_plain_layer(inputs: int, outputs: int, shape: tuple[int, ...], bias: bool) -> None:
    layer = layer_of(inputs, outputs, bias)
    x = torch.randn(*shape, inputs, requires_grad=True)
    plain = layer(x)
    upstream = torch.randn(plain.shape)
    (wanted,) = torch.autograd.grad(plain, x, upstream)
    with laid_out([layer]):
        ours = layer(x)
        (found,) = torch.autograd.grad(ours, x, upstream)
        assert torch.allclose(layer(x.detach().transpose(0, -2).contiguous().transpose(0, -2)), plain, atol=1e-5)
    assert ours.shape == plain.shape
    assert torch.allclose(ours, plain, atol=1e-5)
    assert torch.allclose(found, wanted, atol=1e-5)


def test_which_layers() -> None:
    table = nn.Embedding(300, 64).requires_grad_(False)
    head = layer_of(64, 300, bias=False)
    head.weight = table.weight
    learning, small, half = nn.Linear(300, 300), layer_of(8, 8), layer_of(300, 300).half()
    plain = layer_of(300, 300)
    assert frozen_linears([table, head, learning, small, half, plain]) == [plain]


def test_it_is_used_where_it_can_be_and_not_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, made = layer_of(128, 128), list[bool]()
    real = frozen_linear._Layouts.product

    def noted(self: frozen_linear._Layouts, *args: Any, back: bool) -> torch.Tensor:
        made.append(back)
        return real(self, *args, back=back)

    monkeypatch.setattr(frozen_linear._Layouts, "product", noted)
    x = torch.randn(FEWEST_ROWS, 128, requires_grad=True)
    with laid_out([layer]):
        layer(x).sum().backward()
        assert made == [False, True]
        layer(x[1:])
        with torch.autocast("cpu", torch.bfloat16):
            layer(x)
        layer.weight.requires_grad_(True)
        layer(x).sum().backward()
        assert layer.weight.grad is not None
        layer.weight.requires_grad_(False)
    layer(x)
    assert made == [False, True]


def test_a_bias_that_learns_has_its_gradient() -> None:
    layer = layer_of(128, 96)
    layer.bias.requires_grad_(True)
    x = torch.randn(FEWEST_ROWS, 128)
    with laid_out([layer]):
        layer(x).square().sum().backward()
    found, layer.bias.grad = layer.bias.grad, None
    layer(x).square().sum().backward()
    assert found is not None
    assert layer.bias.grad is not None
    assert torch.allclose(found, layer.bias.grad, rtol=1e-4)


def test_weights_that_are_written_to_are_laid_out_anew() -> None:
    layer, x = layer_of(128, 96), torch.randn(FEWEST_ROWS, 128)
    with laid_out([layer]):
        before = layer(x)
        layer.load_state_dict({name: 2 * value for name, value in layer.state_dict().items()})
        assert torch.allclose(layer(x), 2 * before, atol=1e-5)


def test_other_weights_are_seen_and_changing_ones_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x, made = layer_of(128, 96), torch.randn(FEWEST_ROWS, 128), list[bool]()
    real = frozen_linear._Layouts.product
    monkeypatch.setattr(frozen_linear._Layouts, "product", lambda *args, back: made.append(back) or real(*args, back=back))
    other = nn.Parameter(2 * layer.weight, requires_grad=False)
    with laid_out([layer]):
        before = layer(x) - layer.bias
        swapped = torch.func.functional_call(layer, {"weight": other}, (x,))
        assert torch.allclose(swapped - layer.bias, 2 * before, atol=1e-5)
        assert torch.allclose(layer(x) - layer.bias, before, atol=1e-5)
        for times in range(1, 6):
            with torch.no_grad():
                layer.weight.add_(other / 2)
            assert torch.allclose(layer(x) - layer.bias, (1 + times) * before, atol=1e-4)
    assert 3 <= len(made) < 8


def test_second_derivatives_are_refused() -> None:
    layer, x = layer_of(128, 96), torch.randn(FEWEST_ROWS, 128, requires_grad=True)
    with laid_out([layer]):
        (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


def test_wrong_widths_fail_as_in_a_plain_layer() -> None:
    layer = layer_of(128, 96)
    with laid_out([layer]), pytest.raises(RuntimeError, match="shapes"):
        layer(torch.randn(FEWEST_ROWS, 100))


def test_names_copies_and_failures_leave_plain_layers() -> None:
    model = nn.Sequential(layer_of(128, 600), nn.ReLU(), layer_of(600, 128))
    names, x = list(model.state_dict()), torch.randn(FEWEST_ROWS, 128)
    plain = model(x)

    def stopped_inside() -> None:
        with laid_out(frozen_linears(model.modules())):
            assert type(model[0]) is LaidOutLinear
            model(x)
            assert list(model.state_dict()) == names
            assert torch.allclose(copy.deepcopy(model)(x), plain, atol=1e-5)
            assert type(copy.deepcopy(model)[0]) is nn.Linear
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stopped_inside()
    assert [type(layer) for layer in (model[0], model[2])] == [nn.Linear, nn.Linear]
    assert not len(frozen_linear._LAYOUTS)
    assert torch.equal(model(x), plain)
