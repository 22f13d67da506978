"""Biases and norms that learn inside a frozen language model.

BitFit (arXiv:2106.10199): the biases that a model has. LLaMA-Adapter V2 (arXiv:2304.15010) adds biases, zero
at first, to linear layers of LLaMA, which has none, and lets the norms learn with them; before any
training the model is the plain language model, exactly. Source: github.com/OpenGVLab/LLaMA-Adapter,
llama_adapter_v2_multimodal7b/llama/llama.py. (The scales of its 65B model for text are not here.)

A bias is the layer's own: nothing is merged afterwards, and nothing has to be known when answering.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from sensorium.core.errors import ConfigError


def add_biases(backbone: nn.Module, added: Collection[str], *, norms: bool) -> frozenset[str]:
    """Give linear layers a bias where they have none.

    Args:
        added: the layers, by the last part of their names.
        norms: whether norms learn, too.

    Returns:
        Names of the parameters that are to learn: all biases and, if asked for, all of the norms.

    Raises:
        ConfigError: there is nothing of the kind.
    """
    found: set[str] = set()
    for name, module in backbone.named_modules():
        if type(module) is nn.Linear and module.bias is None and name.rpartition(".")[2] in added:
            module.bias = nn.Parameter(module.weight.new_zeros(module.out_features))
        if norms and "norm" in type(module).__name__.lower():
            found |= {f"{name}.{own}" for own, _ in module.named_parameters(recurse=False)}
    found |= {name for name, _ in backbone.named_parameters() if name.rpartition(".")[2] == "bias"}
    if not found:
        raise ConfigError(
            f"no biases or norms in {type(backbone).__name__}, and no linear layer called {', '.join(added) or '-'}",
            where="model.adapter",
            fix="name linear layers of this language model in `added`",
        )
    return frozenset(found)
