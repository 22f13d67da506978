"""Prompts that do not say what is to be drawn: what an LLM that writes pictures as tokens is led away from (`inference/drawing.py`),
and what training puts in place of a row's prompt, so that such prompts are known (classifier-free guidance, arXiv:2207.12598)."""

from __future__ import annotations

from dataclasses import replace

from sensorium.core.batch import Example, MediaBatch
from sensorium.core.picture_words import CODES
from sensorium.core.sample import Message, Part, Sample
from sensorium.media.augment import Augmentation
from sensorium.processing.processor import Processor
from sensorium.text.chat import choose_template


class Unsteered:
    """Such prompts of one model, and rows of data behind them."""

    def __init__(self, processor: Processor) -> None:
        frames = processor.frames
        assert frames is not None, "a model that writes no pictures"
        self._frames = frames
        self._own = processor
        name = frames.shape.template or processor.config.template
        same = choose_template(name, processor.tokenizer) == processor.template
        self.drawing: Processor = processor if same else processor.with_template(name)
        """Writes the prompts of pictures that are asked for, whatever template a stage has."""

    def said(self, text: str) -> Example:
        """A prompt of this text."""
        return self.drawing.prompt((Message("user", (Part("text", text),)),))

    def nothing(self) -> Example:
        """The begin of a text alone."""
        begin = self._own.tokenizer.bos_id
        return Example([] if begin is None else [begin], [] if begin is None else [False], media_index=[] if begin is None else [0])

    def padded(self, example: Example, stop: int | None = None) -> Example:
        """Padding in place of all but the begin of the text and the opening of pictures.

        Args:
            stop: where an answer begins, which stays; None: behind the end.
        """
        stop = len(example) if stop is None else stop
        tokenizer = self._own.tokenizer
        kept = {tokenizer.bos_id, self._frames.opening}
        ids = [i if i in kept or place >= stop else tokenizer.pad_id for place, i in enumerate(example.input_ids)]
        return _behind(replace(example, input_ids=ids), stop)

    def pictures_alone(self, example: Example, stop: int | None = None) -> Example:
        """The begin of the text, and the pictures of a prompt, read as tokens or drawn, between their first and last markers.

        Args:
            stop: as of `padded`.
        """
        stop = len(example) if stop is None else stop
        frames, ids = self._frames, example.input_ids
        places = set(example.slots.get(CODES, ()))
        marks = {self._own.tokenizer.bos_id, frames.opening, *frames.frame().behind}
        kept = [i for i, token in enumerate(ids) if i >= stop or i in places or token in marks or frames.is_code(token)]
        moved = {place: new for new, place in enumerate(kept)}
        return replace(
            example, input_ids=[ids[i] for i in kept], learn=[example.learn[i] for i in kept], media_index=[0] * len(kept),
            media={kind: one for kind, one in example.media.items() if kind == CODES},
            slots={CODES: [moved[i] for i in sorted(places)]} if places else {}, held=[moved[i] for i in example.held if i in moved],
        )  # fmt: skip

    def row(
        self, sample: Sample, *, pictures: bool, max_length: int | None = None, augmentation: Augmentation | None = None,
        decode: bool = True,
    ) -> Example | None:  # fmt: skip
        """A row behind a prompt that drawing leads away from; None of a row that is to stay as it is, because its answer is
        more than one picture, or not the only one.

        Args:
            pictures: of a model that is led away from a prompt's pictures, too, these stay; else it is nothing.
            max_length, augmentation, decode: as of `encode_rows`.

        Raises:
            DataError: as `Processor.encode`.
        """
        if not _is_one_drawing(sample):
            return None
        away = self._frames.shape.drawing.away
        *prompt, answer = sample.messages
        if away == "text":
            prompt = [Message("user", (Part("text", ""),))]
        elif away == "pictures" and not pictures:
            prompt = [Message(one.role, tuple(part for part in one.content if not part.is_media)) for one in prompt]
        # Features may have been kept since this was built.
        self.drawing.shelf = self._own.shelf
        encode = self.drawing.encode if decode else self.drawing.measure
        example = encode(replace(sample, messages=(*prompt, answer)), max_length=max_length, augmentation=augmentation)
        if away == "text" or not any(example.learn):
            return example
        stop = example.learn.index(True)
        return self.padded(example, stop) if away == "pads" else self.pictures_alone(example, stop)


def _is_one_drawing(sample: Sample) -> bool:
    """Whether all that is answered is one picture."""
    if sample.separate_turns or sample.answers:
        return False
    if [i for i, one in enumerate(sample.messages) if one.role == "assistant"] != [len(sample.messages) - 1]:
        return False
    return [part.type for part in sample.messages[-1].content] == ["image"]


def _behind(example: Example, stop: int) -> Example:
    """An Example whose media in front of a place are gone; what stood for them is still there."""
    places = [i for i in example.slots.get(CODES, ()) if i >= stop]
    before = max(example.media_index[:stop], default=0)
    index = [0] * stop + [max(0, i - before) for i in example.media_index[stop:]]
    if not places:
        return replace(example, media={}, slots={}, media_index=index)
    return replace(example, media={CODES: _last(example.media[CODES])}, slots={CODES: places}, media_index=index)


def _last(media: MediaBatch) -> MediaBatch:
    """The last picture alone."""
    plan = media.plans[-1]
    inputs = plan.patches.tokens if plan.patches else plan.images
    return MediaBatch(media.pixels_NCHW[-inputs:], (plan,))
