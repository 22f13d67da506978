"""The decoder's layers as one recording that a GPU plays back: a CUDA graph of their forward passes and one of their backward passes.

A step over packed rows of a small model is thousands of kernels that take microseconds each, and a processor that starts them one by one
keeps the GPU waiting. A recording is started once. It plays the same shapes on the same memory every time, so rows are laid out to one
length here: padding stays where it is, as samples of its own that nobody reads, and the list of samples has room for
more. Where a batch needs more room than the recording has, it is recorded anew. The last layer, which works on wanted tokens alone, follows it.

Shape legend: B rows, T tokens of a row, N tokens of all rows, M wanted ones, D width, E width of a head, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.backbones.layer_halves import Halves, back_half, front_half
from sensorium.backbones.lean_layer import is_plain
from sensorium.core.quiet import GPU_CALLS
from sensorium.nn.varlen_attention import can_varlen, varlen_attention

ROOM, STEP = 1.25, 32
"""The list of samples is so much longer than needed, in steps of so many."""
SHORTEST = 128
"""Of the lengths that a longest sample is rounded up to, by powers of two; padding's pieces are as long at most."""


@dataclass(frozen=True, slots=True)
class Span:
    """The samples of rows laid end to end, padding among them."""

    bounds_S1: Tensor
    """Where they begin and the last one ends; 32-bit integers, with empty samples at the end."""
    longest: int


def span_of(segments_BT: Tensor, least: Span | None = None) -> Span:
    """Every run of one sample's tokens is a sample, and padding is cut into short ones.

    Args:
        segments_BT: which sample of its row a token belongs to, from 1; 0 is padding.
        least: has room that is not to shrink.
    """
    rows, width = segments_BT.shape
    pieces_T = torch.arange(width, device=segments_BT.device) // SHORTEST + width + 1
    # Runs of different rows must not look alike where they meet.
    offsets_B1 = torch.arange(rows, device=segments_BT.device)[:, None] * (2 * width + 2)
    numbers_N = (torch.where(segments_BT > 0, segments_BT, pieces_T) + offsets_B1).flatten()
    _, counts_S = torch.unique_consecutive(numbers_N, return_counts=True)
    longest, samples = int(counts_S.max()), len(counts_S)
    room = 0 if least is None else len(least.bounds_S1) - 1
    if room < samples:
        room = -(-int(samples * ROOM) // STEP) * STEP
    ceiling = max(SHORTEST if least is None else least.longest, SHORTEST)
    while ceiling < longest:
        ceiling *= 2
    bounds_S1 = F.pad(counts_S.cumsum(0, dtype=torch.int32), (1, 0))
    return Span(F.pad(bounds_S1, (0, room - samples), value=rows * width), ceiling)


class Stack(nn.Module):
    """Decoder layers one behind the other, of states, angles and samples' bounds, all of one shape."""

    def __init__(self, layers: list[Any], halves: Halves, longest: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.halves = halves
        self.longest = longest

    def forward(self, hidden_1ND: Tensor, cos_1NE: Tensor, sin_1NE: Tensor, bounds_S1: Tensor) -> Tensor:
        front, back = self.halves
        for layer in self.layers:
            q, k, v = front(layer, hidden_1ND, cos_1NE, sin_1NE)
            scale: Any = layer.self_attn
            mixed_1NHE = varlen_attention(q, k, v, bounds_S1, self.longest, scale.scaling)
            hidden_1ND = back(layer, hidden_1ND, mixed_1NHE)
        return hidden_1ND


class Recorded:
    """The recording of one language model's layers, made when the first rows come."""

    def __init__(self, lm: Any, tokens: int, halves: Halves, *, several: bool) -> None:
        """Take a model of the families of `layer_halves.py`.

        Args:
            tokens: of all rows of a pass, padding included.
            several: passes are summed before gradients are used.
        """
        self.lm, self.tokens, self.halves = lm, tokens, halves
        *others, self.last = lm.base_model.layers
        self.layers: list[Any] = others
        self._span: Span | None = None
        self._stack: Any = None
        self._kind: tuple[Any, ...] = ()
        self._pool: Any = None
        self._sums: list[tuple[nn.Parameter, Tensor]] | None = [] if several else None

    def fits(self, embeds_BTD: Tensor, branches_BT: Tensor) -> bool:
        """Whether these rows can be played."""
        rows, width, _ = embeds_BTD.shape
        return (
            torch.is_grad_enabled() and rows * width <= self.tokens and self.tokens % rows == 0 and not bool(branches_BT.any())
            and can_varlen(embeds_BTD, self.last.self_attn.head_dim) and all(is_plain(layer) for layer in self.layers)
        )  # fmt: skip

    def run(self, embeds_BTD: Tensor, positions_BT: Tensor, segments_BT: Tensor, wanted_BT: Tensor | None) -> Tensor:
        """Last hidden states, (B, T, D); zero at what is not wanted."""
        rows, width, _ = embeds_BTD.shape
        more = self.tokens // rows - width
        embeds_BTD, positions_BT, segments_BT = F.pad(embeds_BTD, (0, 0, 0, more)), F.pad(positions_BT, (0, more)), F.pad(segments_BT, (0, more))
        hidden_1ND, base = embeds_BTD.flatten(0, 1)[None], self.lm.base_model
        cos_1NE, sin_1NE = base.rotary_emb(hidden_1ND, position_ids=positions_BT.flatten()[None])
        span = span_of(segments_BT, self._span)
        hidden_1ND = self._played(hidden_1ND, cos_1NE, sin_1NE, span)
        wanted_M = None if wanted_BT is None else F.pad(wanted_BT, (0, more)).flatten().nonzero()[:, 0]
        hidden_1ND = base.norm(self._last(hidden_1ND, cos_1NE, sin_1NE, span, wanted_M))
        if wanted_M is not None:
            count = self.tokens
            hidden_1ND = hidden_1ND.new_zeros(count, hidden_1ND.shape[2]).index_copy(0, wanted_M, hidden_1ND[0])[None]
        return hidden_1ND[0].unflatten(0, (rows, -1))[:, :width]

    def _last(self, hidden_1ND: Tensor, cos_1NE: Tensor, sin_1NE: Tensor, span: Span, wanted_M: Tensor | None) -> Tensor:
        q, k, v = front_half(self.last, hidden_1ND, cos_1NE, sin_1NE)
        mixed_1NHE = varlen_attention(q, k, v, span.bounds_S1, span.longest, self.last.self_attn.scaling)
        if wanted_M is not None:
            hidden_1ND, mixed_1NHE = hidden_1ND.index_select(1, wanted_M), mixed_1NHE.index_select(1, wanted_M)
        return back_half(self.last, hidden_1ND, mixed_1NHE)

    def _played(self, hidden_1ND: Tensor, cos_1NE: Tensor, sin_1NE: Tensor, span: Span) -> Tensor:
        kind = (len(span.bounds_S1), span.longest, hidden_1ND.shape, hidden_1ND.dtype, hidden_1ND.requires_grad, cos_1NE.dtype,
                torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None)  # fmt: skip
        if kind != self._kind:
            self._record(hidden_1ND, cos_1NE, sin_1NE, span)
            self._kind, self._span = kind, span
        self._keep_sums()
        return self._stack(hidden_1ND, cos_1NE, sin_1NE, span.bounds_S1)

    def _record(self, hidden_1ND: Tensor, cos_1NE: Tensor, sin_1NE: Tensor, span: Span) -> None:
        # The one before lets go of its memory first.
        self._stack = None
        torch.cuda.empty_cache()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        stack = Stack(self.layers, self.halves, span.longest)
        first = hidden_1ND.detach().clone().requires_grad_(hidden_1ND.requires_grad)
        inputs = (first, cos_1NE.clone(), sin_1NE.clone(), span.bounds_S1.clone())
        # Copies of weights in half precision that autocast remembers would be recorded as they are today.
        enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        with GPU_CALLS, torch.autocast("cuda", dtype=dtype, enabled=enabled, cache_enabled=False):
            _rehearse(stack, inputs)
            torch.cuda.empty_cache()
            self._stack = torch.cuda.make_graphed_callables(stack, inputs, num_warmup_iters=0, pool=self._pool)

    def _keep_sums(self) -> None:
        """Give gradients memory of their own: autograd would take over the recording's, into which the next pass writes."""
        if self._sums is None:
            return
        if not self._sums:
            learning = [p for layer in self.layers for p in layer.parameters() if p.requires_grad]
            self._sums = [(p, torch.zeros_like(p)) for p in learning]
        missing = [(p, sum_) for p, sum_ in self._sums if p.grad is None]
        if missing:
            torch._foreach_zero_([sum_ for _, sum_ in missing])  # pyright: ignore[reportPrivateImportUsage]
        for p, sum_ in missing:
            p.grad = sum_


def _rehearse(stack: Stack, inputs: tuple[Tensor, ...]) -> None:
    """Both passes, twice, so that kernels are chosen and compiled before they are recorded."""
    learning = [x for x in (*inputs, *stack.parameters()) if x.requires_grad]
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(2):
            out_1ND = stack(*inputs)
            torch.autograd.grad(out_1ND, learning, torch.zeros_like(out_1ND))
    torch.cuda.synchronize()
