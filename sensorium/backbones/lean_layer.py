"""A decoder layer's norms, rotary positions and gates with backward passes of their own, for packed rows on a CPU.

Beside its matrix products transformers' layer goes through the states many times, and autograd's passes back twice as often. At
a width of 256 that is a tenth of a step. Linear layers are called as the modules that they are, so that adapters inside them work.

Shape legend: N tokens, M wanted ones, D width, H heads, G key heads, E width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sensorium.backbones.llama_steps import PROMPT_NAME
from sensorium.nn.rms_norm import rms_norm
from sensorium.nn.rotary import turned
from sensorium.nn.segment_attention import Layout, attend, attend_wanted
from sensorium.nn.swiglu import gated

FAMILIES = ("llama", "mistral", "qwen2")
"""Whose attention is projections and rotary positions in halves, and nothing else."""
MLPS, SILU = ("LlamaMLP", "MistralMLP", "Qwen2MLP"), ("SiLUActivation", "SiLU")
"""Names of transformers' classes: its families' feed-forward parts, which are down(SiLU(gate) * up), and the function."""


def is_plain(layer: Any) -> bool:
    """Whether a layer of these families does nothing that is left out here: no adaption prompt, nobody who listens inside."""
    parts = (layer.self_attn, layer.input_layernorm, layer.post_attention_layernorm)
    return (
        getattr(layer.self_attn, "config", None) is not None and layer.self_attn.config.model_type in FAMILIES
        and not hasattr(layer.self_attn, PROMPT_NAME)
        and all(hasattr(norm, "variance_epsilon") and type(norm.weight) is torch.nn.Parameter for norm in parts[1:])
        and not any(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or "forward" in vars(part) for part in parts)
    )  # fmt: skip


def can_be_lean(layer: Any, hidden: Tensor) -> bool:
    """Whether this is such a layer, at work in full precision on a CPU.

    Without gradients there is nothing to gain, and scores stay transformers' own to the last bit.
    """
    return (
        torch.is_grad_enabled() and hidden.dtype == torch.float32 and hidden.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling() and is_plain(layer)
    )  # fmt: skip


def dropout_of(layer: Any) -> float:
    """Of its attention's probabilities, now."""
    return layer.self_attn.attention_dropout if layer.self_attn.training else 0.0


def lean_attention(layer: Any, hidden_1ND: Tensor, angles: tuple[Tensor, Tensor], layout: Layout) -> Tensor:
    """What a layer's attention adds to its input, norm included, (1, N, D).

    Args:
        angles: cosines and sines, (1, N, E) each.
    """
    q_1NHE, k_1GNE, v_1GNE, (cos, sin) = _states(layer, hidden_1ND, angles, None)
    q_1HNE = turned(q_1NHE, cos, sin).transpose(1, 2)
    mixed_1NHE = attend(q_1HNE, k_1GNE, v_1GNE, layout, scale=layer.self_attn.scaling, dropout=dropout_of(layer))
    return layer.self_attn.o_proj(mixed_1NHE.flatten(2))


def lean_attention_of_wanted(layer: Any, hidden_1ND: Tensor, angles: tuple[Tensor, Tensor], layout: Layout) -> Tensor:
    """The same for wanted tokens alone, (1, M, D), where `can_attend_wanted`: others have keys and values, and no queries."""
    q_1MHE, k_1GNE, v_1GNE, (cos, sin) = _states(layer, hidden_1ND, angles, layout.asked_M)
    q_1HME = turned(q_1MHE, cos, sin).transpose(1, 2)
    mixed_1MHE = attend_wanted(q_1HME, k_1GNE, v_1GNE, layout, scale=layer.self_attn.scaling)
    return layer.self_attn.o_proj(mixed_1MHE.flatten(2))


def lean_feed_forward(layer: Any, kept_1MD: Tensor) -> Tensor:
    """What a layer's feed-forward part adds to its input, norm included, (1, M, D)."""
    norm, mlp = layer.post_attention_layernorm, layer.mlp
    x_1MD = rms_norm(kept_1MD, norm.weight, norm.variance_epsilon)
    return gated(mlp.gate_proj(x_1MD), mlp.up_proj(x_1MD), mlp.down_proj) if _is_gated(mlp) else mlp(x_1MD)


def _is_gated(mlp: Any) -> bool:
    """Whether this is the families' own feed-forward part with SiLU, not compiled, and nobody listens to what is left out here."""
    return (
        type(mlp).__name__ in MLPS and type(mlp.act_fn).__name__ in SILU and mlp._compiled_call_impl is None
        and not any(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or "forward" in vars(part)
                    for part in (mlp, mlp.act_fn, mlp.down_proj))
    )  # fmt: skip


def _states(
    layer: Any, hidden_1ND: Tensor, angles: tuple[Tensor, Tensor], wanted_M: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Queries (1, M, H, E) as they are projected, keys (1, G, N, E) turned by their places, values alike, and the queries' angles."""
    attention, norm = layer.self_attn, layer.input_layernorm
    x_1ND = rms_norm(hidden_1ND, norm.weight, norm.variance_epsilon)
    asking_1MD = x_1ND if wanted_M is None else x_1ND.index_select(1, wanted_M)
    q_1MHE, k_1NGE, v_1NGE = (
        project(states).unflatten(-1, (-1, attention.head_dim))
        for project, states in ((attention.q_proj, asking_1MD), (attention.k_proj, x_1ND), (attention.v_proj, x_1ND))
    )
    cos, sin = (x[:, :, None] for x in angles)
    k_1GNE = turned(k_1NGE, cos, sin).transpose(1, 2)
    at_queries = (cos, sin) if wanted_M is None else (cos.index_select(1, wanted_M), sin.index_select(1, wanted_M))
    return q_1MHE, k_1GNE, v_1NGE.transpose(1, 2), at_queries
