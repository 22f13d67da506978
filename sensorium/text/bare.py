"""Text as SigLIP reads it (arXiv:2303.15343; github.com/google-research/big_vision,
evaluators/proj/image_text/prompt_engineering.py): lower case, no punctuation, single spaces."""

from __future__ import annotations

import string

_DROPPED = str.maketrans("", "", string.punctuation)


def bare_text(text: str) -> str:
    """The text without ASCII punctuation, in lower case."""
    return " ".join(text.lower().translate(_DROPPED).split())
