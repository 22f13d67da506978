"""The training log: JSON lines always, TensorBoard where asked for, a curve at the end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sensorium.core.errors import CheckpointError, MissingDependencyError
from sensorium.training.disk import writing


class TrainingLog:
    """Appends one line a step and remembers how long the file is."""

    def __init__(self, folder: Path, *, keep_bytes: int, tensorboard: bool) -> None:
        self.path = folder / "log.jsonl"
        with writing(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("ab")
        if self._stream.tell() < keep_bytes:
            raise CheckpointError(
                f"the log has {self._stream.tell()} bytes", expected=f"at least {keep_bytes}",
                where=str(self.path), fix="the log was cut; start in another folder",
            )  # fmt: skip
        # Lines after the checkpoint belong to steps that will run again.
        with writing(self.path):
            self._stream.truncate(keep_bytes)
        self._stream.seek(0, 2)
        with self.path.open("rb") as lines:
            self._global_step = sum(1 for _ in lines)
        self._board_folder = folder / "tensorboard"
        with writing(self._board_folder):
            self._board = _board(self._board_folder, self._global_step + 1) if tensorboard else None

    def write(self, line: dict[str, Any]) -> None:
        """Append a line."""
        text = (json.dumps(line) + "\n").encode()
        with writing(self.path, len(text)):
            self._stream.write(text)
            self._stream.flush()
        self._global_step += 1
        if self._board is not None:
            with writing(self._board_folder):
                for key, value in line.items():
                    if isinstance(value, float):
                        self._board.add_scalar(f"{line['stage']}/{key}", value, self._global_step)

    def size(self) -> int:
        """Bytes written so far."""
        return self._stream.tell()

    def sync(self) -> None:
        """Have what was written safe on disk."""
        with writing(self.path):
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        # What a failed write left is tried once more.
        with writing(self.path):
            self._stream.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path, next_step: int) -> Any:
    """A writer that takes the place of whatever an earlier run wrote from `next_step` on."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingDependencyError(
            "TensorBoard logs need tensorboard", fix="pip install -e '.[train]' in the clone"
        ) from None
    return SummaryWriter(str(folder), purge_step=next_step)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a line cut by a crash at the very end is left out."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines
