"""How well masks are found: gIoU and cIoU, as reasoning segmentation is scored.

Source: LISA (arXiv:2308.00692), train_ds.py. There a mask's intersection is divided by its union plus 1e-5, which moves
no printed digit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sensorium.core.masks import Mask

Overlap = tuple[int, int]
"""Pixels of the intersection and of the union of a found mask and the true one."""


def g_iou(overlaps: Sequence[Overlap]) -> float:
    """The mean over pictures of intersection over union. Nothing found where there is nothing counts 1.

    Not the loss of the same name for boxes.
    """
    parts = [shared / either if either else 1.0 for shared, either in overlaps]
    return sum(parts) / len(parts) if parts else 0.0


def c_iou(overlaps: Sequence[Overlap]) -> float:
    """All intersections over all unions, so that large things weigh more."""
    either = sum(union for _, union in overlaps)
    return sum(shared for shared, _ in overlaps) / either if either else 0.0


def mask_scores(pairs: Iterable[tuple[Mask, Mask]]) -> dict[str, float]:
    """Both scores of pairs of a found mask and the true one.

    Raises:
        DataError: two masks of a pair have different sizes.
    """
    overlaps = [found.overlap(true) for found, true in pairs]
    return {"giou": g_iou(overlaps), "ciou": c_iou(overlaps)}
