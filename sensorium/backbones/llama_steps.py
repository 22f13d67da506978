"""Single-token steps of Llama-like decoders, with few and large operations.

Between its matrix products transformers' decoder spends time that a small model notices
(`benchmarks/decode_speed.py` has the ratio). Here query, key and value are one product, gate and up are one, and the cache is
a block of memory that is written in place. The fused matrices share memory with the
module's own weights, so nothing is held twice.

Shape legend: B rows, T cached tokens, D width, H key heads, G queries a key head, E width
of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.nn.rotary import rotate

FAMILIES = ("llama",)
PROMPT_NAME = "adaption_prompt"
"""Of the module that holds a layer's adaption prompt, inside the layer's attention."""


def can_step(lm: Any) -> bool:
    """Whether a model, of transformers or ours, has the exact shape this file computes."""
    config = getattr(lm, "config", None)
    return (
        config is not None
        and config.model_type in FAMILIES
        and config.hidden_act == "silu"
        and not getattr(config, "attention_bias", False)
        and not getattr(config, "mlp_bias", False)
        and (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default") == "default"
        and all(type(m) is torch.nn.Linear and m.bias is None for m in _linears(lm))
        and not any(hasattr(layer.self_attn, PROMPT_NAME) for layer in lm.model.layers)
    )


def _linears(lm: Any) -> list[Any]:
    """Every linear layer of the decoder; adapters wrap them and are not stepped."""
    found: list[Any] = []
    for layer in lm.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        found += [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
        found += [mlp.gate_proj, mlp.up_proj, mlp.down_proj]
    return found


@dataclass(slots=True)
class _Layer:
    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor
    norm_1: Tensor
    norm_2: Tensor


class LlamaWeights:
    """The fused weights of a decoder."""

    def __init__(self, lm: Any) -> None:
        config = lm.config
        self.lm = lm
        self.heads: int = config.num_attention_heads
        self.key_heads: int = config.num_key_value_heads
        self.head_dim: int = lm.model.layers[0].self_attn.head_dim
        self.eps: float = config.rms_norm_eps
        self.layers = [
            _Layer(
                qkv=_fuse(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                out=layer.self_attn.o_proj.weight,
                gate_up=_fuse(layer.mlp.gate_proj, layer.mlp.up_proj),
                down=layer.mlp.down_proj.weight,
                norm_1=layer.input_layernorm.weight,
                norm_2=layer.post_attention_layernorm.weight,
            )
            for layer in lm.model.layers
        ]
        self.norm: Tensor = lm.model.norm.weight

    def current(self) -> bool:
        """Whether the model's matrices are still the ones fused here; a model that moved to
        another device or number format since has matrices of its own again."""
        layers = zip(self.layers, self.lm.model.layers, strict=True)
        return all(
            mine.qkv.data_ptr() == theirs.self_attn.q_proj.weight.data_ptr()
            and mine.gate_up.data_ptr() == theirs.mlp.gate_proj.weight.data_ptr()
            for mine, theirs in layers
        )


def _fuse(*linears: Any) -> Tensor:
    """One matrix of all rows; each layer's own weight becomes a view of it.

    It lies in memory column by column: products with one vector, which is what a step is made of, then
    read it up to twice as fast on AMD's Zen 2 (`benchmarks/decode_speed.py`).
    """
    first = linears[0].weight
    rows = [linear.weight.shape[0] for linear in linears]
    # Also while answering, the model must keep weights that could learn afterwards.
    with torch.inference_mode(False), torch.no_grad():
        fused = torch.cat([linear.weight for linear in linears]).t().contiguous().t()
        for linear, part in zip(linears, fused.split(rows), strict=True):
            linear.weight = torch.nn.Parameter(part, requires_grad=first.requires_grad)
    return fused


class LlamaSteps:
    """A growing batch of answers over one set of weights."""

    def __init__(
        self, weights: LlamaWeights, cache: Any, room: int, mask_BT: Tensor | None
    ) -> None:
        """Take over a transformers cache that holds the prompt.

        Args:
            room: how many more tokens may come.
            mask_BT: 1 for real tokens of the prompt; None where no row is padded.
        """
        self.weights = weights
        self.length = cache.get_seq_length()
        keys = [layer.keys for layer in cache.layers]
        batch, heads, _, width = keys[0].shape
        shape = (len(keys), batch, heads, self.length + room, width)
        self.keys = keys[0].new_empty(shape)
        self.values = keys[0].new_empty(shape)
        for i, layer in enumerate(cache.layers):
            self.keys[i, :, :, : self.length] = layer.keys
            self.values[i, :, :, : self.length] = layer.values
        self.bias_BT: Tensor | None = None
        if mask_BT is not None:
            blocked = torch.finfo(self.keys.dtype).min
            bias_BT = self.keys.new_zeros(batch, self.length + room)
            bias_BT[:, : self.length].masked_fill_(mask_BT == 0, blocked)
            self.bias_BT = bias_BT

    def step(self, embeds_B1D: Tensor, positions_B: Tensor) -> Tensor:
        """(B, 1, D) embeddings of the next tokens -> (B, 1, D) last hidden states."""
        w = self.weights
        cos_B1E, sin_B1E = w.lm.model.rotary_emb(embeds_B1D, positions_B[:, None])
        cos, sin = cos_B1E[:, :, None], sin_B1E[:, :, None]
        x = embeds_B1D
        width = (x.shape[-1],)
        place = self.length
        for i, layer in enumerate(w.layers):
            h = F.rms_norm(x, width, layer.norm_1, w.eps)
            x = x + F.linear(self._attend(i, F.linear(h, layer.qkv), cos, sin, place), layer.out)
            h = F.rms_norm(x, width, layer.norm_2, w.eps)
            gate, up = F.linear(h, layer.gate_up).chunk(2, dim=-1)
            x = x + F.linear(F.silu(gate) * up, layer.down)
        self.length += 1
        return F.rms_norm(x, width, w.norm, w.eps)

    def _attend(self, index: int, qkv: Tensor, cos: Tensor, sin: Tensor, place: int) -> Tensor:
        w = self.weights
        batch, groups = qkv.shape[0], w.heads // w.key_heads
        all_heads = qkv.view(batch, 1, w.heads + 2 * w.key_heads, w.head_dim)
        turned = rotate(all_heads[:, :, : w.heads + w.key_heads], cos, sin)
        q_BHGE = turned[:, 0, : w.heads].view(batch, w.key_heads, groups, w.head_dim)
        self.keys[index, :, :, place] = turned[:, 0, w.heads :]
        self.values[index, :, :, place] = all_heads[:, 0, w.heads + w.key_heads :]
        keys_BHTE = self.keys[index, :, :, : place + 1]
        values_BHTE = self.values[index, :, :, : place + 1]
        scores_BHGT = q_BHGE @ keys_BHTE.transpose(-1, -2) * w.head_dim**-0.5
        if self.bias_BT is not None:
            scores_BHGT = scores_BHGT + self.bias_BT[:, None, None, : place + 1]
        mixed_BHGE = scores_BHGT.softmax(dim=-1) @ values_BHTE
        return mixed_BHGE.reshape(batch, 1, w.heads * w.head_dim)
