"""What training sees of a Sample: one row or, for models whose rows have one answer, one for each."""

from __future__ import annotations

from dataclasses import replace

from sensorium.core.batch import Example
from sensorium.core.errors import DataError
from sensorium.core.sample import Message, Part, Sample
from sensorium.media.augment import Augmentation
from sensorium.processing.processor import Processor


def encode_rows(
    processor: Processor,
    sample: Sample,
    *,
    max_length: int | None = None,
    augmentation: Augmentation | None = None,
    decode: bool = True,
) -> list[Example]:
    """The Examples of a Sample: one; of a question with several answers, one for each with its weight;
    or, where the Processor splits answers, one for each answer that begins within `max_length`, with what stands in front of it to be read.

    Args:
        decode: False: without pixels (`Processor.measure`).

    Raises:
        DataError: as `Processor.encode`, or several answers that the objective cannot weigh.
    """
    if sample.answers:
        if not processor.weighs_answers:
            raise DataError("several answers to a question, for an objective that weighs none",
                            expected="one answer", fix="objective: caption or instruct, or one assistant message")  # fmt: skip
        made: list[Example] = []
        for answer in sample.answers:
            said = Message("assistant", (Part("text", answer.text),))
            one = replace(sample, messages=(*sample.messages[:-1], said), answers=())
            *before, last = encode_rows(
                processor, one, max_length=max_length, augmentation=augmentation, decode=decode
            )
            made += before if not made else []  # Answers to what was asked before, the same each time.
            made.append(replace(last, loss_weight=answer.weight))
        return made
    encode = processor.encode if decode else processor.measure
    if not processor.splits_answers:
        return [encode(sample, max_length=max_length, augmentation=augmentation)]
    parts = [messages[: end + 1] for messages in sample.conversations()
             for end, message in enumerate(messages) if message.role == "assistant"]  # fmt: skip
    made = []
    for messages in parts or [sample.messages]:
        one = replace(sample, messages=messages, separate_turns=False)
        example = encode(one, augmentation=augmentation, only_last=True)
        if max_length is not None and len(example) > max_length:
            if made and example.learn.index(True) >= max_length:
                # Its question alone teaches nothing; an answer in front of it was in time.
                made[-1].truncated_tokens += sum(example.learn)
                continue
            example = encode(
                one, max_length=max_length, augmentation=augmentation, only_last=True
            )
        made.append(example)
    return made
