"""What parts of a Sample a model takes."""

from __future__ import annotations

from collections.abc import Collection

from sensorium.core.errors import DataError
from sensorium.core.sample import Sample
from sensorium.processing.signals import is_made
from sensorium.text.render import TOKEN

SHIPPED = {"boxes": "nano-points", "mask": "nano-points", "image": "nano-draws, or nano-finds where it is to be found"}
"""Who of the models that come along takes parts of these types, in its answers."""


def not_made(sample: Sample, makes: Collection[str]) -> list[str]:
    """Kinds of media in answers that the model does not make: where it takes them, it reads them there and learns nothing from them."""
    return sorted({part.type for message in sample.messages if message.role == "assistant" for part in message.content
                   if part.is_media and not part.speech and part.type not in makes})  # fmt: skip


def check_parts(sample: Sample, takes: Collection[str], makes: Collection[str]) -> None:
    """Raise a DataError for a part that the model neither takes nor makes.

    Args:
        takes: types of parts, beside text.
    """
    for message in sample.messages:
        for part in message.content:
            if part.type not in ("text", TOKEN, *takes) and not is_made(message, part, makes):
                other = _other_way(part.type) if message.role == "assistant" else ""
                raise DataError(
                    f"this model does not take a part of type {part.type!r}",
                    expected=" or ".join(["text", *takes]),
                    fix=f"leave the row out, or skip such rows with on_bad_row: skip{other}",
                )


def _other_way(kind: str) -> str:
    """What else may be done about a part of an answer, as the end of a sentence."""
    if kind == "audio":
        return '; or, where it says what the answer holds already, mark the part: "speech": true'
    return f"; or take a model that does: {SHIPPED[kind]}" if kind in SHIPPED else ""
