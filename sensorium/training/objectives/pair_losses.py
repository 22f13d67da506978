"""Losses over a batch of pictures and their captions, told apart from all other pairs of it.

Sources: CLIP (arXiv:2103.00020) for contrast within a batch; ALBEF (arXiv:2107.07651) for negatives that are
drawn where they are hardest to tell apart.

Shape legend: M pairs of picture and caption, S words, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

UNWANTED = -100


def contrast_loss(scores_MM: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of finding a picture's caption and a caption's picture.

    Args:
        scores_MM: of picture (row) and caption (column), already divided by the temperature.
        smoothing: share of the target that is spread over the whole batch.
    """
    own_M = torch.arange(len(scores_MM), device=scores_MM.device)
    captions = F.cross_entropy(scores_MM, own_M, label_smoothing=smoothing)
    pictures = F.cross_entropy(scores_MM.T, own_M, label_smoothing=smoothing)
    return (captions + pictures) / 2


def draw_negatives(scores_MM: Tensor) -> Tensor:
    """For each row a column that is not its own, drawn from the softmax of its scores, (M,).

    At least two rows are needed.
    """
    own_MM = torch.eye(len(scores_MM), dtype=torch.bool, device=scores_MM.device)
    chances_MM = scores_MM.detach().float().masked_fill(own_MM, -torch.inf).softmax(dim=-1)
    return torch.multinomial(chances_MM, 1)[:, 0]


def matching_loss(logits_N2: Tensor, pairs: int) -> Tensor:
    """Cross-entropy of telling pairs that belong together, the first `pairs` rows, from the rest."""
    target_N = (torch.arange(len(logits_N2), device=logits_N2.device) < pairs).long()
    return F.cross_entropy(logits_N2, target_N)


def caption_loss(logits_MSV: Tensor, ids_MS: Tensor, real_MS: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of every real word given those before it; nothing predicts the first."""
    target_MS = ids_MS.masked_fill(~real_MS, UNWANTED)[:, 1:]
    return F.cross_entropy(logits_MSV[:, :-1].flatten(0, 1), target_MS.flatten(),
                           ignore_index=UNWANTED, label_smoothing=smoothing)  # fmt: skip
