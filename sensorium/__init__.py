"""Sensorium: build, train, measure and serve multimodal large language models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sensorium.api import Model, load

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Heavy names load when they are first used."""
    if name in ("load", "Model"):
        from sensorium import api

        return getattr(api, name)
    raise AttributeError(f"module 'sensorium' has no attribute {name!r}")
