"""Activations by name."""

from __future__ import annotations

from typing import Literal

from torch import nn

ActivationName = Literal["gelu", "gelu_tanh", "relu", "silu", "tanh"]


def activation(name: ActivationName) -> nn.Module:
    """A new activation module."""
    made: dict[str, nn.Module] = {
        "gelu": nn.GELU(),
        "gelu_tanh": nn.GELU(approximate="tanh"),
        "relu": nn.ReLU(),
        "silu": nn.SiLU(),
        "tanh": nn.Tanh(),
    }
    return made[name]
