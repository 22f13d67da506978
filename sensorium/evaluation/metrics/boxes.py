"""How well boxes are found: intersection over union, and the share of hits."""

from __future__ import annotations

from collections.abc import Sequence

from sensorium.core.boxes import Box

HIT = 0.5
"""Intersection over union from which on a box counts as found, itself included (RefCOCO's rule)."""


def area(box: Box) -> float:
    """Of a box with sides of 0: 0."""
    return (box.x1 - box.x0) * (box.y1 - box.y0)


def box_iou(first: Box, second: Box) -> float:
    """Intersection over union of two boxes in one unit; 0 where both are empty."""
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    shared = max(0.0, width) * max(0.0, height)
    either = area(first) + area(second) - shared
    return shared / either if either > 0 else 0.0


def box_scores(found: Sequence[Box | None], true: Sequence[Box], hit: float = HIT) -> dict[str, float]:
    """Accuracy and mean intersection over union; an answer without a box (None) is a miss."""
    parts = [0.0 if box is None else box_iou(box, wanted) for box, wanted in zip(found, true, strict=True)]
    count = max(1, len(parts))
    return {
        "accuracy": sum(part >= hit for part in parts) / count,
        "mean_iou": sum(parts) / count,
        "unparsed": sum(box is None for box in found) / count,
    }
