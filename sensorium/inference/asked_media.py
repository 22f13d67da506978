"""Which media an answer's tokens ask for, and which of them the answer's end went through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from sensorium.core.errors import DataError, GenerationError, SensoriumError
from sensorium.core.hands import MadeKind
from sensorium.model.config import ModelConfig
from sensorium.model.hand_check import fed_kinds
from sensorium.processing.processor import Processor


@dataclass(frozen=True, slots=True)
class Found:
    """A medium that an answer asks for."""

    kind: MadeKind
    start: int
    """Place of its first token among the answer's ids."""
    stop: int
    """Behind its last one."""
    told: tuple[int, ...] | None = None
    """What its generator is told, where that is told by text."""
    whole: bool = True
    """False: the answer ended in its midst."""


def asked_media(processor: Processor, ids: Sequence[int]) -> list[Found]:
    """The media of an answer in order; the last of them may have been cut off by the answer's end."""
    found = [one for kind in processor.signals for one in _of_kind(processor, cast(MadeKind, kind), tuple(ids))]
    kept: list[Found] = []
    for one in sorted(found, key=lambda one: one.start):
        # What stands inside of what a generator is told belongs to that.
        if not kept or one.start >= kept[-1].stop:
            kept.append(one)
    return kept


def why_cut(found: Found, config: ModelConfig) -> DataError:
    """Why a medium is none that the answer's end went through."""
    if found.kind in fed_kinds(config):
        return DataError(f"no room for {found.kind}", expected=f"at most {config.longest_row} tokens and embeddings together",
                         fix="shorten the conversation")  # fmt: skip
    return DataError(f"the answer ended in the midst of the tokens that stand for {found.kind}", fix="raise max_tokens")


def why_not_drawn(reason: str | None) -> SensoriumError:
    """Why a picture is none whose opening alone is there.

    Args:
        reason: what it failed by; None: it was not begun.
    """
    if reason is not None:
        return GenerationError(reason)
    return DataError("the answer ended where a picture was to begin, which had no room", fix="raise max_tokens, or shorten the conversation")


def _of_kind(processor: Processor, kind: MadeKind, ids: tuple[int, ...]) -> Iterator[Found]:
    signals, told = processor.signals[kind], processor.config.hands[kind].told
    place = 0
    while signals[0] in ids[place:]:
        start = ids.index(signals[0], place)
        if told:
            whole = signals[1] in ids[start:]
            end = ids.index(signals[1], start) if whole else len(ids)
            yield Found(kind, start, place := end + whole, ids[start + 1 : end], whole)
        else:
            run = ids[start : start + len(signals)]
            place = start + 1
            if run == signals[: len(run)]:
                yield Found(kind, start, place := start + len(run), whole=run == signals)
