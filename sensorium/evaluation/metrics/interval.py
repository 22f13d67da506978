"""Confidence intervals of proportions."""

from __future__ import annotations

import math

Z95 = 1.959963984540054


def wilson(successes: float, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval (E. B. Wilson, 1927) of a proportion, in [0, 1].

    Sound for small samples and near 0 and 1, where the normal interval is not.
    """
    if total == 0:
        return 0.0, 1.0
    p = successes / total
    z2 = Z95**2 / total
    centre = (p + z2 / 2) / (1 + z2)
    half = Z95 * math.sqrt(p * (1 - p) / total + z2 / (4 * total)) / (1 + z2)
    # At the ends the bound is exact; rounding would leave it a hair inside.
    low = 0.0 if successes <= 0 else max(0.0, centre - half)
    high = 1.0 if successes >= total else min(1.0, centre + half)
    return low, high
