"""Losses over scores of pictures and texts that belong together in pairs.

Sources: CLIP (arXiv:2103.00020), softmax over a batch; SigLIP (arXiv:2303.15343), a sigmoid for each
pair; ALBEF (arXiv:2107.07651) and BLIP (arXiv:2201.12086), soft targets from a slower copy of the
model, more negatives from a queue, and hard negatives for matching.

Shape legend: N pairs, K candidates: the N partners in the order of the pairs, then any others; M pairs and
wrong pairs, Q queries, E width, S words, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

UNWANTED = -100


def softmax_contrast(
    to_texts_NK: Tensor,
    to_pictures_NK: Tensor,
    *,
    targets: tuple[Tensor, Tensor] | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of finding each picture's text and each text's picture, averaged; CLIP's loss.

    Args:
        to_texts_NK: scores of every picture with all texts.
        to_pictures_NK: scores of every text with all pictures; without others the transpose.
        targets: both directions' probabilities (N, K), where partners alone are not right.
        smoothing: share of each target spread evenly over all candidates.
    """
    ways = (to_texts_NK, to_pictures_NK)
    wanted = targets or tuple(partners(scores_NK) for scores_NK in ways)
    losses = [
        F.cross_entropy(scores_NK.float(), target_NK.to(scores_NK.device), label_smoothing=smoothing)
        for scores_NK, target_NK in zip(ways, wanted, strict=True)
    ]
    return (losses[0] + losses[1]) / 2


def sigmoid_contrast(scores_NN: Tensor) -> Tensor:
    """Negative log-likelihood of every pair being a match or none, summed over a picture's texts and
    averaged over pictures; SigLIP's loss."""
    signs_NN = 2 * partners(scores_NN) - 1
    return -F.logsigmoid(signs_NN * scores_NN.float()).sum(dim=-1).mean()


def partners(scores_NK: Tensor) -> Tensor:
    """Probabilities that are 1 for each one's own partner, (N, K)."""
    return torch.eye(*scores_NK.shape, device=scores_NK.device)


def soft_targets(slow_scores_NK: Tensor, share: float, right_NK: Tensor | None = None) -> Tensor:
    """What a slower copy of the model finds right, mixed with what is right, (N, K).

    Args:
        share: of the slower copy (BLIP's alpha).
        right_NK: True for every candidate that is right; None: for partners alone.
    """
    believed_NK = slow_scores_NK.detach().float().softmax(dim=-1)
    true_NK = partners(slow_scores_NK) if right_NK is None else right_NK.to(believed_NK)
    return share * believed_NK + (1 - share) * true_NK / true_NK.sum(dim=-1, keepdim=True)


def hard_negatives(
    scores_NN: Tensor, *, floor: float = 0.0, right_NN: Tensor | None = None
) -> Tensor:
    """For each one a wrong partner in the batch, drawn by how right it looks, (N,).

    Args:
        floor: added to every probability, those of right ones included, before these are left out (BLIP's
            pretraining: 1e-4).
        right_NN: True for every partner that is right; None: for its own alone.

    Raises:
        ValueError: one of them has no wrong partner.
    """
    right_NN = partners(scores_NN).bool() if right_NN is None else right_NN
    if bool(right_NN.all(dim=-1).any()):
        raise ValueError("hard negatives need at least two pairs in a batch that are not alike")
    scores_NN = scores_NN.detach().float()
    if not floor:
        # The same chances; however sure one is of its own, there is something to draw.
        scores_NN = scores_NN.masked_fill(right_NN, -torch.inf)
    weights_NN = scores_NN.softmax(dim=-1) + floor
    return torch.multinomial(weights_NN.masked_fill(right_NN, 0.0), 1).squeeze(1)


def matching_loss(logits_M2: Tensor, pairs: int) -> Tensor:
    """Cross-entropy of telling pairs that belong together, the first `pairs` rows, from the rest."""
    target_M = (torch.arange(len(logits_M2), device=logits_M2.device) < pairs).long()
    return F.cross_entropy(logits_M2.float(), target_M)


def caption_loss(logits_NSV: Tensor, ids_NS: Tensor, real_NS: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of every real word given those before it; nothing predicts the first."""
    target_NS = ids_NS.masked_fill(~real_NS, UNWANTED)[:, 1:]
    return F.cross_entropy(logits_NSV[:, :-1].flatten(0, 1).float(), target_NS.flatten(),
                           ignore_index=UNWANTED, label_smoothing=smoothing)  # fmt: skip


def with_queue(own_NJ: Tensor, queue_QJ: Tensor) -> Tensor:
    """Candidates: the batch's own embeddings in front of remembered ones, which learn nothing."""
    return torch.cat([own_NJ, queue_QJ.detach().to(own_NJ)])


def enqueue(queue_QJ: Tensor, pointer: int, new_NJ: Tensor) -> int:
    """Write embeddings over the oldest of a ring, in place.

    Args:
        pointer: the oldest one's place.

    Returns:
        The new oldest one's place.
    """
    size = len(queue_QJ)
    new_NJ = new_NJ[-size:]
    places = (pointer + torch.arange(len(new_NJ), device=queue_QJ.device)) % size
    with torch.no_grad():
        queue_QJ[places] = new_NJ.detach().to(queue_QJ)
    return (pointer + len(new_NJ)) % size


def image_text_scores(image_MQE: Tensor, text_NE: Tensor) -> Tensor:
    """Cosine of each picture (row) and text (column) by the query that fits best, (M, N), of unit vectors:
    BLIP-2's (arXiv:2301.12597)."""
    return torch.einsum("mqe,ne->mnq", image_MQE, text_NE).amax(dim=-1)
