"""The media of one Sample while it becomes an Example: what is made of them, in reading order, and only once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sensorium.core.batch import Seen
from sensorium.core.sample import LOCATED_KINDS, Part, Sample
from sensorium.core.shelf import Shelf
from sensorium.media.augment import Augmentation
from sensorium.processing.pictures import Pictures, Prepared, View
from sensorium.processing.signals import media_seen


@dataclass(frozen=True, slots=True)
class Inputs:
    """A medium made ready for its encoder or tokenizer, where places in it lie for the model, and what its projector reads."""

    made: Prepared
    seen: Seen | None
    """None: it is no picture."""
    text: tuple[int, ...] | None = None
    drawn: bool = False
    """Whether it stands in an answer, as tokens, and the model does not look at it."""


@dataclass(slots=True)
class SampleMedia:
    """The media of one Sample, and those already made: encoder inputs, in reading order."""

    sample: Sample
    augmentation: Augmentation | None
    decoded: bool
    """Whether pixels are wanted; else sizes alone."""
    kinds: Mapping[str, bool]
    """What the model makes, and whether it looks at that."""
    made: list[Inputs] = field(default_factory=list["Inputs"])

    def count(self, kind: str) -> int:
        """How many media of a kind the model looks at."""
        return sum(part.type == kind for _, part in media_seen(self.sample, self.kinds))

    def has_places(self) -> bool:
        """Whether it says where something is."""
        parts = (part for message in self.sample.messages for part in message.content)
        return any(part.type in LOCATED_KINDS for part in parts)

    def question(self) -> str:
        """The text of the message that holds the medium to be made next."""
        return media_seen(self.sample, self.kinds)[sum(not one.drawn for one in self.made)][0].text

    def seen(self, count: int | None = None) -> list[Seen]:
        """Of the first media, the pictures that the model looks at and did not draw."""
        return [one.seen for one in self.made[:count] if one.seen is not None and not one.drawn]


def prepared(part: Part, pictures: Pictures, media: SampleMedia, shelf: Shelf | None) -> tuple[Prepared, Seen]:
    """A picture made ready, and where it lies."""
    augmentation, root = media.augmentation, media.sample.root
    if augmentation:
        augmentation = augmentation.of_picture(len(media.made))
    view = View(augmentation, media.has_places(), media.count(part.type), part.pool)
    made = pictures.prepare(part.value, root, view, shelf) if media.decoded else pictures.measure(part.value, root, view)
    frame = pictures.lane.resolution.frame(made.shape, made.plan, pictures.lane.encoder.preprocess().size_px)
    return made, Seen(made.shape, frame)
