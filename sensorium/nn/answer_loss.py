"""Cross-entropy through a vocabulary head, chunk by chunk, with the gradients of each chunk taken while its
scores are at hand.

What a head of 49,152 words costs beside its three matrix products is memory: scores, their softmax and
its gradient, each as large as all answers times all words. Here one chunk of scores exists at a time, in one
buffer that becomes its own gradient in place, so that nothing of the vocabulary's width is kept for the backward
pass. (The idea of taking gradients in the forward pass is that of Liger Kernel's fused linear cross-entropy, arXiv:2410.10989.)

Shape legend: N learned tokens, D width, V vocabulary, C tokens of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BUFFER_SCORES = 1 << 24
"""Scores that are in memory at a time (64 MB in fp32)."""
FAINT = 1e-30
"""A probability below this has lost digits, or all of them."""


def answer_loss(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights_N: Tensor | None = None,
    *, scale: float = 1.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The weighted sum of cross-entropies, and every token's own, unweighted and without a gradient.

    Args:
        hidden_ND: states in front of the learned tokens.
        weight_VD: the head, without bias.
        weights_N: what each token's loss is multiplied by; None: 1.
        scale: of the scores.
    """
    dtype = _compute_dtype(hidden_ND)
    if weights_N is None:
        weights_N = hidden_ND.new_ones(len(targets_N), dtype=torch.float32)
    return _AnswerLoss.apply(hidden_ND, weight_VD, targets_N, weights_N, scale, dtype)  # pyright: ignore[reportReturnType]


def _compute_dtype(hidden_ND: Tensor) -> torch.dtype:
    kind = hidden_ND.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_ND.dtype


class _AnswerLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights_N: Tensor,
        scale: float, dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        words, count = len(weight_VD), len(hidden_ND)
        chunk = max(1, min(count, BUFFER_SCORES // words))
        # As many chunks as needed, all about equally long: matrix products of few rows are slow.
        chunk = -(-count // -(-count // chunk)) if count else 1
        with torch.autocast(hidden_ND.device.type, enabled=False):
            weight = weight_VD.detach().to(dtype)
            buffer = hidden_ND.new_empty(chunk, words, dtype=dtype)
            losses_N = hidden_ND.new_zeros(count, dtype=torch.float32)
            grad_hidden = torch.empty_like(hidden_ND) if wants_hidden else None
            grad_weight: Tensor | None = torch.zeros_like(weight_VD) if wants_weight and not count else None
            for start in range(0, count, chunk):
                part = slice(start, min(count, start + chunk))
                hidden_CD = hidden_ND[part].detach().to(dtype)
                scores_CV = torch.mm(hidden_CD, weight.t(), out=buffer[: len(hidden_CD)])
                losses_N[part], scores_CV = _loss_and_gradient(
                    scores_CV, targets_N[part], scale, wants_hidden or wants_weight)  # fmt: skip
                if not (wants_hidden or wants_weight):
                    continue
                gradient_CV = scores_CV.mul_((weights_N[part] * scale)[:, None]).to(dtype)
                if grad_hidden is not None:
                    grad_hidden[part] = gradient_CV @ weight
                if wants_weight:
                    grad_weight = _added(grad_weight, gradient_CV, hidden_CD, weight_VD.dtype)
        ctx.save_for_backward(grad_hidden, grad_weight)
        total = (losses_N * weights_N).sum()
        ctx.mark_non_differentiable(losses_N)
        return total, losses_N

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        grad_total = grads[0]
        grad_hidden, grad_weight = ctx.saved_tensors
        # One pass over the head's gradient less where the loss goes straight into `backward()`.
        if grad_total.device.type != "cpu" or float(grad_total) != 1.0:
            grad_hidden = None if grad_hidden is None else grad_hidden * grad_total.to(grad_hidden.dtype)
            grad_weight = None if grad_weight is None else grad_weight * grad_total.to(grad_weight.dtype)
        return grad_hidden, grad_weight, None, None, None, None


def _loss_and_gradient(
    scores_CV: Tensor, targets_C: Tensor, scale: float, wants_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Each token's cross-entropy, and softmax minus target, in the scores' own memory where they are fp32."""
    if scores_CV.dtype != torch.float32:
        scores_CV = scores_CV.float()
    if scale != 1.0:
        scores_CV.mul_(scale)
    target_C, top_C = scores_CV.gather(1, targets_C[:, None])[:, 0], scores_CV.amax(dim=1)
    torch.softmax(scores_CV, dim=1, out=scores_CV)
    chance_C = scores_CV.gather(1, targets_C[:, None])[:, 0]
    losses_C = -chance_C.log()
    faint = (chance_C < FAINT).nonzero()[:, 0]
    if len(faint):
        # The largest probability is at least 1 / V: its logarithm leads to the sum of all.
        losses_C[faint] = top_C[faint] - scores_CV[faint].amax(dim=1).log() - target_C[faint]
    if wants_gradient:
        scores_CV.scatter_add_(1, targets_C[:, None], scores_CV.new_full((len(targets_C), 1), -1.0))
    return losses_C, scores_CV


def _added(sum_VD: Tensor | None, gradient_CV: Tensor, hidden_CD: Tensor, dtype: torch.dtype) -> Tensor:
    """The head's gradient with that of one more chunk."""
    if sum_VD is None:
        return (gradient_CV.t() @ hidden_CD).to(dtype)
    if sum_VD.dtype == hidden_CD.dtype:
        return sum_VD.addmm_(gradient_CV.t(), hidden_CD)
    return sum_VD.add_(gradient_CV.t() @ hidden_CD)
