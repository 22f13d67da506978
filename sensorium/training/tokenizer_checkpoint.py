"""A picture tokenizer's run on disk: checkpoints that are whole or not there, and the finished model."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sensorium.core.atomic import atomic_path, recover_folder, rotating_folder, versions, write_json
from sensorium.core.config import Config
from sensorium.core.errors import CheckpointError, ConfigError
from sensorium.core.hashing import sha256_file
from sensorium.core.picture_tokenizer import PictureTokenizerConfig
from sensorium.generators.published_vq import PublishedVq
from sensorium.generators.seed import SeedTokenizer
from sensorium.generators.vq import VqTokenizer
from sensorium.nn.pretrained import load_exact, read_file
from sensorium.training.adversarial import Adversary
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
    recipe: Config
    pictures: int
    adversary: Adversary | None = None
    """What it learns against; in checkpoints, not in the finished model."""

    def sides(self) -> dict[str, tuple[nn.Module, torch.optim.Optimizer]]:
        """Each that learns, with its optimiser, by the prefix of its files."""
        mine: dict[str, tuple[nn.Module, torch.optim.Optimizer]] = {"": (self.module, self.optimiser)}
        return mine if self.adversary is None else mine | {"discriminator_": (self.adversary.module, self.adversary.optimiser)}


def weights_of(module: nn.Module) -> dict[str, Tensor]:
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
    files = {"rng": read_rng()}
    for prefix, (module, optimiser) in state.sides().items():
        names = {id(p): name for name, p in module.named_parameters()}
        files |= {f"{prefix}model": weights_of(module), f"{prefix}optimiser": optimiser_tensors(optimiser, names)}
    place = folder / "checkpoint"
    with writing(place), rotating_folder(place, KEEP) as target:
        hashes = {name: write_tensors(target / f"{name}.safetensors", tensors) for name, tensors in files.items()}
        write_json(target / "config.json", config.to_dict())
        write_json(target / "state.json", {"step": step, "log_bytes": log_bytes, "recipe": state.recipe.to_dict(),
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
    # A setting that is younger than the checkpoint was at its default.
    begun = type(state.recipe).from_dict(said["recipe"], where=str(found)).to_dict()
    if other := _other(begun, state.recipe.to_dict()) + ([] if said["pictures"] == state.pictures else ["pictures"]):
        raise ConfigError(
            f"the run was begun with other settings or pictures: {', '.join(other)}", expected=json.dumps(begun),
            where=str(folder), fix="give the same ones, or choose another folder with --out",
        )  # fmt: skip
    for prefix, (module, optimiser) in state.sides().items():
        load_exact(module, read_file(found / f"{prefix}model.safetensors"), where=str(found))
        moments = read_file(found / f"{prefix}optimiser.safetensors")
        restore_optimiser(optimiser, dict(module.named_parameters()), moments, lambda name, _, held=moments: held[name])
    restore_rng(read_file(found / "rng.safetensors"))
    return int(said["step"]), int(said["log_bytes"])


def _other(begun: Any, now: Any, path: str = "") -> list[str]:
    """Paths of the settings in which two recipes differ."""
    if not (isinstance(begun, dict) and isinstance(now, dict)):
        return [] if begun == now else [path]
    before, after = cast(dict[str, Any], begun), cast(dict[str, Any], now)
    return [one for key in before | after for one in _other(before.get(key), after.get(key), f"{path}.{key}".lstrip("."))]


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
