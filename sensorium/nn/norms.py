"""Normalisation by name."""

from __future__ import annotations

from typing import Literal

from torch import nn

NormName = Literal["layer", "rms"]


def norm(name: NormName, width: int, eps: float) -> nn.Module:
    """A new normalisation layer over the last dimension."""
    return nn.RMSNorm(width, eps=eps) if name == "rms" else nn.LayerNorm(width, eps=eps)
