"""Packed rows through transformers' decoders as one row of real tokens, sample by sample.

transformers looks attention up by name at every call. Ours is registered under a name of its own: where a layout of
samples comes along it attends inside each sample (`nn/segment_attention.py`), else it is transformers'
own sdpa, so that answering is not touched. What the last layer does behind its attention it does to wanted tokens alone.

Shape legend: B rows, T tokens, N real tokens, M wanted ones, H heads, E width of a head, D width.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from torch import Tensor

from sensorium.backbones.layer_halves import can_halve, work_in_halves
from sensorium.backbones.lean_layer import FAMILIES as LEAN
from sensorium.backbones.lean_layer import (
    can_be_lean,
    dropout_of,
    lean_attention,
    lean_attention_of_wanted,
    lean_feed_forward,
)
from sensorium.backbones.packed_mask import layer_types
from sensorium.nn.segment_attention import Layout, attend, can_attend_wanted
from sensorium.nn.varlen_attention import can_varlen

NAME = "sensorium_segments"
FAMILIES = ("gemma", "granite", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3")
"""Families whose layers hand on what they do not know to the attention, each of them tested."""
PLAIN = ("gemma", "llama", "mistral", "qwen2", "qwen3", "smollm3")
"""Those among them whose layers are attention and MLP, each behind a norm, summed with their input and nothing more."""


def can_segment(lm: Any) -> bool:
    """Whether a transformers model attends in no other way than causally within a sample."""
    config = lm.config
    return (
        config.model_type in FAMILIES
        and config._attn_implementation in ("sdpa", NAME)
        and layer_types(config) == ["full_attention"]
    )


def segments_on(lm: Any, embeds_BTD: Tensor, branches_BT: Tensor) -> bool:
    """Whether going from sample to sample is the fast way where the states are: on a GPU only where one kernel does it for all."""
    if not embeds_BTD.is_cuda:
        return True
    config = lm.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    drops = lm.training and getattr(config, "attention_dropout", 0.0)
    return can_varlen(embeds_BTD, width) and not drops and not bool(branches_BT.any())


def run_segments(lm: Any, embeds_BTD: Tensor, positions_BT: Tensor, layout: Layout) -> Tensor:
    """Last hidden states of packed rows, (B, T, D); zero at padding, and at what is not wanted."""
    _register()
    if lm.config.model_type in PLAIN:
        *others, last = lm.base_model.layers
        _work(last, last=True)
        for layer in others if lm.config.model_type in LEAN else ():
            _work(layer, last=False)
    else:
        layout = replace(layout, wanted_M=None)
    # For good, because checkpointed layers run again after this call has ended.
    lm.config._attn_implementation = NAME
    embeds_1ND, positions_1N, shared = layout.flat(embeds_BTD), layout.flat(positions_BT), layout.shared
    if shared is not None:
        embeds_1ND, positions_1N = shared.pick(embeds_1ND), positions_1N[:, shared.kept_K]
    hidden_1ND = lm.base_model(
        inputs_embeds=embeds_1ND,
        position_ids=positions_1N,
        # A mask of four dimensions is taken for a finished one, and ours does not read it.
        attention_mask=embeds_1ND.new_zeros(1, 1, 1, 1),
        use_cache=False,
        layout=layout,
    ).last_hidden_state
    if shared is not None and layout.wanted_M is None:
        hidden_1ND = shared.spread(hidden_1ND)
    return layout.rows(hidden_1ND)


def _work(layer: Any, *, last: bool) -> None:
    """Let a layer work as below where a layout comes along.

    By its class, so that copies of it, checkpointed runs and adapters inside need not know.
    """
    if not hasattr(type(layer), "segmented"):
        layer.__class__ = _segmented(type(layer), last)


@cache
def _segmented(plain: type[Any], last: bool) -> type[Any]:
    def forward(self: Any, hidden_states: Tensor, *args: Any, layout: Layout | None = None, **kwargs: Any) -> Tensor:
        if layout is None:
            return plain.forward(self, hidden_states, *args, **kwargs)
        wanted_M = layout.asked_M if last else None
        if can_halve(self):
            return work_in_halves(self, hidden_states, kwargs["position_embeddings"], layout, wanted_M)
        lean = can_be_lean(self, hidden_states)
        if not lean and wanted_M is None:
            return plain.forward(self, hidden_states, *args, layout=layout, **kwargs)
        # The last layer needs keys and values of all tokens, and the rest of the wanted ones alone.
        narrow = lean and wanted_M is not None and not dropout_of(self) and can_attend_wanted(layout)
        if lean:
            attend_to = lean_attention_of_wanted if narrow else lean_attention
            mixed_1ND = attend_to(self, hidden_states, kwargs["position_embeddings"], layout)
        else:
            mixed_1ND, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), layout=layout, **kwargs)
        if wanted_M is not None:
            hidden_states = hidden_states.index_select(1, wanted_M)
            mixed_1ND = mixed_1ND if narrow else mixed_1ND.index_select(1, wanted_M)
        kept_1MD = hidden_states + mixed_1ND
        return kept_1MD + (lean_feed_forward(self, kept_1MD) if lean else self.mlp(self.post_attention_layernorm(kept_1MD)))

    return type(plain.__name__, (plain,), {"forward": forward, "segmented": True})


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    if NAME in AttentionInterface._global_mapping:
        return

    def attention(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
        dropout: float = 0.0, scaling: float | None = None, layout: Layout | None = None, **kwargs: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        if layout is None:
            return sdpa_attention_forward(module, query, key, value, attention_mask,
                                          dropout=dropout, scaling=scaling, **kwargs)  # fmt: skip
        return attend(query, key, value, layout, scale=scaling, dropout=dropout), None

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
