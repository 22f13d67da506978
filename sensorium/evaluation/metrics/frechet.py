"""Fréchet distance of two sets of feature vectors, each taken for a Gaussian (arXiv:1706.08500).

Shape legend: N vectors of a set, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sensorium.core.errors import DataError

Vectors = np.ndarray[Any, Any]


def frechet(first_ND: Vectors, second_ND: Vectors) -> float:
    """`|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`.

    Few vectors make it larger than many of the same kind would: compare only sets of equal sizes.

    Raises:
        DataError: a set of fewer than two vectors.
    """
    if min(len(first_ND), len(second_ND)) < 2:
        raise DataError(f"sets of {len(first_ND)} and {len(second_ND)} vectors", expected="two or more in each")
    first_ND, second_ND = first_ND.astype(np.float64), second_ND.astype(np.float64)
    apart_D = first_ND.mean(0) - second_ND.mean(0)
    first_DD, second_DD = np.cov(first_ND, rowvar=False), np.cov(second_ND, rowvar=False)
    # The square root of C1 C2 has the trace of that of C1^(1/2) C2 C1^(1/2), which is symmetric.
    root_DD = _root(np.atleast_2d(first_DD))
    middle_DD = root_DD @ np.atleast_2d(second_DD) @ root_DD
    shared = np.sqrt(np.linalg.eigvalsh((middle_DD + middle_DD.T) / 2).clip(min=0)).sum()
    return float(max(0.0, apart_D @ apart_D + np.trace(np.atleast_2d(first_DD)) + np.trace(np.atleast_2d(second_DD)) - 2 * shared))


def _root(matrix_DD: Vectors) -> Vectors:
    """The symmetric square root of a covariance."""
    values_D, vectors_DD = np.linalg.eigh(matrix_DD)
    return (vectors_DD * np.sqrt(values_D.clip(min=0))) @ vectors_DD.T
