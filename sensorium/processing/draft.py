"""Drafts of Examples, and how conversations that begin alike become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from sensorium.core.batch import Grid, Kept, TilePlan, Wanted
from sensorium.core.errors import DataError
from sensorium.core.parts import TextFrame


@dataclass(slots=True)
class Draft:
    """An Example while it is written."""

    ids: list[int] = field(default_factory=list[int])
    learn: list[bool] = field(default_factory=list[bool])
    media_index: list[int] = field(default_factory=list[int])
    spans: list[tuple[str, int, int]] = field(default_factory=list[tuple[str, int, int]])
    """(kind, first position, one past the last) of each medium."""
    pixels: dict[str, list[Tensor]] = field(default_factory=dict[str, list[Tensor]])
    details: dict[str, list[Tensor]] = field(default_factory=dict[str, list[Tensor]])
    """The same media for a lane's second encoder."""
    kept: dict[str, list[Kept | None]] = field(default_factory=dict[str, "list[Kept | None]"])
    """What a feature store knows of each medium."""
    plans: dict[str, list[TilePlan]] = field(default_factory=dict[str, list[TilePlan]])
    texts: dict[str, list[tuple[int, ...]]] = field(default_factory=dict[str, list[tuple[int, ...]]])
    """What each medium is looked at for, where the projector reads it."""
    maps: list[Grid] = field(default_factory=list[Grid])
    """How the tokens of each medium lie, where the LLM gives them places in two dimensions."""
    codes: list[int] = field(default_factory=list[int])
    """Places of codes of pictures that are tokens."""
    wanted: list[Wanted] = field(default_factory=list["Wanted"])
    """Media that its answers hold."""
    branches: list[int] = field(default_factory=list[int])
    left_out: int = 0
    """Tokens of separate turns that found no room."""

    def put(self, ids: list[int], learn: bool) -> None:
        self.ids.extend(ids)
        self.learn.extend([learn] * len(ids))
        self.media_index.extend([len(self.spans)] * len(ids))


def share_prefix(drafts: Sequence[Draft], max_length: int | None) -> Draft:
    """The first Draft with what follows the last medium in each of the others behind it, as
    long as whole ones fit.

    Raises:
        DataError: they differ before that, or an answer begins right there.
    """
    merged = drafts[0]
    if len(drafts) == 1:
        return merged
    shared = merged.spans[-1][2] if merged.spans else 0
    prefix = merged.ids[:shared]
    for number, draft in enumerate(drafts, start=1):
        if draft.ids[:shared] != prefix:
            raise DataError(
                "separate turns that do not begin with the same tokens",
                expected=f"the first {shared} tokens alike, up to the last medium",
                where=f"pair {number}",
                fix="leave separate_turns out for this tokenizer",
            )
        # In the row another pair's token stands in front of it and would have to predict it.
        if any(draft.learn[shared : shared + 1]):
            raise DataError(
                "separate turns with an answer right behind the media",
                expected="at least one token between them that is not learned",
                where=f"pair {number}",
                fix="give the question a text, use a chat template, or leave separate_turns out",
            )
    total = shared + sum(len(draft.ids) - shared for draft in drafts)
    merged.branches = [0] * shared + [1] * (len(merged.ids) - shared)
    for number, draft in enumerate(drafts[1:], start=2):
        more = len(draft.ids) - shared
        if max_length is not None and len(merged.ids) + more > max_length:
            break
        merged.ids += draft.ids[shared:]
        merged.learn += draft.learn[shared:]
        merged.wanted += [replace(one, start=one.start - shared + len(merged.media_index)) for one in draft.wanted]
        merged.media_index += draft.media_index[shared:]
        merged.branches += [number] * more
    merged.left_out = total - len(merged.ids)
    if merged.branches[-1:] == [1]:
        # The first pair alone is an ordinary conversation, which may be cut.
        merged.branches = []
    return merged


def frame_text(draft: Draft, frame: TextFrame, pad_id: int, max_length: int | None) -> None:
    """Cut or fill up a text for a text tower; its last token, which ends it, stays.

    Raises:
        DataError: the Sample has separate turns, which are several texts.
    """
    if draft.branches:
        raise DataError(
            "separate turns for a text tower",
            expected="one text in a sample",
            fix="leave separate_turns out",
        )
    longest = frame.longest
    if max_length is not None and not frame.fill:
        longest = min(longest, max_length)
    draft.left_out += max(0, len(draft.ids) - longest)
    for row in (draft.ids, draft.learn, draft.media_index):
        del row[longest - 1 : -1]
    if frame.fill:
        draft.put([pad_id] * (longest - len(draft.ids)), learn=False)
