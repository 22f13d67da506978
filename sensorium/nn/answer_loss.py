"""Cross-entropy through a vocabulary head, with its gradients taken while scores are at hand.

What a head of 49,152 words costs beside its matrix products is memory: scores, their softmax and its gradient, each as large as all
answers times all words. Here words come in blocks, as keys do in flash attention (arXiv:2205.14135): a block's scores become powers while
the cache holds them, are mixed with the same words for the gradient of the states, and are forgotten; sums that were taken below an
earlier maximum are scaled down when a higher one comes. Where the head learns, the powers of all blocks stay until the sums are known. A GPU, which
holds no block of use in its caches, takes all words of a chunk at once. So nothing of the vocabulary's width is kept for the backward pass. (Gradients in the forward pass: Liger Kernel's fused linear cross-entropy, arXiv:2410.10989.)

Shape legend: N learned tokens, D width, V vocabulary, C tokens of a chunk, W words of a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sensorium.nn.compute_dtype import compute_dtype
from sensorium.nn.onednn import can_multiply, product, reads_weights_as_they_lie

BUFFER_SCORES = 1 << 25
"""Powers in memory at a time (128 MB in fp32) where the head learns."""
BUFFER_SCORES_GPU = 1 << 27
"""Scores there: 512 MB in fp32."""
BLOCK_WORDS = 512
"""Of a block on a CPU, whose second cache then holds the scores of some hundred tokens."""
CHUNK_TOKENS = 1024
"""At a time where the head is frozen."""
LOG2E = math.log2(math.e)


class AnswerLoss(NamedTuple):
    """What learned tokens cost."""

    total: Tensor
    """The weighted sum, z-loss included."""
    losses_N: Tensor
    """Every token's own cross-entropy, unweighted and without a gradient."""
    logs_N: Tensor | None
    """log Z of every token's scores, Z being the sum of their exponentials; None: no z-loss."""


def answer_loss(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights_N: Tensor | None = None,
    *, scale: float = 1.0, z_loss: float = 0.0,
) -> AnswerLoss:  # fmt: skip
    """Cross-entropies of learned tokens.

    Args:
        hidden_ND: states in front of the learned tokens.
        weight_VD: the head, without bias.
        weights_N: what each token's loss is multiplied by; None: 1.
        scale: of the scores.
        z_loss: what (log Z)^2 of each token, added to its cross-entropy, is multiplied by.
    """
    dtype = compute_dtype(hidden_ND)
    if weights_N is None:
        weights_N = hidden_ND.new_ones(len(targets_N), dtype=torch.float32)
    return AnswerLoss(*_AnswerLoss.apply(hidden_ND, weight_VD, targets_N, weights_N, (scale, z_loss), dtype))  # pyright: ignore[reportGeneralTypeIssues]


class _AnswerLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, weights_N: Tensor,
        factors: tuple[float, float], dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        scale, z_loss = factors
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        with torch.autocast(hidden_ND.device.type, enabled=False):
            head = _Head(weight_VD.detach().to(dtype), scale, mix=wants_hidden, keep=wants_weight, logs=z_loss > 0)
            losses_N = hidden_ND.new_zeros(len(hidden_ND), dtype=torch.float32)
            logs_N = torch.zeros_like(losses_N) if z_loss else None
            grad_hidden = torch.empty_like(hidden_ND) if wants_hidden else None
            # Written by the first chunk.
            make = torch.empty_like if len(hidden_ND) else torch.zeros_like
            grad_weight = make(weight_VD) if wants_weight else None
            for part in _parts(len(hidden_ND), hidden_ND, len(weight_VD), keep=wants_weight):
                hidden_CD, targets_C, scales_C1 = hidden_ND[part].detach().to(dtype), targets_N[part], (weights_N[part] * scale)[:, None]
                read = (head.read if hidden_CD.device.type == "cpu" else head.read_at_once)(hidden_CD, targets_C)
                losses_N[part] = read.losses_C
                if logs_N is not None and read.logs_C is not None:
                    logs_N[part] = read.logs_C
                    read.steepen(z_loss)
                if grad_hidden is not None and read.mixed_CD is not None:
                    grad_hidden[part] = (read.mixed_CD - head.weight_VD[targets_C]) * scales_C1
                if grad_weight is not None:
                    read.teach(grad_weight, hidden_CD, targets_C, scales_C1, adds=part.start > 0)
        ctx.save_for_backward(grad_hidden, grad_weight)
        if logs_N is None:
            ctx.mark_non_differentiable(losses_N)
            return (losses_N * weights_N).sum(), losses_N, None
        ctx.mark_non_differentiable(losses_N, logs_N)
        return ((losses_N + z_loss * logs_N.square()) * weights_N).sum(), losses_N, logs_N

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        grad_total = grads[0]
        grad_hidden, grad_weight = ctx.saved_tensors
        # One pass over the head's gradient less where the loss goes straight into `backward()`.
        if grad_total.device.type != "cpu" or float(grad_total) != 1.0:
            grad_hidden = None if grad_hidden is None else grad_hidden * grad_total.to(grad_hidden.dtype)
            grad_weight = None if grad_weight is None else grad_weight * grad_total.to(grad_weight.dtype)
        return grad_hidden, grad_weight, None, None, None, None


def _parts(count: int, hidden_ND: Tensor, words: int, *, keep: bool) -> Iterator[slice]:
    """As many chunks of tokens as needed, all about equally long: matrix products of few rows are slow."""
    if hidden_ND.device.type != "cpu":
        most = BUFFER_SCORES_GPU // words
    else:
        most = BUFFER_SCORES // words if keep else CHUNK_TOKENS
    size = max(1, -(-count // max(1, -(-count // max(1, most)))))
    return (slice(start, min(count, start + size)) for start in range(0, count, size))


@dataclass
class _Read:
    """What a chunk of tokens found in the vocabulary."""

    losses_C: Tensor
    mixed_CD: Tensor | None
    """Words, weighted by their probabilities; None: not asked for."""
    kept: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)
    """Of each block its first word, its powers (C, W), and what makes probabilities of them (C, 1)."""
    logs_C: Tensor | None = None
    """log Z; None: not asked for."""

    def steepen(self, z_loss: float) -> None:
        """Make the gradients those with `z_loss` (log Z)^2, whose own is every word's probability times 2 `z_loss` log Z."""
        assert self.logs_C is not None
        steeper_C1 = (1 + 2 * z_loss * self.logs_C)[:, None]
        self.mixed_CD = None if self.mixed_CD is None else self.mixed_CD * steeper_C1
        self.kept = [(first, powers_CW, share_C1 * steeper_C1) for first, powers_CW, share_C1 in self.kept]

    def teach(self, grad_VD: Tensor, hidden_CD: Tensor, targets_C: Tensor, scales_C1: Tensor, *, adds: bool) -> None:
        """Write, or add, the gradient of the head: each word's states, weighted by its probability, less those in front of it."""
        scaled_CD = hidden_CD * scales_C1
        for first, powers_CW, share_C1 in self.kept:
            words_WD, states_CD = grad_VD[first : first + powers_CW.shape[1]], (scaled_CD * share_C1).to(hidden_CD.dtype)
            if not adds and grad_VD.dtype == hidden_CD.dtype:
                torch.mm(powers_CW.t(), states_CD, out=words_WD)
            elif not adds:
                words_WD.copy_(powers_CW.t() @ states_CD)
            elif grad_VD.dtype == hidden_CD.dtype:
                words_WD.addmm_(powers_CW.t(), states_CD)
            else:
                words_WD.add_(powers_CW.t() @ states_CD)
        grad_VD.index_add_(0, targets_C, scaled_CD.to(grad_VD.dtype), alpha=-1)


@dataclass
class _Head:
    """A vocabulary that is read in blocks."""

    weight_VD: Tensor
    scale: float
    mix: bool
    keep: bool
    logs: bool = False
    """Whether log Z is asked for."""

    def read_at_once(self, hidden_CD: Tensor, targets_C: Tensor) -> _Read:
        """The same with all scores in memory, in as few passes over them as torch has kernels for."""
        scores_CV = hidden_CD @ self.weight_VD.t()
        if self.scale != 1.0:
            scores_CV = scores_CV.float().mul_(self.scale)
        # Half precision goes in, and fp32 comes out, of one kernel.
        logs_CV = torch.log_softmax(scores_CV, dim=-1, dtype=torch.float32)
        losses_C = -logs_CV.gather(1, targets_C[:, None])[:, 0]
        # A word's score is its log probability and log Z.
        logs_C = scores_CV.gather(1, targets_C[:, None])[:, 0].float() + losses_C if self.logs else None
        del scores_CV
        if not self.mix and not self.keep:
            return _Read(losses_C, None, logs_C=logs_C)
        shares_CV = logs_CV.exp_().to(hidden_CD.dtype)
        mixed_CD = (shares_CV @ self.weight_VD).float() if self.mix else None
        return _Read(losses_C, mixed_CD, [(0, shares_CV, losses_C.new_ones(len(losses_C), 1))] if self.keep else [], logs_C)

    def read(self, hidden_CD: Tensor, targets_C: Tensor) -> _Read:
        """Losses of a chunk, and what its gradients need.

        Scores are logarithms to the base of two, because torch computes powers of two three times as fast as those of e; in fp32 their
        factor goes into the states, where half precision would round them.
        """
        factor, exact = self.scale * LOG2E, hidden_CD.dtype == torch.float32
        states_CD = hidden_CD * factor if exact else hidden_CD
        words, count = len(self.weight_VD), len(hidden_CD)
        wide_C1 = hidden_CD.new_zeros(count, 1, dtype=torch.float32)
        top_C1, sum_C1, target_C1, mixed_CD = wide_C1 - math.inf, wide_C1, wide_C1, None
        kept: list[tuple[int, Tensor, Tensor]] = []
        for first in range(0, words, BLOCK_WORDS):
            words_WD = self.weight_VD[first : first + BLOCK_WORDS]
            shape = (count, len(words_WD))
            scores_CW = _times(states_CD, words_WD)
            if not exact:
                scores_CW = scores_CW.float().mul_(factor)
            within_C1 = (targets_C[:, None] - first).clamp(0, shape[1] - 1)
            here_C1 = (targets_C[:, None] - first) == within_C1
            target_C1 = torch.where(here_C1, scores_CW.gather(1, within_C1), target_C1)
            higher_C1 = torch.maximum(top_C1, scores_CW.amax(1, keepdim=True))
            shrink_C1, top_C1 = torch.exp2(top_C1 - higher_C1), higher_C1
            powers_CW = scores_CW.sub_(top_C1).exp2_()
            sum_C1 = sum_C1 * shrink_C1 + powers_CW.sum(1, keepdim=True)
            powers_CW = powers_CW.to(hidden_CD.dtype)
            if self.mix:
                mixed_CD = _mixed(mixed_CD, shrink_C1, powers_CW, words_WD)
            if self.keep:
                kept.append((first, powers_CW, top_C1))
        whole_C1 = top_C1 + sum_C1.log2()
        kept = [(first, powers_CW, torch.exp2(top - whole_C1)) for first, powers_CW, top in kept]
        logs_C = whole_C1[:, 0] / LOG2E if self.logs else None
        return _Read((whole_C1 - target_C1)[:, 0] / LOG2E, None if mixed_CD is None else mixed_CD / sum_C1, kept, logs_C)


def _mixed(sum_CD: Tensor | None, shrink_C1: Tensor, powers_CW: Tensor, words_WD: Tensor) -> Tensor:
    """Words, weighted by their powers, of one more block."""
    more_CD = _times(powers_CW, words_WD.t()).float()
    return more_CD if sum_CD is None else sum_CD.mul_(shrink_C1).add_(more_CD)


def _times(x_NI: Tensor, weight_OI: Tensor) -> Tensor:
    """x weight^T."""
    return product(x_NI, weight_OI) if reads_weights_as_they_lie() and can_multiply(x_NI) else x_NI @ weight_OI.t()
