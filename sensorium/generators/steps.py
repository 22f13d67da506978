"""What every diffusion pipeline shares on its way: counting steps, telling of them, stopping, and saying where it failed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sensorium.core.errors import GenerationError, SensoriumError
from sensorium.core.hands import CancelledError, Making


class Steps:
    """Steps of one run of a pipeline.

    Older pipelines call back with (step, time, latents), newer ones with themselves in front and a dictionary behind;
    `callback` is whichever the pipeline takes. A scheduler may need more evaluations than steps were asked for
    (PNDM one more, Heun nearly twice as many): what is counted is what is done.
    """

    def __init__(self, kind: str, pipe: Any, making: Making) -> None:
        self.kind = kind
        self.pipe = pipe
        self.making = making
        self.done = 0
        self.total = making.steps

    def callback(self) -> dict[str, Any]:
        """The arguments that make the pipeline call back."""
        if "callback_on_step_end" in inspect.signature(self.pipe.__call__).parameters:
            return {"callback_on_step_end": self._ended, "callback_on_step_end_tensor_inputs": ["latents"]}
        return {"callback": self._ended_old, "callback_steps": 1}

    def _ended(self, pipe: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        del pipe, time
        self._count(step + 1, len(self.pipe.scheduler.timesteps), tensors["latents"])
        return tensors

    def _ended_old(self, step: int, time: Any, latents: Any) -> None:
        del time
        order = getattr(self.pipe.scheduler, "order", 1)
        self._count(step + 1, -(-len(self.pipe.scheduler.timesteps) // order), latents)

    def _count(self, done: int, total: int, latents: Any) -> None:
        self.done, self.total = done, total
        if not bool(latents.isfinite().all()):
            raise GenerationError(
                f"step {done} of {total} made values that are not finite", where=f"generator {self.kind}",
                fix="look at the condition; with half precision, try dtype fp32",
            )  # fmt: skip
        if self.making.progress is not None:
            self.making.progress(done, total)
        if self.making.cancelled is not None and self.making.cancelled():
            raise CancelledError(f"generator {self.kind}: stopped after step {done} of {total}")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """What fails inside becomes an error that says after which step.

        Raises:
            GenerationError: instead of whatever the pipeline raised.
        """
        try:
            yield
        except (CancelledError, SensoriumError):
            raise
        except Exception as error:
            full = "out of memory" in str(error).lower() or isinstance(error, MemoryError)
            raise GenerationError(
                f"it failed {self.place()} ({type(error).__name__}: {str(error)[:300]}); nothing was made",
                where=f"generator {self.kind}", fix="ask for fewer at once, or for a smaller size" if full else None,
            ) from error  # fmt: skip

    def place(self) -> str:
        """Where it is, in words."""
        if not self.done:
            return f"before step 1 of {self.total} was done"
        if self.done >= self.total:
            return f"after the last of {self.total} steps, turning latents into a medium"
        return f"after step {self.done} of {self.total}"
