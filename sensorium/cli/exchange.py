"""`import` and `export`."""

from __future__ import annotations

import json
from pathlib import Path

from sensorium.core.errors import ConfigError


def import_command(folder: str, out: str, as_json: bool) -> None:
    """A foreign folder becomes one of ours."""
    from sensorium.cli.main import print_json
    from sensorium.interop.hf import import_hf

    model = import_hf(Path(folder), Path(out))
    count = sum(p.numel() for p in model.parameters())
    if as_json:
        print_json({"folder": out, "parameters": count})
    else:
        print(f"{out}: {count:,} parameters. Try it: sensorium chat --model {out}")


def export_command(folder: str, out: str, to: str | None, half: bool, as_json: bool) -> None:
    """One of ours becomes a foreign folder, or a smaller one of ours."""
    from sensorium.api import find_model
    from sensorium.cli.main import print_json
    from sensorium.interop.hf import export_hf
    from sensorium.interop.saved import recast

    source = find_model(folder)
    if to == "sensorium":
        recast(source, Path(out), half=half)
    elif half:
        raise ConfigError("--half goes with --to sensorium")
    else:
        export_hf(source, Path(out), to)
    config = json.loads((Path(out) / "config.json").read_text(encoding="utf-8"))
    kind = config.get("model_type", "sensorium")
    if as_json:
        print_json({"folder": out, "layout": kind})
    else:
        print(f"{out}: written in {kind} layout")
