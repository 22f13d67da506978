"""Losses over pairs of pictures and captions, by hand and by chance."""

from __future__ import annotations

import math

import torch

from sensorium.training.objectives.pair_losses import (
    caption_loss,
    contrast_loss,
    draw_negatives,
    matching_loss,
)


def test_contrast_of_two_by_hand() -> None:
    """Rows give log-probabilities of captions, columns of pictures; a tenth of a target is shared."""
    scores = torch.tensor([[2.0, 0.0], [1.0, 3.0]])

    def loss(own: float, other: float) -> float:
        total = math.log(math.exp(own) + math.exp(other))
        return 0.95 * (total - own) + 0.05 * (total - other)

    rows = (loss(2, 0) + loss(3, 1)) / 2
    columns = (loss(2, 1) + loss(3, 0)) / 2
    assert abs(float(contrast_loss(scores, 0.1)) - (rows + columns) / 2) < 1e-6
    assert float(contrast_loss(100 * torch.eye(5))) < 1e-6


def test_negatives_are_others_and_the_hard_ones() -> None:
    scores = torch.zeros(4, 4)
    scores[:, 2] = 3.0
    drawn = torch.stack([draw_negatives(scores) for _ in range(400)])
    for row in range(4):
        assert row not in drawn[:, row]
    # Of a softmax over the three others: e^3 / (e^3 + 2).
    share = float((drawn[:, 0] == 2).float().mean())
    assert abs(share - math.exp(3) / (math.exp(3) + 2)) < 0.06
    # However sure a row is of itself, another one is drawn.
    assert draw_negatives(1e4 * torch.eye(2)).tolist() == [1, 0]


def test_matching_counts_the_first_rows_as_pairs() -> None:
    sure = torch.tensor([[-9.0, 9.0], [9.0, -9.0], [9.0, -9.0]])
    assert float(matching_loss(sure, 1)) < 1e-6
    assert float(matching_loss(sure, 3)) > 11


def test_captions_skip_padding_and_the_first_word() -> None:
    ids = torch.tensor([[7, 1, 2], [7, 3, 0]])
    real = torch.tensor([[True, True, True], [True, True, False]])
    logits = torch.full((2, 3, 8), -20.0)
    for row, place, word in ((0, 0, 1), (0, 1, 2), (1, 0, 3)):
        logits[row, place, word] = 20.0
    assert float(caption_loss(logits, ids, real)) < 1e-6
    logits[1, 0, 3] = -20.0
    assert abs(float(caption_loss(logits, ids, real)) - math.log(8) / 3) < 1e-5
