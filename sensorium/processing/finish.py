"""The last step of the Processor: a Draft, cut to length -> Example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from sensorium.core.batch import Example, MediaBatch
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.parts import ModelShape
from sensorium.core.picture_words import CODES
from sensorium.processing.draft import Draft
from sensorium.processing.mrope import three_places


def join_pixels(found: Sequence[Tensor]) -> Tensor:
    """Encoder inputs end to end; a picture whose features were found in a store has none."""
    return torch.cat([pixels for pixels in found if len(pixels)] or [found[0]])


def finish(draft: Draft, name: str, config: ModelShape, max_length: int | None) -> Example:
    """The Example that a Draft has become, cut to at most `max_length` tokens; a medium is dropped
    whole rather than cut.

    Raises:
        DataError: its first answer begins behind that.
        ConfigError: a token has no row in the embedding.
    """
    fusion, rows = config.fusion, config.backbone.vocab_size
    if draft.ids and max(draft.ids) >= rows:
        raise ConfigError(
            f"the tokenizer gives token {max(draft.ids)}, and the language model's embedding has {rows} rows",
            expected="the tokenizer that the language model was trained with",
            fix="put its tokenizer.json into the model's folder",
        )
    length = len(draft.ids)
    cut = length if max_length is None else min(length, max_length)
    for _, start, stop in draft.spans:
        if start < cut < stop or (start == cut and fusion.fills_slots):
            cut = start
            break
    cut = next((one.start for one in draft.wanted if one.start < cut < one.start + one.count), cut)
    kept = [span for span in draft.spans if span[2] <= cut and span[1] <= cut]
    if cut < length and not any(draft.learn[:cut]) and any(draft.learn):
        raise DataError(
            f"conversation {name!r} has {length} tokens and its first answer begins "
            f"after token {max_length}",
            fix="raise max_length or shorten the conversation",
        )
    counts = Counter(kind for kind, _, _ in kept)
    media = {kind: _first(draft, kind, counts[kind]) for kind in draft.pixels if counts[kind]}
    slots = {kind: _places(draft, kind, kept, fusion.fills_slots) for kind in media}
    media_index = draft.media_index[:cut]
    if fusion.reaches_back and kept:
        media_index = [max(1, index) for index in media_index]
    return Example(
        input_ids=draft.ids[:cut],
        learn=draft.learn[:cut],
        slots=slots,
        media=media,
        media_index=media_index,
        id=name,
        truncated_tokens=length - cut + draft.left_out,
        branches=draft.branches,
        wanted=tuple(one for one in draft.wanted if one.start < cut),
        places=three_places(draft, cut) if config.backbone.mrope else [],
        held=[start + n for _, start, stop in kept
              for n in fusion.same_position(stop - start)],
    )  # fmt: skip


def _first(draft: Draft, kind: str, count: int) -> MediaBatch:
    """So many of a kind's media, the first ones."""
    details = draft.details.get(kind)
    return MediaBatch(
        join_pixels(draft.pixels[kind][:count]),
        tuple(draft.plans[kind][:count]),
        texts=tuple(draft.texts.get(kind, ())[:count]),
        details_NCHW=torch.cat(details[:count]) if details else None,
        kept=tuple(draft.kept.get(kind, ())[:count]),
    )


def _places(draft: Draft, kind: str, kept: Sequence[tuple[str, int, int]], fills: bool) -> list[int]:
    """Where the features of a kind of medium go, or the words of codes."""
    places = [p for k, a, b in kept if k == kind for p in range(a, b)]
    if kind == CODES:
        return sorted(set(places) & set(draft.codes))
    return places if fills else []
