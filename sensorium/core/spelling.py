"""How words are told apart where token ids are words and not a text."""

from __future__ import annotations

WORD_END = -1
"""Behind each word of `MediaBatch.texts` in a lane that looks for words."""
