"""`index build`: the pictures of a folder, to be found by what a model writes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sensorium.cli.recipe_app import Json

if TYPE_CHECKING:
    from sensorium.api import Model
    from sensorium.generators.retrieval_index import RetrievalIndex

index_app = typer.Typer(no_args_is_help=True, help="Make indices of pictures to find.", rich_markup_mode=None)
BATCH = 16
SHOWN = 5
"""Bad pictures that are named."""


@index_app.command("build")
def build(
    model: Annotated[str, typer.Argument(help="A model that finds pictures: name or folder.")],
    pictures: Annotated[str, typer.Argument(help="A folder of pictures, looked through with all below it.")],
    out: Annotated[str | None, typer.Option(
        help="Folder to write; default: in the model's folder, where answers look for it. Of a shipped model: the folder of a copy "
        "of it with the index, to be named as --model.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps; auto: the best here.")] = "auto",
    as_json: Json = False,
) -> None:
    """Make an index of a folder's pictures; pictures that cannot be read are left out, and named. Pictures stay where they
    are: index and pictures are moved together, or not at all."""
    from sensorium.api import find_model, load
    from sensorium.cli.main import print_json
    from sensorium.cli.saving_answers import writing
    from sensorium.core.atomic import atomic_folder
    from sensorium.core.errors import ConfigError
    from sensorium.generators.retrieval_index import INDEX
    from sensorium.interop.saved import GENERATORS
    from sensorium.interop.shipped import SHIPPED
    from sensorium.model.finding import finding_way

    found = find_model(model)
    shipped = any(found.resolve() == each.resolve() for each in SHIPPED.values())
    if out and (shipped or not (Path(out) / INDEX).is_file()):
        # An older index is replaced; pictures, say, are not.
        _check_out(Path(out))
    loaded = load(model, device)
    inside = Path(GENERATORS) / finding_way(loaded.network).name
    if shipped and out is None:
        raise ConfigError(f"an index inside this installation, where {found.name!r} lies", where="--out", expected="a folder of your own",
                          fix=f"--out my-{found.name}: a copy of the model with the index, for --model my-{found.name}")  # fmt: skip
    folder = Path(out) if out else found / inside
    index, bad = build_index(loaded, Path(pictures))
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not shipped:
            index.save(folder)
        else:
            with atomic_folder(folder) as copy:
                shutil.copytree(found, copy, dirs_exist_ok=True)
                (copy / inside).parent.mkdir(parents=True, exist_ok=True)
                index.save(copy / inside)
    if bad:
        print(f"{len(bad)} left out: {'; '.join(map(str, bad[:SHOWN]))}{'; …' if len(bad) > SHOWN else ''}", file=sys.stderr)
    if as_json:
        print_json({"folder": str(folder), "pictures": len(index.ids), "left_out": [str(one) for one in bad]})
        return
    print(f"{len(index.ids)} pictures: {folder}")


def _check_out(folder: Path) -> None:
    """Whether a folder may be written there; a model's own is not replaced.

    Raises:
        ConfigError: something is there.
    """
    from sensorium.cli.saving_answers import check_folder
    from sensorium.core.errors import ConfigError

    if (folder / "config.json").is_file():
        raise ConfigError(f"{folder} is a model", where="--out", fix=f"index build {folder} PICTURES, without --out: its index made anew")
    check_folder(folder, "--out")


def build_index(loaded: Model, root: Path) -> tuple[RetrievalIndex, list[Any]]:
    """The index of a folder's pictures, and the errors of those that are left out.

    Raises:
        ConfigError: the model finds no pictures.
        DataError: there is no folder, or no picture in it that can be read.
    """
    import numpy as np

    from sensorium.core.errors import DataError
    from sensorium.core.progress import progress
    from sensorium.data.tokenizer_pictures import SUFFIXES
    from sensorium.generators.retrieval_index import RetrievalIndex
    from sensorium.model.finding import finding_way

    finding_way(loaded.network)
    if not root.is_dir():
        raise DataError("no such folder", where=str(root), fix="give a folder of pictures")
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    ids: list[str] = []
    vectors: list[Any] = []
    bad: list[Any] = []
    with progress("looking at pictures", len(files)) as meter:
        for done, group in _groups(files):
            found, vectors_MC = _vectors(loaded, group, bad)
            ids += [file.relative_to(root).as_posix() for file in found]
            vectors += [vectors_MC] if found else []
            meter.update(done)
    if not ids:
        raise DataError(f"none of {len(files)} pictures can be read" if files else "no pictures", where=str(root),
                        fix="give a folder of pictures")  # fmt: skip
    return RetrievalIndex.build(ids, np.concatenate(vectors), root.resolve()), bad


def _groups(files: Sequence[Path]) -> Iterator[tuple[int, Sequence[Path]]]:
    for start in range(0, len(files), BATCH):
        group = files[start : start + BATCH]
        yield start + len(group), group


def _vectors(loaded: Model, files: Sequence[Path], bad: list[Any]) -> tuple[list[Path], Any]:
    """The files that can be read, and a vector for each."""
    import torch

    from sensorium.core.errors import MediaError
    from sensorium.core.sample import Message, Part
    from sensorium.model.device import to_device
    from sensorium.model.finding import picture_vectors
    from sensorium.processing.collate import collate

    found: list[Path] = []
    rows: list[Any] = []
    for file in files:
        try:
            rows.append([loaded.processor.prompt((Message("user", (Part("image", file),)),))])
            found.append(file)
        except MediaError as error:
            bad.append(error)
    if not rows:
        return [], None
    batch = to_device(collate(rows, loaded.tokenizer.pad_id), loaded.network.device)
    with torch.inference_mode():
        return found, picture_vectors(loaded.network, batch.media["image"]).float().cpu().numpy()
