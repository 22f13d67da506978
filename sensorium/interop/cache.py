"""The folder where fetched and converted parts are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$SENSORIUM_CACHE`, else `$XDG_CACHE_HOME/sensorium`, else `~/.cache/sensorium`."""
    chosen = os.environ.get("SENSORIUM_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sensorium"


def features_folder() -> Path:
    """Where the feature store lies."""
    return cache_folder() / "features"
