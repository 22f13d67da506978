"""Tensors in half precision and in eight bits: what comes back is what q8_0 allows, and damage is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sensorium.core.errors import WeightsError
from sensorium.nn.pretrained import read_file
from sensorium.nn.stored_numbers import SCALES, SMALL, restored, stored


def test_eight_bits_equal_ggml_s() -> None:
    """gguf's own quantiser, which we did not write, gives the same numbers."""
    import gguf

    value = torch.randn(16, 96) * torch.logspace(-4, 4, 16)[:, None]
    kind = gguf.GGMLQuantizationType.Q8_0
    theirs = gguf.quants.dequantize(gguf.quants.quantize(value.numpy(), kind), kind)
    mine = restored(stored({"w": value}, "q8_0"), "here")["w"]
    # gguf's scale has more digits.
    largest = value.view(16, -1, 32).abs().amax(-1, keepdim=True).expand(16, -1, 32).reshape(16, 96)
    assert ((mine - torch.from_numpy(np.array(theirs))).abs() <= largest / 80).all()
    assert ((mine - value).abs() <= largest * (0.5 / 127 + 2**-8)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 80), st.sampled_from([1, 4, 31, 32, 64, 80]), st.sampled_from([1e-9, 1e-4, 1.0, 1e4]), st.integers(0, 9))
def test_shapes_and_size(rows: int, columns: int, scale: float, seed: int) -> None:
    value = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * scale
    written = stored({"w": value, "n": torch.arange(5)}, "q8_0")
    assert (written["w"].dtype == torch.int8) == (value.numel() >= SMALL and columns % 32 == 0)
    back = restored(written, "here")
    assert set(back) == {"w", "n"}
    assert torch.equal(back["n"], torch.arange(5))
    assert back["w"].shape == value.shape
    assert (back["w"].float() - value).abs().max() <= value.abs().max() * 0.0061 + 1e-7


def test_as_they_are() -> None:
    value = torch.randn(40, 40)
    assert torch.equal(stored({"w": value}, None)["w"], value)
    assert stored({"w": value}, "f16")["w"].dtype == torch.float16


def test_a_file_is_read_as_any_other(tmp_path: Path) -> None:
    value = torch.randn(64, 64)
    save_file(stored({"w": value}, "q8_0"), tmp_path / "a.safetensors")
    assert set(read := read_file(tmp_path / "a.safetensors")) == {"w"}
    assert (read["w"] - value).abs().max() < 0.02


def test_scales_that_do_not_fit(tmp_path: Path) -> None:
    written = stored({"w": torch.randn(64, 64)}, "q8_0")
    written["w" + SCALES] = written["w" + SCALES][:-1].clone()
    save_file(written, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"4096 numbers of torch.int8.*4064"):
        read_file(tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="no tensor"):
        restored({"x" + SCALES: torch.ones(2)}, "here")
