"""Whether a stage's data holds the media that what learns is taught by: without any, it would train and learn nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.sample import Sample
from sensorium.data.source import Source
from sensorium.training.config import StageConfig

FIRST = 50
"""Rows of each source that are searched for any medium, and rows, evenly spread, for one in an answer:"""
SPREAD = 1000


def check_media(stage: StageConfig, sources: Sequence[Source], batch: Batch) -> None:
    """Refuse a stage of which something would learn from media that are not there.

    Args:
        batch: the stage's first; what it holds is not looked for in the sources.

    Raises:
        ConfigError: naming what would learn nothing.
    """
    looks = any(one.part.startswith(("projectors", "encoders", "adapters.", "places.")) for one in stage.learns)
    if looks and not batch.media and not any(any(True for _ in s.media()) for s in _rows(sources, lambda n: range(min(FIRST, n)))):
        raise ConfigError("a projector or encoder learns, but the data holds no media")
    for kind, learner in _from_answers(stage).items():
        if any(one.kind == kind for one in batch.wanted) or _in_answers(kind, sources):
            continue
        names = ", ".join(source.name for source in sources)
        raise ConfigError(
            f"{learner} learns from answers of kind {kind!r}, but no answer of the data holds one", expected=f"a part {{type: {kind}}} "
            "in a message of role assistant", where=f"data ({names})", fix="add a source whose answers hold some, or leave that out of the stage",
        )  # fmt: skip


def _from_answers(stage: StageConfig) -> dict[str, str]:
    """The kinds of media that answers have to hold, with what learns from them."""
    found = dict.fromkeys(stage.objective.from_answers, f"objective {stage.objective.kind!r}")
    # Where codes have tables, pictures of questions are read by an encoder.
    return found | ({"image": "part 'code_tables'"} if any(one.part == "code_tables" for one in stage.learns) else {})


def _in_answers(kind: str, sources: Sequence[Source]) -> bool:
    rows = _rows(sources, lambda n: range(0, n, max(1, n // SPREAD)))
    return any(part.type == kind for sample in rows for message in sample.messages if message.role == "assistant" for part in message.content)


def _rows(sources: Sequence[Source], places: Callable[[int], range]) -> Iterator[Sample]:
    for source in sources:
        for row in places(len(source)):
            try:
                yield source[row]
            except DataError:
                continue  # Named, or skipped and listed, when training comes to this row.
