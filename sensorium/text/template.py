"""What a chat template is."""

from __future__ import annotations

from sensorium.core.config import Config

EOS = "{eos}"


class ChatTemplate(Config):
    """Strings around each turn; `{special}` pieces are listed in `control`."""

    before: dict[str, str]
    after: dict[str, str]
    bos: bool = False
    bos_behind: bool = False
    """The begin of text stands behind the media at the front, not before them."""
    default_system: str | None = None
    media_before: str = ""
    """In front of each medium; `{n}` is its number in the conversation, from 1."""
    media_after: str = ""
    chunk_end: str = ""
    """Closes what is written about a medium, in front of the next one. What an answer says before
    the first medium is not learned then."""
    answer_prefix: str = ""
    """Put in front of an answer, as part of it: the space after `ASSISTANT:`."""
    located: str = ""
    """In front of an answer that holds places, in its stead: the control token that asks for them, which is not learned."""
    between: str | None = None
    """Behind an answer that another message follows, in place of what closes the last one; it is not learned."""
    media_first: bool = False
    """Media of a message stand in front of all else, what the template writes before it included."""
    user_text: bool = True
    """False: of what a user says, only the media are written."""
    control: tuple[str, ...] = ()
    """Control tokens that may occur in the strings above; `{eos}` is the tokenizer's own."""
