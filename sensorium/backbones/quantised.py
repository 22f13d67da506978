"""A language model's linear layers in four bits, for adapters to learn beside them.

QLoRA (arXiv:2305.14314): weights in NF4, blocks of 64 with one scale each, the scales in eight bits themselves;
every product is computed with the weights as they read back. Through bitsandbytes, which runs on GPUs and CPUs. What
scores the vocabulary, embeddings and norms stay as they are. Quantised weights never learn and are never
stored: they are made anew from their source.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sensorium.core.errors import ConfigError, MissingDependencyError

DEVICES = ("cpu", "cuda", "xpu")
"""Where bitsandbytes has kernels for NF4."""


def quantise(lm: Any, *, sourced: bool) -> int:
    """Replace the linear layers of a language model, in place; how many there were. On the meta device
    nothing is done.

    Args:
        lm: a transformers model.
        sourced: whether its weights come from somewhere.

    Raises:
        MissingDependencyError: bitsandbytes is not installed.
        ConfigError: the weights are random, so that they could not be made anew.
    """
    if next(lm.parameters()).is_meta:
        return 0
    if not sourced:
        raise ConfigError("a quantised language model without a source of weights", where="model.backbone",
                          expected="weights: a folder, wheel or hub id, from which they are made anew each time",
                          fix="name one, or leave quantise out")  # fmt: skip
    try:
        import bitsandbytes  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingDependencyError("a quantised language model needs bitsandbytes",
                                     fix="pip install -e '.[quantised]' in the clone") from None  # fmt: skip
    scores = lm.get_output_embeddings()
    found = [(name, layer) for name, layer in lm.named_modules() if type(layer) is nn.Linear and layer is not scores]
    for name, layer in found:
        parent, _, last = name.rpartition(".")
        setattr(lm.get_submodule(parent), last, _in_four_bits(layer, bitsandbytes))
    # peft asks for this before it looks at the layers.
    lm.is_loaded_in_4bit = True
    return len(found)


def _in_four_bits(layer: nn.Linear, library: Any) -> nn.Module:
    made = library.nn.Linear4bit(layer.in_features, layer.out_features, bias=layer.bias is not None, quant_type="nf4")
    made.weight = library.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True)
    if layer.bias is not None:
        made.bias = nn.Parameter(layer.bias.data, requires_grad=False)
    # Repacking for some processors would change the numbers between training and answering.
    made.support_avx512bf16_for_cpu = False
    return made.to(layer.weight.device).train(layer.training)


def whole_size(parameter: Tensor) -> int:
    """How many weights a parameter holds; one of a quantised layer is packed, two to a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else state.shape.numel()
