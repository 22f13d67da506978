"""Scores of yes/no answers; `yes` is the positive class, as POPE has it."""

from __future__ import annotations

from collections.abc import Sequence


def binary_scores(
    predicted: Sequence[str | None], gold: Sequence[str]
) -> dict[str, float]:
    """Accuracy, precision, recall, F1, balanced accuracy, yes-ratio of predictions.

    An unparsed prediction (None) is wrong and counts as neither yes nor no.
    """
    pairs = list(zip(predicted, gold, strict=True))
    tp = sum(p == "yes" and g == "yes" for p, g in pairs)
    fp = sum(p == "yes" and g == "no" for p, g in pairs)
    tn = sum(p == "no" and g == "no" for p, g in pairs)
    positives = sum(g == "yes" for _, g in pairs)
    negatives = len(pairs) - positives
    precision = _ratio(tp, tp + fp)
    recall = _ratio(tp, positives)
    return {
        "accuracy": _ratio(tp + tn, len(pairs)),
        "balanced_accuracy": (recall + _ratio(tn, negatives)) / 2,
        "precision": precision,
        "recall": recall,
        "f1": _ratio(2 * precision * recall, precision + recall),
        "yes_ratio": _ratio(tp + fp, len(pairs)),
        "unparsed": _ratio(sum(p is None for p, _ in pairs), len(pairs)),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
