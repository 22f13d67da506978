"""A prompt that goes on with text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sensorium.core.batch import Example


def extended(prompt: Example, ids: Sequence[int]) -> Example:
    """A prompt with tokens of text behind it."""
    count = len(ids)
    index = prompt.media_index[-1] if prompt.media_index else 0
    branch = prompt.branches[-1:] * count
    furthest = max((max(place) for place in prompt.places), default=-1)
    return replace(
        prompt,
        input_ids=[*prompt.input_ids, *ids],
        learn=[*prompt.learn, *([False] * count)],
        media_index=[*prompt.media_index, *([index] * count)],
        branches=[*prompt.branches, *branch],
        places=[*prompt.places, *((furthest + 1 + i,) * 3 for i in range(count))] if prompt.places else [],
    )
