"""Losses over pairs of pictures and captions, by hand and by chance."""

from __future__ import annotations

import math

import pytest
import torch

from sensorium.nn.contrastive import (
    caption_loss,
    hard_negatives,
    matching_loss,
    soft_targets,
    softmax_contrast,
)


def test_contrast_of_two_by_hand() -> None:
    """Rows give log-probabilities of captions, columns of pictures; a tenth of a target is shared."""
    scores = torch.tensor([[2.0, 0.0], [1.0, 3.0]])

    def loss(own: float, other: float) -> float:
        total = math.log(math.exp(own) + math.exp(other))
        return 0.95 * (total - own) + 0.05 * (total - other)

    rows = (loss(2, 0) + loss(3, 1)) / 2
    columns = (loss(2, 1) + loss(3, 0)) / 2
    assert abs(float(softmax_contrast(scores, scores.T, smoothing=0.1)) - (rows + columns) / 2) < 1e-6
    assert float(softmax_contrast(*2 * [100 * torch.eye(5)])) < 1e-6


def test_negatives_are_others_and_the_hard_ones() -> None:
    scores = torch.zeros(4, 4)
    scores[:, 2] = 3.0
    drawn = torch.stack([hard_negatives(scores) for _ in range(400)])
    for row in range(4):
        assert row not in drawn[:, row]
    # Of a softmax over the three others: e^3 / (e^3 + 2).
    share = float((drawn[:, 0] == 2).float().mean())
    assert abs(share - math.exp(3) / (math.exp(3) + 2)) < 0.06
    # However sure a row is of itself, another one is drawn.
    assert hard_negatives(1e4 * torch.eye(2)).tolist() == [1, 0]


def test_a_floor_gives_every_wrong_one_a_chance() -> None:
    scores = torch.tensor([[0.0, 90.0, 0.0]]).expand(3, 3)
    sure = torch.stack([hard_negatives(scores) for _ in range(50)])
    assert set(sure[:, 0].tolist()) == {1}
    drawn = torch.stack([hard_negatives(scores, floor=1.0) for _ in range(600)])
    # 1 + 1 against 0 + 1.
    assert abs(float((drawn[:, 0] == 1).float().mean()) - 2 / 3) < 0.07


def test_partners_that_are_right_too_are_neither_drawn_nor_wrong() -> None:
    """The first two pairs are two captions of one picture; so is the last candidate."""
    right = torch.tensor([[1, 1, 0, 1], [1, 1, 0, 1], [0, 0, 1, 0]]).bool()
    for _ in range(20):
        assert hard_negatives(torch.randn(3, 3), right_NN=right[:, :3])[:2].tolist() == [2, 2]
    targets = soft_targets(torch.zeros(3, 4), 0.4, right)
    torch.testing.assert_close(targets[0], torch.tensor([0.3, 0.3, 0.1, 0.3]))
    torch.testing.assert_close(targets[2], torch.tensor([0.1, 0.1, 0.7, 0.1]))
    with pytest.raises(ValueError, match="not alike"):
        hard_negatives(torch.zeros(2, 2), right_NN=right[:2, :2])


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
