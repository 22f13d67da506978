"""Errors that name what was found, what was expected, where, and what to do.

Every error a user can cause is a `SensoriumError`; the CLI prints it without a
traceback and exits with its `exit_code`. Anything else is a defect of ours.
"""

from __future__ import annotations


class SensoriumError(Exception):
    """Base of all errors that a user can cause and mend.

    Args:
        found: what was found, as a full clause.
        expected: what would have been right.
        where: file and line, row, or config path.
        fix: what to do about it.
    """

    exit_code = 1

    def __init__(
        self,
        found: str,
        *,
        expected: str | None = None,
        where: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.found = found
        self.expected = expected
        self.where = where
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.found}" if self.where else self.found
        if self.expected:
            text += f"; expected {self.expected}"
        if self.fix:
            # A question, and a list of lines, have an end of their own.
            end = "" if text.endswith("\n") else " " if text.endswith("?") else ". "
            text += f"{end}To mend it: {self.fix}"
        return text

    def at(self, where: str) -> SensoriumError:
        """The same error with an outer place put in front of the inner one."""
        inner = f"{where}: {self.where}" if self.where else where
        return type(self)(self.found, expected=self.expected, where=inner, fix=self.fix)


class ConfigError(SensoriumError):
    """A config key, value or name that cannot be used."""

    exit_code = 2


class DataError(SensoriumError):
    """A row of data that cannot be used."""

    exit_code = 3


class MediaError(DataError):
    """Bytes that do not decode to an allowed medium."""


class AlignmentError(SensoriumError):
    """Placeholders and features disagree."""

    exit_code = 4


class WeightsError(SensoriumError):
    """Weights that are missing, altered or of another shape."""

    exit_code = 5


class CheckpointError(SensoriumError):
    """A checkpoint that cannot be read or does not belong to this run."""

    exit_code = 6


class NumericsError(SensoriumError):
    """Training produced values that are not finite."""

    exit_code = 7


class MissingDependencyError(SensoriumError):
    """An optional package that this operation needs is not installed."""

    exit_code = 8


class GenerationError(SensoriumError):
    """A generator failed on its way to a medium, and made nothing."""

    exit_code = 9


class StoppedError(SensoriumError):
    """A signal asked a run to stop, and it has: all that it did is saved."""

    exit_code = 128 + 15
    """Schedulers know a program by it that a SIGTERM ended; 130 stands for Ctrl-C."""
