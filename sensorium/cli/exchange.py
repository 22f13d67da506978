"""`import` and `export`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sensorium.core.errors import ConfigError, WeightsError
from sensorium.core.naming import did_you_mean, nearest

if TYPE_CHECKING:
    from sensorium.nn.stored_numbers import Numbers

NUMBERS, OWN_NUMBERS = ("f32", "f16", "q8_0"), ("f16", "q8_0")
ONTO = "onto:"
"""Before the name of another model: what differs from it is written."""


def check_target(out: Path, source: Path) -> None:
    """Refuse to replace anything that is not a model folder, or the source itself.

    Raises:
        ConfigError: naming the folder.
    """
    if out.exists() and out.resolve() == source.resolve():
        raise ConfigError("source and target are one folder", where=str(out))
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    known = any((out / name).exists() for name in ("config.json", "adapter_config.json")) or any(
        out.glob("model-*.gguf")
    )
    if not known or any(p.is_dir() for p in out.iterdir()):
        raise ConfigError(
            "the target exists and is not a model folder", where=str(out), fix="name a new folder"
        )


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What lies beside a checkpoint that is not whole."""

    llm: str | None = None
    tower: str | None = None
    more: tuple[str, ...] = ()
    onto: str | None = None
    """For an adapter alone: the model it goes onto."""


def find_checkpoint(source: str) -> Path:
    """A path as it is; a hub id `owner/name` as the folder that it was fetched into.

    Raises:
        WeightsError: neither is there.
    """
    path = Path(source)
    # Whoever has a folder `owner` means a path in it, and misspelt the rest.
    hub_id = source.count("/") == 1 and path.suffix not in (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors")
    if path.exists():
        return path
    if hub_id and not source.startswith((".", "/", "~")) and not path.parent.exists():
        from sensorium.interop.locate import fetch_checkpoint

        return fetch_checkpoint(source)
    names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = nearest(path.name, names)
    raise WeightsError("no such file or folder", where=source, expected="a path, or a hub id owner/name",
                       fix=f"did you mean {path.parent / near}?" if near else None)  # fmt: skip


def import_command(source: str, out: str, options: ImportOptions, as_json: bool) -> None:
    """A foreign folder or file becomes one of ours."""
    from sensorium.cli.training import try_it
    from sensorium.interop.hf import import_hf
    from sensorium.interop.original import import_original, is_original
    from sensorium.interop.originals.base import Beside
    from sensorium.interop.pformer import holds_pformer, import_pformer

    check_target(Path(out), Path(source))
    path = find_checkpoint(source)
    if options.onto is not None:
        _import_adapter(path, out, options, as_json)
        return
    if options == ImportOptions() and holds_pformer(path):
        _say(out, import_pformer(path, Path(out)), "A teacher for stages whose objective is `aligned`", as_json)
        return
    if is_original(path):
        llm, tower = (Path(p) if p else None for p in (options.llm, options.tower))
        model = import_original(path, Path(out), Beside(llm, tower, tuple(map(Path, options.more))))
    elif options != ImportOptions():
        raise ConfigError("--llm, --tower and --with go with the original repositories' layouts", where=source,
                          fix="leave them out: this folder in transformers' layout is whole")  # fmt: skip
    else:
        model = import_hf(path, Path(out))
    _say(out, sum(p.numel() for p in model.parameters()), try_it(model.config, out), as_json)


def _say(out: str, count: int, what: str, as_json: bool) -> None:
    from sensorium.cli.main import print_json

    if as_json:
        print_json({"folder": out, "parameters": count})
    else:
        print(f"{out}: {count:,} parameters. {what}")


def _import_adapter(path: Path, out: str, options: ImportOptions, as_json: bool) -> None:
    """An adapter in peft's layout goes onto a model of ours."""
    from sensorium.api import find_model
    from sensorium.cli.main import print_json
    from sensorium.cli.training import try_it
    from sensorium.interop.adapter_import import import_adapter

    if options != ImportOptions(onto=options.onto):
        raise ConfigError("--onto goes without --llm, --tower and --with", where=str(path))
    onto = find_model(str(options.onto))
    check_target(Path(out), onto)
    config = import_adapter(path, onto, Path(out))
    places = [prefix.removesuffix(".") for prefix in config.low_rank]
    # A prefix stands in front of the LLM.
    places += ["backbone"] if config.adapter is not None and "backbone" not in places else []
    if as_json:
        print_json({"folder": out, "adapters": places})
    else:
        print(f"{out}: {onto} with an adapter on {', '.join(places)}. {try_it(config, out)}")


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Which layout, and what of it."""

    to: str | None = None
    half: bool = False
    number: str | None = None
    llm_only: bool = False
    adapter_only: bool = False

    @property
    def stored(self) -> Numbers | None:
        """The number format of a folder of ours; None: as it is."""
        return "f16" if self.half else cast("Numbers | None", self.number)

    def check(self) -> None:
        """Refuse options that go with another layout.

        Raises:
            ConfigError: naming the option.
        """
        ours = self.to == "sensorium" or str(self.to).startswith(ONTO)
        if self.half and (not ours or self.number):
            raise ConfigError(f"--half goes with --to sensorium and --to {ONTO}MODEL, without --number")
        if self.to != "gguf" and self.llm_only:
            raise ConfigError("--llm-only goes with --to gguf")
        if self.number and not ours and self.to != "gguf":
            raise ConfigError(f"--number goes with --to gguf, --to sensorium and --to {ONTO}MODEL")
        allowed = OWN_NUMBERS if ours else NUMBERS
        if self.number and self.number not in allowed:
            raise ConfigError(f"--number {self.number!r}", expected=f"one of {', '.join(allowed)}",
                              fix=did_you_mean(self.number, allowed))  # fmt: skip
        if self.adapter_only and self.to is not None:
            raise ConfigError("--adapter-only writes peft's layout and goes without --to")


def export_command(folder: str, out: str, options: ExportOptions, as_json: bool) -> None:
    """One of ours becomes a foreign folder, or a smaller one of ours."""
    from sensorium.api import find_model
    from sensorium.cli.main import print_json

    options.check()
    source = find_model(folder)
    check_target(Path(out), source)
    kind, files = _export(source, Path(out), options)
    if as_json:
        print_json({"folder": out, "layout": kind, "files": files})
    else:
        print(f"{out}: written in {kind} layout ({', '.join(files)})")


def _export(source: Path, out: Path, options: ExportOptions) -> tuple[str, list[str]]:
    """The layout's name and the files that were written."""
    from sensorium.interop.original import ORIGINAL

    kind = options.to or "peft"
    if options.adapter_only:
        from sensorium.interop.adapter_export import export_adapter

        export_adapter(source, out)
    elif options.to == "gguf":
        from sensorium.interop.gguf_export import export_gguf

        export_gguf(source, out, cast(Any, options.number or "f16"), llm_only=options.llm_only)
    elif options.to == "sensorium":
        from sensorium.interop.saved import recast

        recast(source, out, options.stored)
    elif options.to is not None and options.to.startswith(ONTO):
        from sensorium.interop.onto import write_difference

        write_difference(source, options.to.removeprefix(ONTO), out, options.stored)
    elif options.to == "original" or (options.to is None and (source / ORIGINAL).exists()):
        from sensorium.interop.original_export import export_original

        kind = export_original(source, out)
    else:
        from sensorium.interop.hf import export_hf

        export_hf(source, out, options.to)
        kind = json.loads((out / "config.json").read_text(encoding="utf-8"))["model_type"]
    return kind, sorted(f.name for f in out.iterdir())
