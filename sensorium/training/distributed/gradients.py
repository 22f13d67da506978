"""Gradients of all ranks, summed once a step.

Not `torch.nn.parallel.DistributedDataParallel`: it sums while the backward pass runs, so all ranks must make equally many
passes and reach the same parameters, or wait for ever. Here a rank with text alone never reaches the projector, and memory
may ask one rank for more passes than another. DDP's `no_sync` with a last synchronised pass would still need that pass to
exist on every rank. Summing afterwards gives up the overlap with the backward pass, which accumulation gives up, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.nn import Parameter

from sensorium.training.distributed.ranks import Ranks

BUCKET = 32 * 2**20
"""Bytes that are summed at a time: few calls, and little memory beside the gradients."""


def reached(parameters: Sequence[Parameter]) -> str:
    """Which parameters have a gradient, as a number in hexadecimal, for `Ranks.gather`."""
    return f"{sum(1 << i for i, p in enumerate(parameters) if p.grad is not None):x}"


def sum_gradients(ranks: Ranks, parameters: Sequence[Parameter], masks: Sequence[str]) -> None:
    """Replace gradients by their sums over all ranks.

    A parameter that another rank alone reached has zeros here; one that none reached keeps no gradient, so that the
    optimiser passes over it as it would in one process.

    Args:
        parameters: in the same order on all ranks.
        masks: of every rank, its `reached`.
    """
    if ranks.world_size == 1:
        return
    anywhere = 0
    for mask in masks:
        anywhere |= int(mask, 16)
    for bucket in _buckets([p for i, p in enumerate(parameters) if anywhere >> i & 1]):
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        ranks.sum_(flat)
        for parameter, grad, summed in zip(bucket, grads, flat.split([g.numel() for g in grads]), strict=True):
            parameter.grad = grad.copy_(summed.view_as(grad))


def _buckets(parameters: Sequence[Parameter]) -> Iterator[list[Parameter]]:
    """Neighbours of one type, up to `BUCKET` bytes together."""
    bucket: list[Parameter] = []
    size = 0
    for parameter in parameters:
        bytes_ = parameter.numel() * parameter.element_size()
        if bucket and (size + bytes_ > BUCKET or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += bytes_
    if bucket:
        yield bucket
