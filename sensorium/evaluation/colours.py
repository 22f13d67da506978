"""Baselines that see colours alone: histograms of pictures, mapped to bags of words by ridge regression; and shares of
the colours that have names, which a description says or does not say, and for which nothing is learnt.

Shape legend: N training pictures, M pictures of a gallery, H bins and a constant, W words, K named colours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sensorium.data.scenes import COLORS
from sensorium.media.image import load_image

BINS = 8
"""Of each of red, green and blue."""
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
"""In mean variances; the one that finds most of a tenth of the training pictures is taken."""
FIRST = 10
NAMES = {name: column for column, name in enumerate(COLORS)} | {"grey": list(COLORS).index("gray"), "violet": list(COLORS).index("purple")}
"""Words for the colours of scenes; white is the ground of nearly every picture, and tells nothing."""
CELLS = 32
"""Steps of each of red, green and blue, all pixels of which have the name of their middle."""
COMMON = frozenset(["a", "an", "and", "the", "of", "in", "on", "with"])

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Described:
    """A picture, and what is said of it."""

    picture: Any
    text: str


@dataclass(frozen=True, slots=True)
class Colours:
    """A linear map from colours to words."""

    words: dict[str, int]
    map_HW: Floats

    @classmethod
    def learnt(cls, known: Sequence[Described]) -> Colours:
        """Fitted to described pictures."""
        counts = Counter(word for one in known for word in said(one.text))
        words = {word: column for column, word in enumerate(sorted(counts))}
        bins_NH = histograms(known)
        bags_NW = bags(known, words)
        held = np.arange(len(known)) % 10 == 9
        if held.all() or not held.any():
            return cls(words, _ridge(bins_NH, bags_NW, RIDGES[-1]))
        found = [_found(bins_NH[held] @ _ridge(bins_NH[~held], bags_NW[~held], ridge), bags_NW[held]) for ridge in RIDGES]
        return cls(words, _ridge(bins_NH, bags_NW, RIDGES[int(np.argmax(found))]))

    def ranked(self, gallery: Sequence[Described], first: int) -> list[list[int]]:
        """For each description, the numbers of the best pictures, best first."""
        scores_MM = bags(gallery, self.words) @ (histograms(gallery) @ self.map_HW).T
        return np.argsort(-scores_MM, axis=1, kind="stable")[:, :first].tolist()


def said(text: str) -> set[str]:
    """The telling words of a description."""
    return set(re.findall(r"[a-z]+", text.lower())) - COMMON


def histograms(pictures: Sequence[Described]) -> Floats:
    """The root of each colour's share, and a constant, (N, H)."""
    rows = np.zeros((len(pictures), BINS**3 + 1))
    for row, one in zip(rows, pictures, strict=True):
        cells_P3 = load_image(one.picture).pixels_HWC.reshape(-1, 3).astype(np.int64) * BINS // 256
        places_P = (cells_P3[:, 0] * BINS + cells_P3[:, 1]) * BINS + cells_P3[:, 2]
        row[:-1] = np.sqrt(np.bincount(places_P, minlength=BINS**3) / len(places_P))
        row[-1] = 1.0
    return rows


def bags(pictures: Sequence[Described], words: dict[str, int]) -> Floats:
    """The words of each description, of unit length; of unknown ones none, (N, W)."""
    rows = np.zeros((len(pictures), len(words)))
    for row, one in zip(rows, pictures, strict=True):
        row[[words[word] for word in said(one.text) if word in words]] = 1.0
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def ranked_by_names(gallery: Sequence[Described], first: int) -> list[list[int]]:
    """For each description, the numbers of the pictures whose colours are most those that it names, best first.

    The cosine of the colours it names and the roots of their shares of what is not white; one that names none fits all alike.
    """
    roots_MK = np.sqrt(named_shares(gallery))
    named_MK = np.zeros_like(roots_MK)
    for row, one in zip(named_MK, gallery, strict=True):
        row[[NAMES[word] for word in said(one.text) if word in NAMES]] = 1.0
    roots_MK /= np.maximum(np.linalg.norm(roots_MK, axis=1, keepdims=True), 1e-9)
    return np.argsort(-(named_MK @ roots_MK.T), axis=1, kind="stable")[:, :first].tolist()


def named_shares(pictures: Sequence[Described]) -> Floats:
    """The share of pixels that are nearest to each named colour; the rest is nearest to white, (M, K)."""
    middles = (np.arange(CELLS) + 0.5) * (256 / CELLS)
    cells_C13 = np.stack(np.meshgrid(middles, middles, middles, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    nearest_C = ((cells_C13 - np.array([*COLORS.values(), (255, 255, 255)])) ** 2).sum(axis=-1).argmin(axis=1)
    rows = np.zeros((len(pictures), len(COLORS)))
    for row, one in zip(rows, pictures, strict=True):
        cells_P3 = load_image(one.picture).pixels_HWC.reshape(-1, 3).astype(np.int64) * CELLS // 256
        names_P = nearest_C[(cells_P3[:, 0] * CELLS + cells_P3[:, 1]) * CELLS + cells_P3[:, 2]]
        row[:] = np.bincount(names_P, minlength=len(COLORS) + 1)[: len(COLORS)] / len(names_P)
    return rows


def _ridge(bins_NH: Floats, bags_NW: Floats, ridge: float) -> Floats:
    gram_HH = bins_NH.T @ bins_NH
    gram_HH += np.eye(len(gram_HH)) * (ridge * np.trace(gram_HH) / len(gram_HH))
    return np.linalg.solve(gram_HH, bins_NH.T @ bags_NW)


def _found(made_MW: Floats, bags_MW: Floats) -> float:
    """Share of pictures that are among the first for their own words."""
    scores_MM = bags_MW @ made_MW.T
    better_M = (scores_MM > np.diag(scores_MM)[:, None]).sum(axis=1)
    return float((better_M < FIRST).mean())
