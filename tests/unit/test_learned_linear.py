"""Layers that learn and multiply by oneDNN: the same products, gradients, names and files, and only where and while they are meant to be."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sensorium.nn import learned_linear, onednn
from sensorium.nn.learned_linear import LearnedLinear, learned_linears, multiplied
from sensorium.nn.onednn import FEWEST_ROWS, has_onednn

pytestmark = pytest.mark.skipif(not has_onednn(), reason="this build of torch has no oneDNN")


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 300), st.integers(1, 130), st.sampled_from([(FEWEST_ROWS,), (3, 250), (1, 2, 300), (5,)]), st.booleans())
def test_products_and_gradients_are_those_of_a_plain_layer(inputs: int, outputs: int, shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs, bias)
    x = torch.randn(*shape, inputs, requires_grad=True)
    given = [x, *layer.parameters()]
    plain = layer(x)
    upstream = torch.randn(plain.shape)
    wanted = torch.autograd.grad(plain, given, upstream)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learned_linear, "SMALLEST", 1)
        with multiplied([layer]):
            ours = layer(x)
            found = torch.autograd.grad(ours, given, upstream)
    assert ours.shape == plain.shape
    assert torch.allclose(ours, plain, atol=1e-5)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-3, rtol=1e-4)


def test_which_layers() -> None:
    table = nn.Embedding(300, 256)
    head = nn.Linear(256, 300, bias=False)
    head.weight = table.weight
    frozen, small, half, plain = nn.Linear(300, 300).requires_grad_(False), nn.Linear(8, 8), nn.Linear(300, 300).half(), nn.Linear(300, 300)
    assert learned_linears([table, head, frozen, small, half, plain]) == [plain]


def test_it_is_used_where_it_can_be_and_not_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, made = nn.Linear(256, 256), list[int]()
    monkeypatch.setattr(learned_linear, "product", lambda x, *rest: made.append(len(x)) or onednn.product(x, *rest))
    with multiplied([layer]):
        layer(torch.randn(FEWEST_ROWS, 256)).sum().backward()
        # The states' gradients are wanted by nobody.
        assert made == [FEWEST_ROWS]
        layer(torch.randn(FEWEST_ROWS - 1, 256))
        with torch.autocast("cpu", torch.bfloat16):
            layer(torch.randn(FEWEST_ROWS, 256))
        layer.weight.requires_grad_(False)
        layer(torch.randn(FEWEST_ROWS, 256))
        assert len(made) == 1
    layer(torch.randn(FEWEST_ROWS, 256))
    assert len(made) == 1


def test_names_copies_and_failures_leave_plain_layers() -> None:
    model = nn.Sequential(nn.Linear(256, 600), nn.ReLU(), nn.Linear(600, 256))
    names = list(model.state_dict())

    def stopped_inside() -> None:
        with multiplied(learned_linears(model.modules())):
            assert type(model[0]) is LearnedLinear
            assert list(model.state_dict()) == names
            assert type(copy.deepcopy(model)[0]) is nn.Linear
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stopped_inside()
    assert [type(layer) for layer in (model[0], model[2])] == [nn.Linear, nn.Linear]


@pytest.mark.parametrize(("text", "faster", "plain"), [
    ("processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f\n", True, True),
    ("processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2\n", True, False),
    ("processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 avx512f\n", False, False),
    ("processor\t: 0\nBogoMIPS\t: 50.00\n", False, False),
    (None, False, False),
])  # fmt: skip
def test_which_processors(text: str | None, faster: bool, plain: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(onednn, "CPU_INFO", file)
    questions = onednn.onednn_is_faster, onednn.reads_weights_as_they_lie
    for question in questions:
        question.cache_clear()
    try:
        assert onednn.onednn_is_faster() == faster
        assert onednn.reads_weights_as_they_lie() == plain
    finally:
        monkeypatch.undo()
        for question in questions:
            question.cache_clear()
