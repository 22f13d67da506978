"""The trainer: all stages of a recipe in order, resumable at any moment, bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import Parameter

from sensorium.core.errors import CheckpointError, NumericsError
from sensorium.core.progress import Meter, progress
from sensorium.data.loader import Loader
from sensorium.data.mixture import MixtureState
from sensorium.model.adapter import inject_adapter
from sensorium.model.learning import learning_modules, own_names, set_learning
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.processor import Processor
from sensorium.text.tokenizer import Tokenizer
from sensorium.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    read_rng,
    restore_rng,
    save_checkpoint,
)
from sensorium.training.config import Recipe, StageConfig
from sensorium.training.curve import draw_curve
from sensorium.training.feature_cache import FeatureCache
from sensorium.training.log import TrainingLog, read_log
from sensorium.training.optimiser import (
    build_optimiser,
    optimiser_tensors,
    rate,
    restore_optimiser,
)
from sensorium.training.precision import Precision, autocast, choose_precision
from sensorium.training.preflight import (
    StageParts,
    StagePlan,
    check_stages,
    loader_options,
    stage_precision,
    to_device,
)

MAX_BAD_STEPS = 3


@dataclass(frozen=True, slots=True)
class TrainerOptions:
    """Where a run lives and how it reports."""

    folder: Path
    cache: Path
    resume: bool = False
    tensorboard: bool = False
    on_plan: Callable[[StagePlan, Precision], None] | None = None


class Trainer:
    """Runs a recipe's stages over one model."""

    def __init__(
        self, recipe: Recipe, model: MultimodalModel, tokenizer: Tokenizer, options: TrainerOptions
    ) -> None:
        self.recipe = recipe
        self.model = model
        self.options = options
        inject_adapter(model)
        self.processor = Processor(recipe.model, tokenizer)
        self.learnt: set[str] = set()
        self._data: list[list[int]] = []
        # What no source of weights provides is in every checkpoint.
        self._own = own_names(model)
        self._saved = self._load()
        self.precision: Precision = self._choose_precision()
        keep = self._saved.log_bytes if self._saved else 0
        self._log = TrainingLog(options.folder, keep_bytes=keep, tensorboard=options.tensorboard)

    def _load(self) -> Checkpoint | None:
        folder = self.options.folder / "checkpoint"
        saved = load_checkpoint(folder)
        if saved is None:
            return None
        if not self.options.resume:
            raise CheckpointError(
                "a run was already begun here",
                where=str(self.options.folder),
                fix="add --resume to go on with it, or choose another folder with --out",
            )
        if saved.recipe != self.recipe.to_dict():
            raise CheckpointError(
                "the checkpoint belongs to another recipe",
                where=str(folder),
                fix="resume with the same recipe and overrides, or choose another folder",
            )
        return saved

    def _choose_precision(self) -> Precision:
        if self._saved is not None:
            return "bf16" if self._saved.precision == "bf16" else "fp32"
        asked = {stage.precision for stage in self.recipe.stages}
        return choose_precision("auto" if "auto" in asked else asked.pop(), self.model.device)

    def run(self) -> list[StagePlan]:
        """Check every stage, then train them in order.

        Returns:
            The plans of all stages.

        Raises:
            SensoriumError: before step one for anything that can be known then.
        """
        start = self._saved.stage if self._saved else 0
        plans, ready = check_stages(
            self.recipe, self.model, self.processor, self.options.on_plan, self.precision
        )
        self._data = [[*parts.order.lengths, parts.steps] for parts in ready]
        if self._saved is not None and self._saved.data != self._data:
            raise CheckpointError(
                f"the data changed since the checkpoint: rows and steps were {self._saved.data}, "
                f"are {self._data}",
                where=str(self.options.folder),
                fix="put the data back as it was, or start in another folder",
            )
        torch.manual_seed(self.recipe.seed)
        if self._saved is not None:
            self._restore_weights(self._saved)
        for stage in self.recipe.stages[:start]:
            self._note_learnt(stage)
        for index in range(start, len(self.recipe.stages)):
            self._run_stage(index, ready[index])
        self._log.close()
        draw_curve(read_log(self._log.path), self.options.folder / "loss.png")
        return plans

    def _note_learnt(self, stage: StageConfig) -> list[Any]:
        groups = set_learning(self.model, stage.learns)
        self.learnt |= {name for _, pairs in groups for name, _ in pairs}
        return groups

    def _run_stage(self, index: int, parts: StageParts) -> None:
        stage = self.recipe.stages[index]
        groups = self._note_learnt(stage)
        named: dict[str, Parameter] = {n: p for _, pairs in groups for n, p in pairs}
        optimiser = build_optimiser(groups)
        state, step = parts.order.start(), 0
        if self._saved is not None and self._saved.stage == index:
            state, step = MixtureState(self._saved.counts), self._saved.step
            restore_optimiser(optimiser, named, self._saved.optimiser)
            restore_rng(self._saved.rng)
            if self._saved.finished:
                return
        self._saved = None
        cache = FeatureCache(self.model, self.options.cache) if stage.cache_features else None
        loader = Loader(
            parts.sources, parts.order, parts.processor, loader_options(stage), transform=cache
        )
        run = _StageRun(self, stage, index, parts, optimiser, named)
        with progress(f"{stage.name}", parts.steps) as meter:
            run.train(loader, state, step, meter)

    def _restore_weights(self, saved: Checkpoint) -> None:
        state = self.model.state_dict()
        with torch.no_grad():
            for name, value in saved.weights.items():
                if name not in state or state[name].shape != value.shape:
                    raise CheckpointError(f"tensor {name} does not fit the model")
                state[name].copy_(value)

    def save(
        self, index: int, step: int, state: MixtureState, optimiser: Any,
        named: dict[str, Parameter], *, finished: bool,
    ) -> None:  # fmt: skip
        """Write a checkpoint."""
        tensors = self.model.state_dict()
        names = (self._own | self.learnt) & set(tensors)
        save_checkpoint(
            self.options.folder / "checkpoint",
            Checkpoint(
                stage=index,
                step=step,
                counts=state.counts,
                log_bytes=self._log.size(),
                precision=self.precision,
                weights={n: tensors[n].detach().cpu().clone() for n in sorted(names)},
                optimiser=optimiser_tensors(optimiser, {id(p): n for n, p in named.items()}),
                rng=read_rng(),
                recipe=self.recipe.to_dict(),
                data=self._data,
                finished=finished,
            ),
        )

    def log(self, line: dict[str, Any]) -> None:
        """Append a line to the log."""
        self._log.write(line)


class _StageRun:
    """The loop of one stage."""

    def __init__(
        self, trainer: Trainer, stage: StageConfig, index: int, parts: StageParts,
        optimiser: torch.optim.Optimizer, named: dict[str, Parameter],
    ) -> None:  # fmt: skip
        self.trainer = trainer
        self.stage = stage
        self.index = index
        self.parts = parts
        self.optimiser = optimiser
        self.named = named
        self.bad_in_row = 0

    def train(self, loader: Loader, state: MixtureState, step: int, meter: Meter) -> None:
        """Steps until the stage is done, with checkpoints on the way."""
        model, stage, steps = self.trainer.model, self.stage, self.parts.steps
        # Dropout acts only in what learns; a frozen part behaves as it will in service.
        model.eval()
        for learn in stage.learns:
            for module in learning_modules(model, learn):
                module.train()
        stream = loader.batches(state)
        while step < steps:
            started = time.monotonic()
            factor = rate(stage.schedule, step, steps)
            for group in self.optimiser.param_groups:
                group["lr"] = group["peak"] * factor
            line, state = self._step(stream, state)
            step += 1
            line |= {"stage": stage.name, "step": step, "lr_factor": factor,
                     "seconds": round(time.monotonic() - started, 4)}  # fmt: skip
            self.trainer.log(line)
            self._stop_if_lost()
            shown = "not finite" if line["loss"] is None else f"loss {line['loss']:.3f}"
            meter.update(step, f"{shown}  {line['samples'] / line['seconds']:.1f} samples/s")
            if step % stage.checkpoint_every == 0 and step < steps:
                self._save(step, state, finished=False)
        last = self.index == len(self.trainer.recipe.stages) - 1
        if last:
            self._save(step, state, finished=True)
        else:
            # The next stage starts from here with a fresh optimiser.
            empty: dict[str, Parameter] = {}
            fresh = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
            length = len(self.trainer.recipe.stages[self.index + 1].data)
            self.trainer.save(self.index + 1, 0, MixtureState([0] * length), fresh, empty,
                              finished=False)  # fmt: skip
        close = getattr(stream, "close", None)
        if close is not None:
            close()

    def _save(self, step: int, state: MixtureState, *, finished: bool) -> None:
        self.trainer.save(
            self.index, step, state, self.optimiser, self.named, finished=finished
        )

    def _step(self, stream: Any, state: MixtureState) -> tuple[dict[str, Any], MixtureState]:
        """One optimiser step over `accumulate` batches."""
        model, stage = self.trainer.model, self.stage
        precision = stage_precision(stage, self.trainer.precision, model.device)
        self.optimiser.zero_grad(set_to_none=True)
        total, count, samples, tokens = 0.0, 0, 0, 0
        named: dict[str, float] = {}
        problems: list[str] = []
        for _ in range(stage.accumulate):
            loaded = next(stream)
            batch = to_device(loaded.batch, model.device)
            with autocast(precision, model.device):
                losses = self.parts.objective(model, batch)
            # A batch of text rows alone has nothing to teach a projector.
            if losses.total.requires_grad:
                losses.total.backward()
            total += float(losses.total.detach())
            count += losses.count
            samples += loaded.samples
            tokens += int((batch.segments_BT > 0).sum())
            problems += loaded.problems
            state = loaded.state
            for key, value in losses.parts.items():
                named[key] = named.get(key, 0.0) + value / stage.accumulate
        for parameter in self.named.values():
            if parameter.grad is not None:
                parameter.grad.div_(max(1, count))
        norm = float(torch.nn.utils.clip_grad_norm_(list(self.named.values()), stage.clip_norm))
        loss = total / max(1, count)
        line: dict[str, Any] = {"loss": loss, "grad_norm": norm, "samples": samples,
                                "tokens": tokens, **named}  # fmt: skip
        if problems:
            line["skipped_rows"] = problems
        if math.isfinite(loss) and math.isfinite(norm):
            self.optimiser.step()
            self.bad_in_row = 0
        else:
            line |= {"loss": None, "grad_norm": None, "skipped_update": True}
            line |= dict.fromkeys(named)
            self.bad_in_row += 1
        return line, state

    def _stop_if_lost(self) -> None:
        if self.bad_in_row >= MAX_BAD_STEPS:
            raise NumericsError(
                f"loss or gradient was not finite {MAX_BAD_STEPS} steps in a row",
                expected="finite values",
                where=f"stage {self.stage.name}",
                fix="lower the learning rate or use precision: fp32; the last checkpoint is whole",
            )
