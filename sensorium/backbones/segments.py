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

from sensorium.backbones.packed_mask import layer_types
from sensorium.nn.segment_attention import Layout, attend

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


def run_segments(lm: Any, embeds_BTD: Tensor, positions_BT: Tensor, layout: Layout) -> Tensor:
    """Last hidden states of packed rows, (B, T, D); zero at padding, and at what is not wanted."""
    _register()
    if lm.config.model_type in PLAIN:
        _narrow(lm.base_model.layers[-1])
    else:
        layout = replace(layout, wanted_M=None)
    # For good, because checkpointed layers run again after this call has ended.
    lm.config._attn_implementation = NAME
    embeds_1ND = layout.flat(embeds_BTD)
    hidden_1ND = lm.base_model(
        inputs_embeds=embeds_1ND,
        position_ids=layout.flat(positions_BT),
        # A mask of four dimensions is taken for a finished one, and ours does not read it.
        attention_mask=embeds_1ND.new_zeros(1, 1, 1, 1),
        use_cache=False,
        layout=layout,
    ).last_hidden_state
    return layout.rows(hidden_1ND)


def _narrow(layer: Any) -> None:
    """Let a layer work on wanted tokens alone behind its attention, which needs the keys of all.

    By its class, so that copies of it, checkpointed runs and adapters inside need not know.
    """
    if not hasattr(type(layer), "narrows"):
        layer.__class__ = _narrowed(type(layer))


@cache
def _narrowed(plain: type[Any]) -> type[Any]:
    def forward(self: Any, hidden_states: Tensor, *args: Any, layout: Layout | None = None, **kwargs: Any) -> Tensor:
        if layout is None or layout.wanted_M is None:
            return plain.forward(self, hidden_states, *args, layout=layout, **kwargs)
        mixed_1ND, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), layout=layout, **kwargs)
        kept_1MD = hidden_states.index_select(1, layout.wanted_M) + mixed_1ND.index_select(1, layout.wanted_M)
        return kept_1MD + self.mlp(self.post_attention_layernorm(kept_1MD))

    return type(plain.__name__, (plain,), {"forward": forward, "narrows": True})


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
