"""What a picture is looked at for, as token ids: the text for a projector that reads, or its words for a lane that looks for them."""

from __future__ import annotations

from sensorium.core.errors import ConfigError, DataError
from sensorium.core.parts import LaneShape, TextVocabulary
from sensorium.core.sample import PLACE_KINDS, Sample
from sensorium.core.spelling import WORD_END
from sensorium.text.telling import spelt_inside, telling_words
from sensorium.text.tokenizer import Tokenizer


def looked_for(text: str, lane: LaneShape, tokenizer: Tokenizer, sample: Sample) -> tuple[int, ...] | None:
    """What a medium of this lane is looked at for.

    Args:
        text: of the message that holds it.

    Returns:
        None where the lane asks for nothing.

    Raises:
        ConfigError: see `read_question`.
        DataError: the same.
    """
    if lane.looks_for_words:
        return asked_words(sample, tokenizer)
    return read_question(text, lane.projector.vocabulary, tokenizer, sample)


def asked_words(sample: Sample, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The telling words of all that the user says, each spelt as inside a sentence and ended by `WORD_END`.

    Of separate turns, which share a picture's tokens, there are none.
    """
    if sample.separate_turns:
        return ()
    said = " ".join(message.text for message in sample.messages if message.role == "user")
    return tuple(i for word in telling_words(said) for i in (*spelt_inside(word, tokenizer), WORD_END))


def read_question(
    text: str, vocabulary: TextVocabulary | None, tokenizer: Tokenizer, sample: Sample
) -> tuple[int, ...] | None:
    """Ids of the text by the reader that came with the model, else by the LLM's own tokenizer.

    Returns:
        None where there is no vocabulary, which means that the projector reads nothing.

    Raises:
        ConfigError: the tokenizer has more words than the projector.
        DataError: the text is too long, the sample asks several questions behind one picture, or
            it has boxes or points, which would not be in the text.
    """
    if vocabulary is None:
        return None
    if sample.separate_turns:
        raise DataError(
            f"sample {sample.id!r} has separate turns, which share a picture's tokens",
            expected="one question for a picture, because this projector reads it",
            fix="leave separate_turns out",
        )
    if any(part.type in PLACE_KINDS for m in sample.messages for part in m.content):
        raise DataError(
            f"sample {sample.id!r} has boxes or points for a projector that reads the question",
            expected="text alone, since they are written for the LLM only",
            fix="write them into the text, or choose a projector that does not read",
        )
    reader = tokenizer.reader
    if len(reader or tokenizer) > vocabulary.words:
        raise ConfigError(
            f"a tokenizer of {len(reader or tokenizer)} words for a projector of {vocabulary.words}",
            where="projector.words",
            fix="raise words, or bring the tokenizer that the projector was trained with",
        )
    ids = tokenizer.encode(text) if reader is None else reader.read(text)
    if len(ids) > vocabulary.longest:
        raise DataError(
            f"the question of sample {sample.id!r} has {len(ids)} tokens",
            expected=f"at most {vocabulary.longest}, as many as the projector reads",
            fix="shorten it, or skip such rows with on_bad_row: skip",
        )
    return tuple(ids)
