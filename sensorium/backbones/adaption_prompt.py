"""Adaption prompts: a few learned vectors that the last layers of a frozen LLM attend to.

LLaMA-Adapter (arXiv:2303.16199). The keys and values of a prompt come from the layer's own
projections, without rotary positions; its scores have a softmax of their own, and what it gives
is scaled by a gate that starts at zero, so that before any training the model is the plain
language model, exactly. Every token attends to the prompt alone and to nothing else through it:
packing, padding and caching cannot matter.

Gates differ between the two public versions: peft's `AdaptionPrompt` has one number a layer, the
authors' repository (OpenGVLab/LLaMA-Adapter, alpaca_finetuning_v1) the tanh of one number a head.

Media may add to the prompts (`PromptMedia`, from the fusion `visual_prompt`): each token then
attends to the prompt of its own medium.

Shape legend: B rows, T tokens, D width, M media of a row and one place for none, K prompt vectors,
H heads, N key heads, G heads a key head (H = N G), E width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.backbones.llama_steps import PROMPT_NAME
from sensorium.core.errors import ConfigError
from sensorium.nn.prompt_media import PromptMedia
from sensorium.nn.rotary import rotate

FAMILIES = ("llama", "mistral", "qwen2")
"""Model types of transformers whose attention is q/k/v/o projections and rotary positions in
halves, and nothing else (no norms of queries and keys, no soft cap, no interleaved positions)."""

GateName = Literal["layer", "heads"]


class AdaptionPrompt(nn.Module):
    """The prompt of one layer and its gate."""

    def __init__(self, attention: Any, length: int, gate: GateName) -> None:
        """Start as the authors and peft do: standard normal vectors, gate at zero.

        Args:
            attention: the transformers attention module that the prompt is for.
            length: K, vectors in the prompt.
        """
        super().__init__()
        weight: Tensor = attention.q_proj.weight
        heads = weight.shape[0] // attention.head_dim
        self.per_head = gate == "heads"
        self.vectors = nn.Parameter(weight.new_empty(length, weight.shape[1]).normal_())
        self.gate = nn.Parameter(weight.new_zeros(heads if self.per_head else 1))
        self.media: PromptMedia | None = None
        """Of the batch that runs now; see `prompts_with`."""

    def forward(self, attention: Any, hidden_BTD: Tensor, cos_BTE: Tensor, sin_BTE: Tensor) -> Tensor:
        """What the attention adds for the prompt: (B, T, D).

        Args:
            hidden_BTD: the input of the attention.
            cos_BTE, sin_BTE: rotary positions of its queries.
        """
        width = attention.head_dim
        q_BTHE = attention.q_proj(hidden_BTD).unflatten(-1, (-1, width))
        q_BTHE = rotate(q_BTHE, cos_BTE[:, :, None], sin_BTE[:, :, None])
        prompts_BMKD = self._prompts_BMKD()
        k_BMKNE = attention.k_proj(prompts_BMKD).unflatten(-1, (-1, width))
        v_BMKNE = attention.v_proj(prompts_BMKD).unflatten(-1, (-1, width))
        q_BTNGE = q_BTHE.unflatten(2, (k_BMKNE.shape[3], -1))
        scores = torch.einsum("btnge,bmkne->btngmk", q_BTNGE, k_BMKNE.to(q_BTNGE.dtype))
        share_BTNGMK = (scores * width**-0.5).softmax(dim=-1, dtype=torch.float32)
        if self.media is not None:
            share_BTNGMK = share_BTNGMK * self.media.sees_BTM[:, :, None, None, :, None]
        mixed_BTNGE = torch.einsum("btngmk,bmkne->btnge", share_BTNGMK.to(v_BMKNE.dtype), v_BMKNE)
        # Head by head, the gate scales what comes before the output projection.
        mixed_BTHE = mixed_BTNGE.flatten(2, 3) * self._gate_H1()
        # The projection's bias, where there is one, is in the attention's own output already.
        return F.linear(mixed_BTHE.flatten(2).to(hidden_BTD.dtype), attention.o_proj.weight)

    def _prompts_BMKD(self) -> Tensor:
        """The prompt with each medium's share; B and M are 1 where there are no media."""
        if self.media is None:
            return self.vectors[None, None]
        return self.vectors + self.media.added_BMKD.to(self.vectors.dtype)

    def _gate_H1(self) -> Tensor:
        return self.gate.tanh()[:, None] if self.per_head else self.gate[:, None]


def add_prompts(
    family: str, found: Sequence[Any], layers: int, length: int, gate: GateName
) -> None:
    """Give each of the last layers a prompt; the LLM's own modules and key names stay.

    Args:
        family: the LLM's model type.
        found: its decoder layers, in order.

    Raises:
        ConfigError: the LLM's attention is of another kind, or it has fewer layers.
    """
    check_prompts(family, len(found), layers)
    for layer in found[-layers:]:
        attention = layer.self_attn
        attention.add_module(PROMPT_NAME, AdaptionPrompt(attention, length, gate))
        attention.register_forward_hook(_add_prompt, with_kwargs=True)


def check_prompts(family: str, depth: int, layers: int) -> None:
    """Can each of the last `layers` of an LLM of this model type and depth have a prompt?

    Raises:
        ConfigError: its attention is of another kind, or it has fewer layers.
    """
    if family not in FAMILIES:
        raise ConfigError(
            f"adaption prompts for a language model of type {family!r}",
            expected=f"one of {', '.join(FAMILIES)}",
            where="model.adapter",
            fix="use another language model, or adapter: {kind: lora}",
        )
    if layers > depth:
        raise ConfigError(
            f"prompts for {layers} layers of a language model that has {depth}",
            expected=f"1 to {depth}",
            where="model.adapter.layers",
        )


def _add_prompt(
    attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: tuple[Tensor, Any]
) -> tuple[Tensor, Any]:
    """Forward hook of an attention: its output with the prompt's share."""
    hidden_BTD = args[0] if args else kwargs["hidden_states"]
    cos_BTE, sin_BTE = kwargs["position_embeddings"]
    prompt = attention.get_submodule(PROMPT_NAME)
    return output[0] + prompt(attention, hidden_BTD, cos_BTE, sin_BTE), *output[1:]


@contextmanager
def prompts_with(media: PromptMedia, lm: nn.Module) -> Iterator[None]:
    """Let media add to all prompts of a language model while the block lasts."""
    prompts = [m for m in lm.modules() if isinstance(m, AdaptionPrompt)]
    for prompt in prompts:
        prompt.media = media
    try:
        yield
    finally:
        for prompt in prompts:
            prompt.media = None
