"""Which machine this is, and where its results are kept."""

from __future__ import annotations

import json
import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch

from sensorium.core.atomic import atomic_path

RESULTS = Path(__file__).resolve().parent.parent / "results"


def processor() -> str:
    """The processor's name as the system gives it, which may be a maker's alone, with its family and model and its widest vectors."""
    path = Path("/proc/cpuinfo")
    first = path.read_text().partition("\n\n")[0] if path.exists() else ""
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    if "model name" not in told:
        return platform.processor() or platform.machine()
    wide = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in told.get("flags", "").split()), "")
    return " ".join([told["model name"], told.get("cpu family", ""), told.get("model", ""), wide]).strip()


def gpu() -> str:
    """The GPU's name."""
    return torch.cuda.get_device_name()


def slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def stored(path: Path, result: dict[str, Any]) -> None:
    """Write a result whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as written:
        written.write_text(json.dumps(result, indent=1) + "\n")


def keep(name: str, result: dict[str, Any], folder: Path) -> None:
    """Write a result of this machine, in place of an earlier one, and print it."""
    named = {"date": date.today().isoformat(), "processor": processor(), "torch": torch.__version__, **result}
    stored(folder / f"{name}-{slug(named['processor'])}.json", named)
    print(json.dumps(named, indent=1))
