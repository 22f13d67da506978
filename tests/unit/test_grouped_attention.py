"""Attention by groups of queries: torch's own values and gradients, and only where it is meant to be."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from sensorium.nn import segment_attention
from sensorium.nn.grouped_attention import LONGEST, SHORTEST, can_group, grouped_attention
from sensorium.nn.segment_attention import attend, layout_of


def states(tokens: int, heads: int = 6, key_heads: int = 2, width: int = 8, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(1, tokens, count, width, generator=draw).transpose(1, 2) for count in (heads, key_heads, key_heads))
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


def torchs(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True).transpose(1, 2)


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=4), st.sampled_from([(2, 1), (6, 2), (6, 6), (8, 1)]), st.sampled_from([None, 0.5]),
    st.integers(0, 9),
)  # fmt: skip
def test_values_and_gradients_are_torch_s(lengths: list[int], heads: tuple[int, int], scale: float | None, seed: int) -> None:
    q, k, v = states(sum(lengths), *heads, seed=seed)
    ours = grouped_attention(q, k, v, lengths, scale)
    wanted = torch.cat([torchs(*parts, scale) for parts in zip(*(x.split(lengths, dim=2) for x in (q, k, v)), strict=True)], dim=1)
    assert torch.allclose(ours, wanted, atol=1e-5)
    upstream = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(seed))
    for found, expected in zip(*(torch.autograd.grad(x, (q, k, v), upstream) for x in (ours, wanted)), strict=True):
        assert torch.allclose(found, expected, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 150), min_size=1, max_size=4), st.sampled_from([(6, 2), (6, 6)]), st.floats(0, 1), st.integers(0, 9))
def test_wanted_queries_alone_have_the_values_and_gradients_of_all(lengths: list[int], heads: tuple[int, int], share: float, seed: int) -> None:
    q, k, v = states(sum(lengths), *heads, seed=seed)
    wanted_M = (torch.rand(sum(lengths), generator=torch.Generator().manual_seed(seed)) < share).nonzero()[:, 0]
    narrow = grouped_attention(q[:, :, wanted_M], k, v, lengths, None, wanted_M)
    whole = grouped_attention(q, k, v, lengths)[:, wanted_M]
    assert torch.allclose(narrow, whole, atol=1e-5)
    upstream = torch.randn(whole.shape, generator=torch.Generator().manual_seed(seed))
    for found, expected in zip(*(torch.autograd.grad(x, (q, k, v), upstream) for x in (narrow, whole)), strict=True):
        assert torch.allclose(found, expected, atol=1e-4)


def test_scores_that_leave_one_key_alone() -> None:
    q, k, v = states(256)
    ours = grouped_attention(q * 100, k, v, [256])
    assert torch.allclose(ours, torchs(q * 100, k, v, None), atol=1e-3)
    # Where scores leave no digit for the others, some values of one key each.
    assert torch.isfinite(grouped_attention(q * 1e6, k, v, [256])).all()


@pytest.mark.parametrize(("dtype", "wanted"), [(torch.float32, True), (torch.bfloat16, False), (torch.float64, False)])
def test_where_it_is_used(dtype: torch.dtype, wanted: bool) -> None:
    assert can_group(*(x.to(dtype) for x in states(50))) == wanted
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_group(*states(50))


@pytest.mark.parametrize("heads", [(6, 2), (6, 6)])
def test_packed_samples_use_it(heads: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [200, SHORTEST, 40, LONGEST, LONGEST + 1, 260]
    segments_BT = torch.tensor([[i for i, size in enumerate(sizes, start=1) for _ in range(size)]])
    branches_BT = (segments_BT == 6).long() * (torch.arange(sum(sizes)) % 3)
    q, k, v = states(sum(sizes), *heads)
    asked: list[tuple[int, ...]] = []

    def noted(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], scale: float | None = None) -> Tensor:
        asked.append(tuple(lengths))
        return grouped_attention(q, k, v, lengths, scale)

    monkeypatch.setattr(segment_attention, "grouped_attention", noted)
    layouts = layout_of(segments_BT), layout_of(segments_BT, branches_BT)
    found = [attend(q, k, v, layout) for layout in layouts]
    assert asked == [(200, SHORTEST), (LONGEST,), (260,), (200, SHORTEST), (LONGEST,)]
    monkeypatch.setattr(segment_attention, "can_group", lambda *_: False)
    for mixed, layout in zip(found, layouts, strict=True):
        assert torch.allclose(mixed, attend(q, k, v, layout), atol=1e-5)
