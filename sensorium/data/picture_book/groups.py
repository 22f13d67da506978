"""Near-duplicates: pictures that look alike, or that one author drew as a series.

A whole group goes to one split, so that no held-out picture has a twin in training.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

HASH_SIDE = 16
# Of 256 bits. Unrelated pictures of the set differ in 60 to 150.
MAX_BITS_APART = 24


def difference_hash(picture: PILImage.Image) -> NDArray[np.bool_]:
    """256 bits: is each cell of a small grey picture brighter than its right neighbour?"""
    grey = picture.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), PILImage.Resampling.BOX)
    values = np.asarray(grey, dtype=np.int16)
    # A margin keeps flat areas from flipping with compression noise.
    return (values[:, 1:] - values[:, :-1] > 4).ravel()


def group_pictures(hashes: NDArray[np.bool_], series: list[str]) -> list[int]:
    """Group numbers: union of looking alike and of equal, non-empty `series` keys.

    Args:
        hashes: (M, bits) of `difference_hash`.
        series: M keys; pictures with the same key belong together.
    """
    parent = list(range(len(series)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[str, int] = {}
    for i, key in enumerate(series):
        if key:
            parent[find(i)] = find(first.setdefault(key, i))
    bits = hashes.astype(np.float32)
    ones = bits.sum(axis=1)
    for start in range(0, len(bits), 512):
        block = bits[start : start + 512]
        apart = ones[start : start + 512, None] + ones[None, :] - 2 * block @ bits.T
        rows, cols = np.nonzero(apart <= MAX_BITS_APART)
        for row, col in zip(rows.tolist(), cols.tolist(), strict=True):
            # Nearly blank hashes say nothing about likeness.
            if row + start < col and min(ones[row + start], ones[col]) > 8:
                parent[find(row + start)] = find(col)
    return [find(i) for i in range(len(series))]
