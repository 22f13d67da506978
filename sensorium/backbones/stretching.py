"""Rows that are longer than any a language model was trained on, as the first Qwen reads them when it answers.

Of a prompt beyond `length` tokens the rotary base grows in steps (NTK-aware interpolation), so that its slow waves reach over twice, four times
... the length; what is written behind it keeps the prompt's base. Queries beyond `length` are multiplied by the logarithm of their place to that base,
which keeps attention as sharp as it was. Both only where the language model does not learn.

Source: modeling_qwen.py of huggingface.co/Qwen/Qwen-VL-Chat (`get_ntk_alpha`, `logn_tensor`), which counts places in a row; here padding is none.

Shape legend: B rows, T tokens, E width of a head.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache


class StretchedCache(DynamicCache):
    """Keys and values, and by what the base was multiplied when the prompts were read, (B,)."""

    alphas_B: Tensor | None = None

    def reorder_cache(self, beam_idx: Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().reorder_cache(beam_idx)  # pyright: ignore[reportArgumentType]
        self.alphas_B = None if self.alphas_B is None else self.alphas_B[beam_idx.to(self.alphas_B.device)]


def stretch(lm: Any, length: int) -> None:
    """Let a decoder of transformers' Qwen2 read longer rows so.

    Args:
        length: of the longest row in training, in tokens.
    """
    Stretch(lm, length)


def alphas_of(tokens: Tensor, length: int) -> Tensor:
    """What the bases of prompts of so many tokens are multiplied by, before that is raised to a power."""
    return (2.0 ** torch.ceil(torch.log2(tokens.double() / length) + 1) - 1).clamp(min=1.0)


def _lengths(positions_BT: Tensor) -> Tensor:
    """Of the sample that each token stands in, (B, T): places begin at 0 with each."""
    samples_BT = (positions_BT == 0).cumsum(dim=1)
    longest_BS = positions_BT.new_zeros(len(positions_BT), int(samples_BT.max()) + 1).scatter_reduce(1, samples_BT, positions_BT + 1, "amax")
    return longest_BS.gather(1, samples_BT)


class Stretch:
    """Works by hooks: on the decoder, which knows the places, on its angles, and while a long row is read on what makes queries."""

    def __init__(self, lm: Any, length: int) -> None:
        self.length = length
        self.decoder = lm.base_model
        self.alphas_BT: Tensor | None = None
        self.handles: list[Any] = []
        self.decoder.register_forward_pre_hook(self._begin, with_kwargs=True)
        self.decoder.register_forward_hook(self._end, always_call=True)
        self.decoder.rotary_emb.register_forward_hook(self._turn, with_kwargs=True)

    def _begin(self, decoder: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        positions_BT, cache = kwargs["position_ids"], kwargs.get("past_key_values")
        self.alphas_BT = None
        # Rows that go from sample to sample are short, or learned (`CausalLM.teacher_forced`).
        if decoder.training or kwargs.get("layout") is not None:
            return
        if isinstance(cache, StretchedCache) and cache.get_seq_length():
            self.alphas_BT = None if cache.alphas_B is None else cache.alphas_B[:, None]
        else:
            alphas_BT = alphas_of(_lengths(positions_BT), self.length)
            if bool((alphas_BT > 1).any()):
                self.alphas_BT = alphas_BT
                if isinstance(cache, StretchedCache):
                    # Prompts end together.
                    cache.alphas_B = alphas_BT[:, -1]
        if int(positions_BT.max()) >= self.length:
            scales_BT1 = ((positions_BT + 1).double().log() / math.log(self.length)).clamp(min=1.0)[..., None]
            # Of the layers as they are now: an adapter may have taken a projection's place.
            self.handles = [layer.self_attn.q_proj.register_forward_hook(lambda *call: call[-1] * scales_BT1.to(call[-1])) for layer in self.decoder.layers]

    def _end(self, *_: Any) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles, self.alphas_BT = [], None

    def _turn(self, rotary: Any, args: Any, kwargs: dict[str, Any], angles: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Cosines and sines, (B, T, E), by each row's own base."""
        if self.alphas_BT is None:
            return angles
        positions_BT = kwargs["position_ids"] if "position_ids" in kwargs else args[1]
        pairs = rotary.inv_freq.shape[0]
        # base^(-2i / E) with a base that is larger by alpha^(E / (E - 2)).
        waves_P = torch.arange(pairs, device=positions_BT.device, dtype=torch.float64) / (pairs - 1)
        speeds_BTP = rotary.inv_freq.double() * self.alphas_BT[..., None] ** -waves_P
        turns_BTP = positions_BT.double()[..., None] * speeds_BTP
        turns_BTE = torch.cat([turns_BTP, turns_BTP], dim=-1)
        return turns_BTE.cos().to(angles[0]), turns_BTE.sin().to(angles[1])
