"""The loop of one stage: batches in, optimiser steps, log lines and checkpoints out."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Parameter

from sensorium.core.batch import Batch
from sensorium.core.errors import NumericsError
from sensorium.core.progress import Meter
from sensorium.data.loader import Loader
from sensorium.data.mixture import MixtureState
from sensorium.model.compiled import Passes, compiling, why_not_recorded
from sensorium.model.device import to_device
from sensorium.model.dropping import dropping
from sensorium.model.half_frozen import frozen_layers, half_frozen
from sensorium.model.laid_out import laying_out
from sensorium.model.learning import learning_modules
from sensorium.model.recompute import recomputing
from sensorium.processing.split import split_rows
from sensorium.training.checkpoint import Position
from sensorium.training.config import StageConfig
from sensorium.training.distributed.gradients import reached, sum_gradients
from sensorium.training.distributed.lockstep import Drawn, OwnPace
from sensorium.training.distributed.tally import Tally, mean_of, of_all
from sensorium.training.heap import keep_freed_blocks, return_freed_blocks, settled_objects
from sensorium.training.objectives.base import Losses
from sensorium.training.objectives.owned import stepped
from sensorium.training.optimiser import rate, step_with
from sensorium.training.precision import autocast, stage_precision
from sensorium.training.preflight import StageParts
from sensorium.training.spikes import SpikeWatch
from sensorium.training.stream import batches_for
from sensorium.training.truncation import CutCounter

if TYPE_CHECKING:
    from sensorium.training.trainer import Trainer

MAX_BAD_STEPS = 3


class StageRun:
    """The loop of one stage."""

    def __init__(
        self, trainer: Trainer, stage: StageConfig, index: int, parts: StageParts,
        optimiser: torch.optim.Optimizer, named: dict[str, Parameter],
    ) -> None:  # fmt: skip
        """Take what the trainer made ready.

        Args:
            index: the stage's place in the recipe.
            named: the parameters that learn, by their names in the model.
        """
        self.trainer = trainer
        self.stage = stage
        self.index = index
        self.parts = parts
        self.optimiser = optimiser
        self.named = named
        self.bad_in_row = 0
        self.cuts = CutCounter(stage.name, stage.max_length)
        self.last: dict[str, Any] = {}
        self.stop_asked: int | None = None
        self.watch = SpikeWatch(None, stage.accumulate, stage.name)
        self.pace = OwnPace()

    def train(self, loader: Loader, state: MixtureState, step: int, meter: Meter) -> None:
        """Steps until the stage is done, with checkpoints on the way.

        Args:
            state: which rows of each source came before this step.
            step: optimiser steps already done in this stage.

        Raises:
            NumericsError: loss or gradient was not finite several steps in a row, or spiked too often.
            StoppedError: a signal came; the step it came in is saved.
        """
        model, stage, steps = self.trainer.model, self.stage, self.parts.steps
        # Dropout acts only in what learns; a frozen part behaves as it will in service.
        model.eval()
        for learn in stage.learns:
            for module in learning_modules(model, learn):
                module.train()
        # Closed whatever happens: an open stream's threads would outlive a failed run.
        fit = self.parts.fit
        recompute = fit is not None and fit.recompute
        copies = fit is not None and fit.laid_out > 0
        # Layers run again where memory is short: holes between kept blocks would waste it.
        (return_freed_blocks if recompute else keep_freed_blocks)()
        with (
            half_frozen(self._halves()), recomputing(model, recompute), dropping(model, stage.dropout), compiling(model, stage.compile, self._alike()), laying_out(model, copies),
            settled_objects(), batches_for(model.device, loader, state, self.cuts) as stream,
        ):
            while step < steps:
                state = self._logged_step(stream, state, step)
                step += 1
                self._stop_if_lost()
                self._show(meter, step)
                asked = self._asked_to_stop()
                stopped = asked is not None
                if step < steps and (stopped or step % stage.checkpoint_every == 0):
                    self._save(step, state, finished=False)
                if step < steps and stopped:
                    self.trainer.settle()
                    self.trainer.stop.number = asked
                    self.trainer.stop.leave(f"stage {stage.name}, step {step} of {steps}")
        if self.index == len(self.trainer.recipe.stages) - 1:
            self._save(step, state, finished=True)
            return
        # The next stage starts from here with a fresh optimiser.
        empty: dict[str, Parameter] = {}
        fresh = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
        length = len(self.trainer.recipe.stages[self.index + 1].data)
        start = Position(self.index + 1, 0, MixtureState([0] * length))
        self.trainer.save(start, fresh, empty, finished=False)

    def _halves(self) -> list[torch.nn.Linear]:
        """Frozen layers whose weights no checkpoint holds, where the stage computes in half precision and each process has all of them."""
        trainer = self.trainer
        if trainer.held.divided or stage_precision(self.stage, trainer.fast, trainer.model.device).precision != "bf16":
            return []
        return frozen_layers(trainer.model, trainer.saved_names)

    def _alike(self) -> Passes | None:
        """The passes of packed rows, each of which is as long as any other, where they are to be recorded and can be."""
        fit, stage, trainer = self.parts.fit, self.stage, self.trainer
        if fit is None or not stage.record or why_not_recorded(trainer.model, recompute=fit.recompute, processes=trainer.ranks.world_size):
            return None
        return Passes(fit.rows * stage.max_length, several=fit.passes > 1 or stage.accumulate > 1)

    def _asked_to_stop(self) -> int | None:
        """The signal that came, if any: the same on all ranks."""
        return self.stop_asked if self.trainer.ranks.world_size > 1 else self.trainer.stop.number

    def _logged_step(self, stream: Any, state: MixtureState, step: int) -> MixtureState:
        """One step at its learning rate, and its line in the log."""
        started = time.monotonic()
        factor = rate(self.stage.schedule, step, self.parts.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * factor
        line, state = self._step(stream, state)
        line |= {"stage": self.stage.name, "step": step + 1, "lr_factor": factor,
                 "seconds": round(time.monotonic() - started, 4)}  # fmt: skip
        self.watch.add_to(line)
        try:
            self.watch.look(line)
        finally:
            self.trainer.log(line)
        self.last = line
        return state

    def _show(self, meter: Meter, step: int) -> None:
        line = self.last
        shown = "not finite" if line["loss"] is None else f"loss {line['loss']:.3f}"
        meter.update(step, f"{shown}  {line['samples'] / line['seconds']:.1f} samples/s")

    def _save(self, step: int, state: MixtureState, *, finished: bool) -> None:
        position = Position(self.index, step, state, self.bad_in_row, self.watch.state())
        self.trainer.save(position, self.optimiser, self.named, finished=finished)

    def _step(self, stream: Any, state: MixtureState) -> tuple[dict[str, Any], MixtureState]:
        """One optimiser step over `accumulate` batches, together with all other ranks."""
        ranks, held, learning = self.trainer.ranks, self.trainer.held, list(self.named.values())
        summed = [p for name, p in self.named.items() if held.rows(name) is None]
        self.optimiser.zero_grad(set_to_none=True)
        mine, error = Tally(), None
        try:
            for index in range(self.stage.accumulate):
                drawn = self.pace.drawn(lambda first=index == 0: self._drawn(stream, mine, first=first))
                with self.pace.passing():
                    state = self._counted(drawn, mine)
        except Exception as raised:
            if self.pace.inside:
                raise
            # Others wait for this rank's word, and end with its message.
            error = raised
        held.take()
        mine.reached, mine.stop = reached(summed), self.trainer.stop.number
        step, masks = of_all(ranks, mine, error)
        if ranks.world_size > 1:
            # A signal that came to one of them later than this waits for the next step.
            self.stop_asked = step.stop
        loss, norm = step.total / max(1, step.count), math.nan
        if math.isfinite(loss):
            sum_gradients(ranks, summed, masks)
            norm = step_with(self.optimiser, learning, count=step.count, clip_norm=self.stage.clip_norm, norm_of=held.norm)
        named = step.means()
        line: dict[str, Any] = {"loss": loss, "grad_norm": norm, "samples": step.samples,
                                "tokens": step.tokens, **named}  # fmt: skip
        if step.left_out:
            line["left_out_samples"] = step.left_out
        if step.problems:
            line["skipped_rows"] = step.problems
        line |= step.cut
        if math.isfinite(loss) and math.isfinite(norm):
            self.bad_in_row = 0
        else:
            line |= {"loss": None, "grad_norm": None, "skipped_update": True}
            line |= dict.fromkeys(named)
            self.bad_in_row += 1
        stepped(self.parts.objective, self.trainer.model)
        return line, state

    def _drawn(self, stream: Any, tally: Tally, *, first: bool) -> Drawn:
        """The next batch of this rank, in as many parts as memory asks for; in front of a step's first one those that
        are left out."""
        if first:
            _, tally.left_out, tally.problems = self.watch.pass_over(stream, None)
        loaded, fit = next(stream), self.parts.fit
        batch = to_device(loaded.batch, self.trainer.model.device)
        return loaded, [batch] if fit is None or fit.passes == 1 else list(split_rows(batch, fit.rows))

    def _counted(self, drawn: Drawn, tally: Tally) -> MixtureState:
        """This rank's passes over a batch, added to the tally."""
        loaded, parts = drawn
        losses = self._passes(parts)
        tally.total += sum(float(each.total.detach()) for each in losses)
        tally.count += sum(each.count for each in losses)
        tally.samples += loaded.samples
        # A row of padding stands for a share without rows.
        tally.tokens += int((loaded.batch.segments_BT > 0).sum()) if loaded.samples else 0
        tally.problems += loaded.problems
        for key, value in self.cuts.of(loaded.picks).items():
            tally.cut[key] = tally.cut.get(key, 0) + value
        learned = [int(part.learn_BT.sum()) for part in parts]
        tally.batches.append(mean_of([{key: (value, tokens) for key, value in each.parts.items()}
                                      for each, tokens in zip(losses, learned, strict=True)]))  # fmt: skip
        return loaded.state

    def _passes(self, parts: Sequence[Batch]) -> list[Losses]:
        """Forward and backward passes over the parts of a batch."""
        model = self.trainer.model
        precision = stage_precision(self.stage, self.trainer.fast, model.device).precision
        found: list[Losses] = []
        for part in parts:
            with autocast(precision, model.device):
                losses = self.parts.objective(model, part)
            # A batch of text rows alone has nothing to teach a projector.
            if losses.total.requires_grad:
                losses.total.backward()
                self.trainer.held.passed()
            else:
                self.trainer.held.rest()
            found.append(losses)
        return found

    def _stop_if_lost(self) -> None:
        if self.bad_in_row >= MAX_BAD_STEPS:
            raise NumericsError(
                f"loss or gradient was not finite {MAX_BAD_STEPS} steps in a row",
                expected="finite values",
                where=f"stage {self.stage.name}",
                fix="lower the learning rate or use precision: fp32; the last checkpoint is whole",
            )
