"""What media add to the adaption prompts of an LLM: a fusion makes it, the prompts use it.

Shape legend: B rows, T tokens, M media of a row and one place for none, K prompt vectors, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class PromptMedia:
    """The features of each row's media, and which token belongs to which."""

    added_BMKD: Tensor
    """What each medium adds to a prompt; K is 1 where all vectors get the same. Of each row's
    media the first is none at all, which adds nothing."""
    sees_BTM: Tensor
    """True at the one medium of each token."""
