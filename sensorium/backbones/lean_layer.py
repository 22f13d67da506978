"""A decoder layer's norms and rotary positions with backward passes of their own, for packed rows on a CPU.

Beside its matrix products transformers' layer goes through the states many times, and autograd's passes back twice as often. At
a width of 256 that is a tenth of a step. Linear layers are called as the modules that they are, so that adapters inside them work.

Shape legend: N tokens, D width, H heads, G key heads, E width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sensorium.backbones.llama_steps import PROMPT_NAME
from sensorium.nn.rms_norm import rms_norm
from sensorium.nn.rotary import turned
from sensorium.nn.segment_attention import Layout, attend

FAMILIES = ("llama", "mistral", "qwen2")
"""Whose attention is projections and rotary positions in halves, and nothing else."""


def can_be_lean(layer: Any, hidden: Tensor) -> bool:
    """Whether a layer of these families does nothing that is left out here: no adaption prompt, nobody who listens inside, no half precision.

    Without gradients there is nothing to gain, and scores stay transformers' own to the last bit.
    """
    parts = (layer.self_attn, layer.input_layernorm, layer.post_attention_layernorm)
    return (
        getattr(layer.self_attn, "config", None) is not None and layer.self_attn.config.model_type in FAMILIES
        and not hasattr(layer.self_attn, PROMPT_NAME)
        and all(hasattr(norm, "variance_epsilon") and type(norm.weight) is torch.nn.Parameter for norm in parts[1:])
        and not any(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or "forward" in vars(part) for part in parts)
        and torch.is_grad_enabled() and hidden.dtype == torch.float32 and hidden.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )  # fmt: skip


def lean_attention(layer: Any, hidden_1ND: Tensor, angles: tuple[Tensor, Tensor], layout: Layout) -> Tensor:
    """What a layer's attention adds to its input, norm included, (1, N, D).

    Args:
        angles: cosines and sines, (1, N, E) each.
    """
    attention, norm = layer.self_attn, layer.input_layernorm
    x_1ND = rms_norm(hidden_1ND, norm.weight, norm.variance_epsilon)
    q_1NHE, k_1NGE, v_1NGE = (
        project(x_1ND).unflatten(-1, (-1, attention.head_dim))
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    cos, sin = (x[:, :, None] for x in angles)
    mixed_1NHE = attend(
        turned(q_1NHE, cos, sin).transpose(1, 2), turned(k_1NGE, cos, sin).transpose(1, 2), v_1NGE.transpose(1, 2), layout,
        scale=attention.scaling, dropout=attention.attention_dropout if attention.training else 0.0,
    )  # fmt: skip
    return attention.o_proj(mixed_1NHE.flatten(2))
