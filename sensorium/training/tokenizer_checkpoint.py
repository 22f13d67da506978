"""A picture tokenizer's run on disk: checkpoints that are whole or not there, and the finished model."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensorium.core.atomic import atomic_path, recover_folder, rotating_folder, versions, write_json
from sensorium.core.errors import CheckpointError, ConfigError
from sensorium.core.hashing import sha256_file
from sensorium.core.picture_tokenizer import PictureTokenizerConfig
from sensorium.generators.published_vq import PublishedVq
from sensorium.generators.seed import SeedTokenizer
from sensorium.generators.vq import VqTokenizer
from sensorium.nn.pretrained import load_exact, read_file
from sensorium.training.checkpoint import read_rng, restore_rng
from sensorium.training.disk import writing
from sensorium.training.optimiser import optimiser_tensors, restore_optimiser
from sensorium.training.tensor_file import write_tensors

KEEP = 2
TrainedTokenizer = VqTokenizer | SeedTokenizer | PublishedVq


@dataclass(frozen=True, slots=True)
class TokenizerState:
    """What a checkpoint holds, and what it must have been made with."""

    module: TrainedTokenizer
    optimiser: torch.optim.Optimizer
    recipe: dict[str, Any]
    pictures: int


def weights_of(module: TrainedTokenizer) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}


def write_model(folder: Path, config: PictureTokenizerConfig, module: TrainedTokenizer) -> None:
    """config.json and model.safetensors, each of them whole or not there."""
    with writing(folder / "model.safetensors"):
        write_json(folder / "config.json", config.to_dict())
        with atomic_path(folder / "model.safetensors") as temporary:
            write_tensors(temporary, weights_of(module))


def save_state(folder: Path, state: TokenizerState, config: PictureTokenizerConfig, step: int, log_bytes: int) -> None:
    """Make this the newest checkpoint.

    Args:
        step: steps done.
        log_bytes: length of the log.
    """
    names = {id(p): name for name, p in state.module.named_parameters()}
    files = {"model": weights_of(state.module), "optimiser": optimiser_tensors(state.optimiser, names), "rng": read_rng()}
    place = folder / "checkpoint"
    with writing(place), rotating_folder(place, KEEP) as target:
        hashes = {name: write_tensors(target / f"{name}.safetensors", tensors) for name, tensors in files.items()}
        write_json(target / "config.json", config.to_dict())
        write_json(target / "state.json", {"step": step, "log_bytes": log_bytes, "recipe": state.recipe,
                                           "pictures": state.pictures, "sha256": hashes})  # fmt: skip


def load_state(folder: Path, state: TokenizerState, *, resume: bool) -> tuple[int, int]:
    """Put the newest whole checkpoint back.

    Returns:
        Steps done and bytes of the log; zeros where a run begins.

    Raises:
        ConfigError: the folder holds a run, and `resume` was not asked for; or its settings or pictures are others.
        CheckpointError: there are checkpoints, and none is whole.
    """
    place = folder / "checkpoint"
    recover_folder(place)
    there = versions(place)
    if not resume:
        if there or (folder / "model.safetensors").exists():
            raise ConfigError("the folder holds a run already", where=str(folder), fix="go on with --resume, or choose another with --out")
        return 0, 0
    if not there:
        return 0, 0
    found, said = _whole(there)
    if said["recipe"] != state.recipe or said["pictures"] != state.pictures:
        raise ConfigError(
            "the run was begun with other settings or pictures", expected=json.dumps(said["recipe"]),
            where=str(folder), fix="give the same ones, or choose another folder with --out",
        )  # fmt: skip
    load_exact(state.module, read_file(found / "model.safetensors"), where=str(found))
    parameters = dict(state.module.named_parameters())
    moments = read_file(found / "optimiser.safetensors")
    restore_optimiser(state.optimiser, parameters, moments, lambda name, parameter: moments[name])
    restore_rng(read_file(found / "rng.safetensors"))
    return int(said["step"]), int(said["log_bytes"])


def _whole(there: list[Path]) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint whose files are what was written; damaged ones before it are named."""
    damage: list[str] = []
    for path in there:
        try:
            said = json.loads((path / "state.json").read_text(encoding="utf-8"))
            wrong = [n for n, digest in said["sha256"].items() if sha256_file(path / f"{n}.safetensors") != digest]
        except (OSError, ValueError, KeyError) as error:
            damage.append(f"{path.name}: {error}")
            continue
        if not wrong:
            for what in damage:
                print(f"damaged checkpoint: {what}; {path.name} is used", file=sys.stderr)
            return path, said
        damage.append(f"{path.name}: {', '.join(wrong)} altered")
    raise CheckpointError(f"no checkpoint is whole ({'; '.join(damage)})", where=str(there[0].parent), fix="start in another folder")
