"""Words of a question, told of the things that they fit.

What a thing is called comes to mind in hundreds of words, of which a model tells the best ones only; whoever hears a word sees
whether it fits. So detectors that read match what is asked with what is seen (GLIP, arXiv:2112.03857), where a list of labels
made beforehand would have to hold the word.

Shape legend: N things, C candidate words of up to K pieces.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sensorium.core.spelling import WORD_END
from sensorium.model.lookup import UNUSED


def heard(
    chances_NC: Tensor, pictures: Sequence[int], texts: Sequence[Sequence[int]], pieces_CK: Tensor, share: float
) -> list[list[int]]:
    """Of each thing the candidates among its picture's words that fit it best of all the picture's things.

    Args:
        chances_NC: how probable each candidate is of each thing.
        pictures: of each thing, which text is its picture's.
        texts: words, each ended by `WORD_END`; none: nothing is asked.
        share: a candidate fits a thing that is at least this part as probable of it as its best one. The best, and not a number for
            all things, because of what is known well all other words are improbable alike, true ones of unclear things too.
    """
    found: list[list[int]] = [[] for _ in pictures]
    if not texts or not pictures:
        return found
    column = {tuple(i for i in row if i != UNUSED): c for c, row in enumerate(pieces_CK.tolist())}
    longest = pieces_CK.shape[1]
    for m in sorted(set(pictures)):
        mine = [n for n, picture in enumerate(pictures) if picture == m]
        for word in words_of(texts[m]):
            c = column.get(word[:longest])
            if c is None:
                continue
            best = max(mine, key=lambda n: float(chances_NC[n, c]))
            if chances_NC[best, c] >= share * chances_NC[best].max():
                found[best].append(c)
    return found


def words_of(text: Sequence[int]) -> list[tuple[int, ...]]:
    """The words of a text of words."""
    found: list[list[int]] = [[]]
    for i in text:
        if i == WORD_END:
            found.append([])
        else:
            found[-1].append(i)
    return [tuple(word) for word in found if word]
