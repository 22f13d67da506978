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
@given(st.integers(1, 200), st.sampled_from([(2, 1), (6, 2), (6, 6), (8, 1)]), st.sampled_from([None, 0.5]), st.integers(0, 9))
def test_values_and_gradients_are_torch_s(tokens: int, heads: tuple[int, int], scale: float | None, seed: int) -> None:
    q, k, v = states(tokens, *heads, seed=seed)
    ours, wanted = grouped_attention(q, k, v, scale), torchs(q, k, v, scale)
    assert torch.allclose(ours, wanted, atol=1e-5)
    upstream = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(seed))
    for found, expected in zip(*(torch.autograd.grad(x, (q, k, v), upstream) for x in (ours, wanted)), strict=True):
        assert torch.allclose(found, expected, atol=1e-4)


def test_scores_that_leave_one_key_alone() -> None:
    q, k, v = states(256)
    ours = grouped_attention(q * 100, k, v)
    assert torch.allclose(ours, torchs(q * 100, k, v, None), atol=1e-3)
    # Where scores leave no digit for the others, some values of one key each.
    assert torch.isfinite(grouped_attention(q * 1e6, k, v)).all()


@pytest.mark.parametrize(("tokens", "heads", "dtype", "wanted"), [
    (SHORTEST, (6, 2), torch.float32, True),
    (LONGEST, (6, 2), torch.float32, True),
    (SHORTEST - 1, (6, 2), torch.float32, False),
    (LONGEST + 1, (6, 2), torch.float32, False),
    (SHORTEST, (6, 6), torch.float32, False),
    (SHORTEST, (6, 2), torch.bfloat16, False),
])  # fmt: skip
def test_where_it_is_used(tokens: int, heads: tuple[int, int], dtype: torch.dtype, wanted: bool) -> None:
    assert can_group(*(x.to(dtype) for x in states(tokens, *heads))) == wanted
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_group(*states(tokens, *heads))


def test_packed_samples_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    segments_BT = torch.tensor([[1] * 200 + [2] * 40 + [3] * 260])
    q, k, v = states(500)
    asked: list[int] = []

    def noted(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
        asked.append(q.shape[2])
        return grouped_attention(q, k, v, scale)

    monkeypatch.setattr(segment_attention, "grouped_attention", noted)
    found = attend(q, k, v, layout_of(segments_BT))
    assert asked == [200, 260]
    monkeypatch.setattr(segment_attention, "can_group", lambda *_: False)
    assert torch.allclose(found, attend(q, k, v, layout_of(segments_BT)), atol=1e-5)
