"""Qwen2-VL's language model with its output layer: a Qwen2 whose rotary positions have three
parts, for a token's time, row and column (M-RoPE, arXiv:2409.12191).

transformers has the decoder and, of models with an output layer, only those with a vision tower.
The tensors here have the names of a Qwen2 checkpoint, so that the model can begin as one.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import nn

MROPE_TYPES = {
    "qwen2_vl_text": ("qwen2_vl", "Qwen2VL"),
    "qwen2_5_vl_text": ("qwen2_5_vl", "Qwen2_5_VL"),
}
"""Model type of the decoder -> its package in transformers, and what its classes begin with."""


@cache
def mrope_lm(model_type: str) -> Any:
    """The class of a whole language model for one of `MROPE_TYPES`; its config is the decoder's."""
    from importlib import import_module

    package, prefix = MROPE_TYPES[model_type]
    module: Any = import_module(f"transformers.models.{package}.modeling_{package}")
    decoder_class = getattr(module, f"{prefix}TextModel")

    class MropeLM(getattr(module, f"{prefix}PreTrainedModel")):
        """Decoder and output layer."""

        config_class = decoder_class.config_class
        _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.model = decoder_class(config)
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
            self.post_init()

    return MropeLM
