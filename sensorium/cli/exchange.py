"""`import` and `export`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sensorium.core.errors import ConfigError


def check_target(out: Path, source: Path) -> None:
    """Refuse to replace anything that is not a model folder, or the source itself.

    Raises:
        ConfigError: naming the folder.
    """
    if out.exists() and out.resolve() == source.resolve():
        raise ConfigError("source and target are one folder", where=str(out))
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / "config.json").exists() or any(p.is_dir() for p in out.iterdir()):
        raise ConfigError(
            "the target exists and is not a model folder", where=str(out), fix="name a new folder"
        )


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What lies beside a checkpoint that is not whole."""

    llm: str | None = None
    tower: str | None = None
    more: tuple[str, ...] = ()


def import_command(source: str, out: str, options: ImportOptions, as_json: bool) -> None:
    """A foreign folder or file becomes one of ours."""
    from sensorium.cli.main import print_json
    from sensorium.interop.hf import import_hf
    from sensorium.interop.original import import_original, is_original
    from sensorium.interop.originals.base import Beside

    check_target(Path(out), Path(source))
    if is_original(Path(source)):
        llm, tower = (Path(p) if p else None for p in (options.llm, options.tower))
        model = import_original(Path(source), Path(out), Beside(llm, tower, tuple(map(Path, options.more))))
    elif options != ImportOptions():
        raise ConfigError("--llm, --tower and --with go with the original repositories' layouts", where=source,
                          fix="leave them out: this folder in transformers' layout is whole")  # fmt: skip
    else:
        model = import_hf(Path(source), Path(out))
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
    check_target(Path(out), source)
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
