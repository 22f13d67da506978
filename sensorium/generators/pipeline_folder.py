"""A diffusion pipeline from a local folder in diffusers' layout, with every component looked at before one is loaded.

A folder has `model_index.json`, which says the class of each component, and a subfolder for each. Only safetensors
are read, and only classes of diffusers and transformers are made: code that lies in a folder is never run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from sensorium.core.errors import ConfigError, MissingDependencyError, WeightsError
from sensorium.generators.stored_components import fill_stored

INDEX = "model_index.json"
LIBRARIES = frozenset({"diffusers", "transformers", "stable_diffusion", "audioldm2"})
"""Where a component's class may come from; the last two are modules of diffusers' pipelines."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a pipeline's folder holds."""

    pipeline: str
    """The class in diffusers."""
    needed: tuple[str, ...]
    """Components without which nothing can be made."""
    optional: tuple[str, ...] = ()
    published: str = ""
    """A hub id that has this layout, for messages."""
    made_by: str = ""
    """Of what is published nowhere: the command that makes one."""
    also: tuple[str, ...] = ()
    """Other pipelines of the same components, whose folders are taken, too."""


def need_diffusers(kind: str) -> Any:
    """The package.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return import_module("diffusers")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the generator needs a package that is not installed ({error.name})",
            where=f"generator {kind}",
            fix='pip install "sensorium[gen]"',
        ) from None


def load_pipeline(kind: str, layout: Layout, folder: Path, dtype: Any) -> Any:
    """The pipeline that lies in the folder.

    Raises:
        WeightsError: it holds another pipeline, or lacks a component, or one of its files is damaged or pickled.
    """
    diffusers = need_diffusers(kind)
    index = _index(folder, layout)
    present = {name for name, entry in index.items() if not name.startswith("_") and _listed(entry)}
    for name in sorted(present):
        _check_library(folder, name, index[name])
    for name in layout.needed:
        _check_component(folder, layout, name, index[name][1] if name in present else None)
    # What a folder's index lists but the folder lacks (a safety checker, mostly) is done without.
    absent: dict[str, Any] = {name: None for name in layout.optional if name not in present or not (folder / name).is_dir()}
    if "safety_checker" in absent:
        absent["requires_safety_checker"] = False
    for name in layout.optional:
        if name not in absent:
            _check_component(folder, layout, name, index[name][1])
    with quiet():
        try:
            pipe = getattr(diffusers, layout.pipeline).from_pretrained(
                str(folder), dtype=dtype, local_files_only=True, use_safetensors=True, **absent
            )
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError, ImportError) as error:
            raise WeightsError(f"cannot load the pipeline: {' '.join(str(error).split())[:600]}", where=str(folder),
                               fix=f"of a file that is missing or damaged: {fetch_command(layout, folder)}") from None  # fmt: skip
    fill_stored(pipe, folder)
    return settled(pipe)


def pipeline_class(folder: Path) -> str | None:
    """The class of the pipeline that lies in a folder; None: whether there is one is for `load_pipeline` to say."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return index.get("_class_name") if isinstance(index, dict) else None


def settled(pipe: Any) -> Any:
    """The pipeline, frozen and without a progress bar of its own."""
    pipe.set_progress_bar_config(disable=True)
    for component in pipe.components.values():
        if hasattr(component, "parameters"):
            component.requires_grad_(False).eval()
    return pipe


@contextmanager
def quiet() -> Iterator[None]:
    """Without the two libraries' bars and advice; errors are still raised."""
    import transformers

    diffusers: Any = import_module("diffusers")
    ours = logging.getLogger("diffusers"), logging.getLogger("transformers")
    before = [logger.level for logger in ours]
    bars = transformers.utils.logging.is_progress_bar_enabled(), diffusers.utils.logging.is_progress_bar_enabled()
    for logger in ours:
        logger.setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(ours, before):
            logger.setLevel(level)
        if bars[0]:
            transformers.utils.logging.enable_progress_bar()
        if bars[1]:
            diffusers.utils.logging.enable_progress_bar()


def _index(folder: Path, layout: Layout) -> dict[str, Any]:
    if not folder.is_dir():
        raise WeightsError("no such folder", where=str(folder), fix=fetch_command(layout, folder))
    file = folder / INDEX
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(
            f"no {INDEX}", expected=f"the folder of a {layout.pipeline}", where=str(folder), fix=fetch_command(layout, folder)
        ) from None
    except ValueError as error:
        raise WeightsError(f"not JSON: {error}", where=str(file)) from None
    found = index.get("_class_name") if isinstance(index, dict) else None
    if found not in (layout.pipeline, *layout.also):
        raise WeightsError(
            f"the folder holds {found!r}", expected=layout.pipeline, where=str(file),
            fix="choose the generator that goes with this pipeline, or another folder",
        )  # fmt: skip
    return index


def _listed(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)


def _check_library(folder: Path, name: str, entry: list[str]) -> None:
    library = entry[0]
    # A file of this name beside the component would be taken for code to run.
    if library not in LIBRARIES or (folder / name / f"{library}.py").exists():
        raise WeightsError(
            f"component {name} is of {library}.{entry[1]}", expected=f"a class of {' or '.join(sorted(LIBRARIES))}",
            where=str(folder / INDEX), fix="code from a folder is not run",
        )  # fmt: skip


def _check_component(folder: Path, layout: Layout, name: str, made: str | None) -> None:
    """
    Args:
        made: its class, as the index lists it; None: it lists none.
    """
    part = folder / name
    if made is None or not part.is_dir() or not any(part.iterdir()):
        found = f"{INDEX} lists no {name}" if made is None else f"no {name}/"
        raise WeightsError(
            f"{found}, which a {layout.pipeline} needs", where=str(folder), fix=fetch_command(layout, folder, name)
        )
    lost = [file for file in _described(made, part) if not (part / file).is_file()]
    if lost:
        # Which of a tokenizer's files are published differs from one pipeline to another.
        files = "*" if "Tokenizer" in made else lost[0]
        raise WeightsError(f"{name}/ has no {', '.join(lost)}", where=str(folder), fix=fetch_command(layout, folder, name, files))
    # Tokenizers and schedulers have no config.json; what has one has weights.
    if (part / "config.json").exists() and not any(part.glob("*.safetensors")):
        pickled = sorted(p.name for p in part.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        raise WeightsError(
            f"{name}/ has no safetensors" + (f", only {', '.join(pickled)}, which is not read" if pickled else ""),
            where=str(folder), fix=fetch_command(layout, folder, name, "*.safetensors"),
        )  # fmt: skip


def _described(made: str, part: Path) -> tuple[str, ...]:
    """The files without which a component is another one, or none: its description, and a tokenizer's words."""
    if "Tokenizer" in made:
        words: dict[str, str] = getattr(getattr(import_module("transformers"), made, None), "vocab_files_names", {})
        parts = [file for kind, file in words.items() if kind != "tokenizer_file"]
        whole = [words["tokenizer_file"]] if "tokenizer_file" in words else parts
        # Words lie in one file, or in several.
        return (*(parts if any((part / file).is_file() for file in parts) else whole), "tokenizer_config.json")
    if made.endswith("Scheduler"):
        return ("scheduler_config.json",)
    if "FeatureExtractor" in made or "ImageProcessor" in made:
        return ("preprocessor_config.json",)
    return ("config.json",)


def fetch_command(layout: Layout, folder: Path, name: str = "", files: str = "*") -> str:
    """The command that brings what is missing."""
    if layout.made_by:
        return f"none is published; {layout.made_by} makes one: copy generators/image of its model to {folder}, or name that folder"
    wanted = f"{name}/{files}" if name else "*"
    return f"hf download {layout.published} --include '{wanted}' --local-dir {folder} (or another one of this layout)"


def check_sizes(kind: str, what: str, found: Any, expected: Any) -> None:
    """Refuse a pipeline of other sizes than the config says.

    Raises:
        ConfigError: naming both.
    """
    if found != expected:
        raise ConfigError(
            f"the pipeline's {what} is {found}", expected=str(expected), where=f"generator {kind}",
            fix="give the generator's config the sizes of its pipeline, or another folder",
        )  # fmt: skip
