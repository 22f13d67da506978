"""The trainer: all stages of a recipe in order, resumable at any moment, bit for bit."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from sensorium.core.errors import CheckpointError
from sensorium.data.loader import Loader
from sensorium.data.mixture import MixtureState
from sensorium.model.adapter import inject_adapter
from sensorium.model.learning import own_names, set_learning
from sensorium.model.multimodal import MultimodalModel
from sensorium.model.picture_size import pictures_of
from sensorium.processing.processor import Processor
from sensorium.text.tokenizer import Tokenizer
from sensorium.training.begun import as_read_today, stages_begun, up_to
from sensorium.training.checkpoint import Checkpoint, Position, load_checkpoint
from sensorium.training.config import Recipe, StageConfig
from sensorium.training.curve import draw_curve
from sensorium.training.disk import check_disk
from sensorium.training.distributed.held import Held, hold, home
from sensorium.training.distributed.lockstep import Lockstep
from sensorium.training.distributed.randomness import gather_rng, rank_seed, restore_rank_rng
from sensorium.training.distributed.weights import check_equal
from sensorium.training.feature_use import features_kept
from sensorium.training.heap import return_freed_blocks
from sensorium.training.log import TrainingLog, read_log
from sensorium.training.objectives.owned import begin, beside, go_on_from, owned_tensors
from sensorium.training.optimiser import build_optimiser
from sensorium.training.options import TrainerOptions, started
from sensorium.training.precision import Chosen, run_precision
from sensorium.training.preflight import (
    StageParts,
    StagePlan,
    check_stages,
    largest_checkpoint,
    loader_options,
)
from sensorium.training.saving import Saver
from sensorium.training.signals import StopRequest, watch_signals
from sensorium.training.skipped import write_skipped
from sensorium.training.spikes import RewindError, SpikeWatch
from sensorium.training.stage_run import StageRun
from sensorium.training.state import (
    copies,
    moments,
    restore_moments,
    restore_weights,
    share_of,
    staged,
)


class Trainer:
    """Runs a recipe's stages over one model."""

    def __init__(
        self, recipe: Recipe, model: MultimodalModel, tokenizer: Tokenizer, options: TrainerOptions
    ) -> None:
        self.recipe = recipe
        self.model = model
        self.options = options
        self.ranks = options.ranks
        inject_adapter(model)
        self.processor = Processor(recipe.model, tokenizer)
        self.learnt: set[str] = started(recipe, model, options)
        self._data: list[list[int]] = []
        # What no source of weights provides is in every checkpoint.
        self._own = own_names(model)
        # Of objectives, up to the stage that runs.
        self._owned: dict[str, Tensor] = {}
        self._saved = self._load()
        self.fast: Chosen = self._fast_precision()
        self.held: Held = hold(recipe, model, self.ranks, self.fast)
        keep = self._saved.log_bytes if self._saved else 0
        self._log: TrainingLog | None = None
        self.ranks.on_first(lambda: self._open_log(keep))
        self.saver = Saver(options.folder / "checkpoint", recipe.keep_checkpoints, self._sync_log)
        self.stop = StopRequest()

    def _newest(self, folder: Path) -> Checkpoint | None:
        if self.ranks.world_size > 1:
            # What is damaged, or was left by a crash, is put in order by one of them.
            self.ranks.on_first(lambda: load_checkpoint(folder))
        return load_checkpoint(folder)

    def _load(self) -> Checkpoint | None:
        folder = self.options.folder / "checkpoint"
        saved = self._newest(folder)
        seen = self.ranks.gather(None if saved is None else [saved.stage, saved.step])
        if any(each != seen[0] for each in seen):
            raise CheckpointError(f"the processes see checkpoints at stage and step {seen}", where=str(folder),
                                  expected="one folder that all of them share")  # fmt: skip
        if saved is None:
            return None
        if not self.options.resume:
            raise CheckpointError(
                "a run was already begun here",
                where=str(self.options.folder),
                fix="add --resume to go on with it, or choose another folder with --out",
            )
        # A stage that has not begun may still be changed: what came before does not depend on it.
        begun = stages_begun(saved)
        if as_read_today(saved.recipe, begun) != up_to(self.recipe.to_dict(), begun):
            raise CheckpointError(
                "the checkpoint belongs to another recipe",
                expected=f"the same model, seed and first {begun} stages",
                where=str(folder),
                fix="resume with the same recipe and overrides, or choose another folder",
            )
        return saved

    def _open_log(self, keep: int) -> None:
        options = self.options
        self._log = TrainingLog(options.folder, keep_bytes=keep, tensorboard=options.tensorboard)

    def _sync_log(self) -> None:
        if self._log is not None:
            self._log.sync()

    def _fast_precision(self) -> Chosen:
        if self._saved is not None:
            saved = self._saved.precision
            return Chosen("bf16" if saved == "bf16" else "fp32", f"this run began in {saved}")
        return run_precision(self.recipe.stages, home(self.recipe, self.ranks) or self.model.device, self.ranks)

    def run(self) -> list[StagePlan]:
        """Check every stage, then train them in order.

        Returns:
            The plans of all stages.

        Raises:
            SensoriumError: before step one for anything that can be known then.
        """
        try:
            plans = self._run()
            self.settle()
        except BaseException:
            # What is half written is not left to chance; the error that ends the run is told, not a later one.
            self.saver.settle(failed=True)
            with suppress(OSError, CheckpointError):
                self._report()
            raise
        self._report()
        return plans

    def _report(self) -> None:
        """A run that stops early needs its curve most."""
        if self._log is None:
            return
        with closing(self._log):
            lines = read_log(self._log.path)
            write_skipped(lines, self.options.folder)
            draw_curve(lines, self.options.folder / "loss.png")

    def _run(self) -> list[StagePlan]:
        start = self._saved.stage if self._saved else 0
        return_freed_blocks()
        plans, ready = check_stages(
            self.recipe, self.model, self.processor, self.options.on_plan, self.fast, self.ranks.world_size, self.held
        )
        self._data = [[*parts.order.lengths, parts.steps] for parts in ready]
        begun = stages_begun(self._saved) if self._saved else 0
        if self._saved is not None and self._saved.data[:begun] != self._data[:begun]:
            raise CheckpointError(
                f"the data changed since the checkpoint: rows and steps were "
                f"{self._saved.data[:begun]}, are {self._data[:begun]}",
                where=str(self.options.folder),
                fix="put the data back as it was, or start in another folder",
            )
        self.ranks.on_first(lambda: check_disk(
            self.saver.folder, largest_checkpoint(self.recipe, self.model, ready, self._own | self.learnt),
            self.recipe.keep_checkpoints))  # fmt: skip
        torch.manual_seed(rank_seed(self.ranks, self.recipe.seed))
        if self._saved is not None:
            self._owned |= restore_weights(self.model, self.held, self._saved)
        for stage, parts in zip(self.recipe.stages[:start], ready, strict=False):
            with beside(self.model, parts.objective):
                # What an earlier stage taught may be used after the run, too: a decoder of masks.
                go_on_from(self.model, self._owned)
                self._note_learnt(stage)
        for index in range(start, len(self.recipe.stages)):
            with beside(self.model, ready[index].objective):
                self._run_stage(index, ready[index])
                self._owned |= owned_tensors(self.model)
        return plans

    def _note_learnt(self, stage: StageConfig) -> list[Any]:
        groups = set_learning(self.model, stage.learns)
        self.learnt |= {name for _, pairs in groups for name, _ in pairs}
        return groups

    def _run_stage(self, index: int, parts: StageParts) -> None:
        """A stage, with as many rewinds as it takes."""
        stage = self.recipe.stages[index]
        watch = SpikeWatch(stage.spikes, stage.accumulate, stage.name)
        while True:
            begin(parts.objective, self.model)
            go_on_from(self.model, self._owned)
            # In a list of nobody's: what is named here would be held as long as the stage lasts.
            check_equal(self.ranks, {n: v for n, v in self.model.state_dict().items() if self.held.rows(n) is None}, f"stage {stage.name}")
            try:
                return self._attempt_stage(index, parts, watch)
            except RewindError:
                self._rewind(index)

    def _rewind(self, index: int) -> None:
        """Take back what the stage did since the last checkpoint, the log's lines too."""
        self.settle()
        self._saved = self._newest(self.saver.folder)
        if self._saved is None or self._saved.stage != index:
            raise CheckpointError("no checkpoint of this stage to rewind to", where=str(self.saver.folder))
        self._owned |= restore_weights(self.model, self.held, self._saved)
        if self._log is not None:
            self._log.close()
            self._open_log(self._saved.log_bytes)

    def _attempt_stage(self, index: int, parts: StageParts, watch: SpikeWatch) -> None:
        stage = self.recipe.stages[index]
        groups = self.held.pieces(self._note_learnt(stage))
        named: dict[str, Parameter] = {n: p for _, pairs in groups for n, p in pairs}
        optimiser = build_optimiser(groups, stage.betas, stage.optimiser, stage.epsilon)
        run = StageRun(self, stage, index, parts, optimiser, named)
        run.watch = watch
        state, step = parts.order.start(), 0
        if self._saved is not None and self._saved.stage == index:
            step = self._saved.step
            # At a boundary nothing has been picked, whatever sources the stage now has.
            state = MixtureState.saved(self._saved.counts, self._saved.plan) if step else state
            restore_moments(optimiser, self.held, named, self._saved)
            restore_rank_rng(self.ranks, self._saved.rng, self.recipe.seed)
            run.bad_in_row = self._saved.bad_in_row
            watch.restore(self._saved.spikes)
            if self._saved.finished:
                return
        elif watch.rewinds and index == 0:
            self.save(Position(0, 0, state), optimiser, named, finished=False)
        self._saved = None
        share = replace(loader_options(stage), rank=self.ranks.rank, world_size=self.ranks.world_size)
        loader = Loader(parts.sources, parts.order, parts.processor, share, transform=run.cuts.watch)
        if self.held.divided:
            run.pace = Lockstep(self.ranks, loader, self.model.device, self.model.config.takes)
        with (
            self.ranks.progress(stage.name, parts.steps) as meter,
            pictures_of(self.model, stage.picture_px),
            features_kept(stage, self.model, parts, self.options.cache, self.fast),
            watch_signals(self.stop),
        ):
            run.train(loader, state, step, meter)

    def save(
        self, position: Position, optimiser: Any, named: dict[str, Parameter], *, finished: bool
    ) -> None:
        """Copy the run's state, and begin to write it as a checkpoint: rank 0 does, with what all know; where the model is
        divided, each writes its share."""
        rng = gather_rng(self.ranks)
        names = self.saved_names
        if not self.held.divided:
            self.ranks.on_first(lambda: self.saver.save(self._checkpoint(
                position, rng, finished, copies(self.model, names) | self._owned | owned_tensors(self.model),
                moments(optimiser, named))))  # fmt: skip
            return
        self.settle()
        share = share_of(self.model, self.held, self.ranks, names, moments(optimiser, named),
                         staged(self.ranks, self.saver.folder))  # fmt: skip
        if self.ranks.first:
            share.tensors["weights"] |= self._owned | owned_tensors(self.model)
        self.saver.save(self._checkpoint(position, rng, finished, {}, {}) if self.ranks.first else None, share)

    @property
    def saved_names(self) -> set[str]:
        """Of the model's tensors that are in every checkpoint from now on."""
        return self._own | self.learnt

    def settle(self) -> None:
        """Wait until the last checkpoint is on disk, on all processes, or end all of them."""
        if self.held.divided:
            # The first one's waits for all shares. A process that died within its own is noticed here, at once.
            self.ranks.on_all(self.saver.wait_for_share if self.ranks.first else self.saver.wait)
        self.ranks.on_all(self.saver.wait)

    def _checkpoint(
        self, position: Position, rng: dict[str, Tensor], finished: bool,
        weights: dict[str, Tensor], optimiser: dict[str, Tensor],
    ) -> Checkpoint:  # fmt: skip
        assert self._log is not None  # Rank 0's.
        return Checkpoint(
            stage=position.stage,
            step=position.step,
            counts=list(position.state.counts),
            plan=position.state.plan(),
            bad_in_row=position.bad_in_row,
            spikes=position.spikes,
            log_bytes=self._log.size(),
            precision=self.fast.precision,
            weights=weights,
            optimiser=optimiser,
            rng=rng,
            recipe=self.recipe.to_dict(),
            data=self._data,
            finished=finished,
        )

    def log(self, line: dict[str, Any]) -> None:
        """Append a line to the log, on rank 0, if all that was saved so far is safe; else all end."""
        self.ranks.on_all(lambda: self._append(line))

    def _append(self, line: dict[str, Any]) -> None:
        self.saver.check()
        if self._log is not None:
            self._log.write(line)
