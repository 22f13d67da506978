"""What `max_length` cut off: counted for the log, and said once.

Examples are made ahead of the model by several threads, so what is cut is kept by the number
of the pick until the step comes that trains on it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping

from sensorium.core.batch import Example
from sensorium.data.mixture import Pick


class CutCounter:
    """Counts the cut samples of one stage."""

    def __init__(self, stage: str, max_length: int) -> None:
        self._stage = stage
        self._max_length = max_length
        self._cut: dict[int, int] = {}
        self._lock = threading.Lock()
        self._said = False

    def watch(self, example: Example, pick: Pick) -> Example:
        """A loader's transform that notes what was cut, and changes nothing."""
        if example.truncated_tokens:
            with self._lock:
                self._cut[pick.number] = self._cut.get(pick.number, 0) + example.truncated_tokens
        return example

    def taken(self, numbers: Iterable[int]) -> dict[int, int]:
        """What was cut in the picks of these numbers, to be `noted` by a counter in another process."""
        with self._lock:
            return {n: self._cut.pop(n) for n in numbers if n in self._cut}

    def noted(self, cut: Mapping[int, int]) -> None:
        """Take over what was cut elsewhere."""
        with self._lock:
            self._cut.update(cut)

    def of(self, numbers: Iterable[int]) -> dict[str, int]:
        """What was cut in the picks of these numbers: a part of the log's line, empty where
        nothing was."""
        tokens = list(self.taken(numbers).values())
        if not tokens:
            return {}
        if not self._said:
            self._said = True
            print(f"stage {self._stage}: max_length {self._max_length} cuts samples off, here "
                  f"{len(tokens)} by {sum(tokens)} tokens; log.jsonl counts them at each step, "
                  "`sensorium data check` lists such rows of a file", file=sys.stderr)  # fmt: skip
        return {"truncated_samples": len(tokens), "truncated_tokens": sum(tokens)}
