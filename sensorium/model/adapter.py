"""Low-rank adapters on the LLM and on encoders: injected through peft, merged by arithmetic.

While training, the adapter's matrices stand beside the frozen weights. For answering
they are added into them, so that serving needs neither peft nor extra work a token.

Adaption prompts, another kind of adapter, cannot be merged: `MultimodalModel` builds them in
(`backbones/adaption_prompt.py`), and they are saved and loaded like any part.

Shape legend: R rank, I inputs and O outputs of a linear layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from sensorium.core.errors import ConfigError, MissingDependencyError, WeightsError
from sensorium.core.patterns import Pattern
from sensorium.model.config import LoraConfig, ModelConfig
from sensorium.model.multimodal import MultimodalModel

LORA_MARK = "lora_"
MAGNITUDE = "lora_magnitude_vector"
DEFAULT_TARGETS: tuple[str, ...] = LoraConfig().targets


def inject_adapter(model: MultimodalModel, only: str = "") -> None:
    """Add the config's low-rank adapters; before they learn, the model's output is what it was. A model
    with adaption prompts was built with them.

    Args:
        only: the prefix of the part to add one to.

    Raises:
        MissingDependencyError: peft is not installed.
        ConfigError: no layer matches an adapter's targets, or one that does is tied.
    """
    for prefix, config in model.config.low_rank.items():
        if has_lora(model, prefix) or not prefix.startswith(only):
            continue
        try:
            import peft
        except ImportError:
            raise MissingDependencyError(
                "adapters need peft", fix="pip install -e '.[train]' in the clone"
            ) from None
        module = _adapted(model, prefix)
        lora = peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,  # pyright: ignore[reportArgumentType]
            lora_dropout=config.dropout,
            use_dora=config.dora,
            use_rslora=config.rslora,
            target_modules=target_names(module, config, place_of(prefix)),
        )
        peft.inject_adapter_in_model(lora, module)


def place_of(prefix: str) -> str:
    """Where the config of an adapter stands."""
    head, _, kind = prefix.removesuffix(".").partition(".")
    return f"model.lanes.{kind}.adapter" if head == "encoders" else "model.adapter"


def _adapted(model: MultimodalModel, prefix: str) -> Any:
    """The module whose layers an adapter stands in."""
    return model.backbone.lm if prefix == "backbone." else model.get_submodule(prefix.removesuffix("."))


def target_names(module: nn.Module, config: LoraConfig, where: str) -> list[str]:
    """Names of the linear layers that an adapter stands in, in order.

    Raises:
        ConfigError: a pattern fits none of them, or one shares its matrix with the embedding.
    """
    # An attention of torch itself reads the matrix of this kind and never calls the layer.
    linear = {name: layer for name, layer in module.named_modules()
              if isinstance(layer, nn.Linear) and not isinstance(layer, NonDynamicallyQuantizableLinear)}  # fmt: skip
    scores = _score_names(module)
    chosen: set[str] = set()
    for text in config.targets:
        pattern = Pattern(text)
        fits = {name for name in linear if pattern.fits(name) and (name not in scores or text in name)}
        if not fits and text not in DEFAULT_TARGETS:
            raise ConfigError(f"no linear layer fits {text!r}", where=f"{where}.targets", fix=pattern.mend(linear))
        chosen |= fits
    if not chosen:
        last = sorted({name.rpartition(".")[2] for name in linear})
        raise ConfigError(f"no linear layer is called {', '.join(config.targets)}",
                          expected=", ".join(last), where=f"{where}.targets")  # fmt: skip
    matrices = {id(p) for n, p in module.named_parameters(remove_duplicate=False)
                if n.rpartition(".")[0] not in linear}  # fmt: skip
    tied = sorted(name for name in chosen if id(linear[name].weight) in matrices)
    if tied:
        raise ConfigError(f"an adapter on {tied[0]}, whose matrix is the embedding's too",
                          where=f"{where}.targets", fix=f"leave {tied[0].rpartition('.')[2]} out")  # fmt: skip
    return [name for name in linear if name in chosen]


def _score_names(module: Any) -> set[str]:
    """Names of the layer that scores the vocabulary, which only its own name means."""
    find = getattr(module, "get_output_embeddings", None)
    scores = find() if find is not None else None
    return {name for name, layer in module.named_modules() if scores is not None and layer is scores}


def has_lora(model: MultimodalModel, prefix: str = "backbone.") -> bool:
    """Whether low-rank matrices stand in a part of the model."""
    return any("lora_A" in name and name.startswith(prefix) for name, _ in model.named_parameters())


def reset_magnitudes(model: MultimodalModel, prefix: str) -> None:
    """Set DoRA's lengths by the weights that are there now, which are others than at injection; the model
    computes what it would without an adapter as long as the low-rank product is zero."""
    for name, layer in _adapted(model, prefix).named_modules():
        if name.rpartition(".")[2] != MAGNITUDE:
            continue
        wrapper = _adapted(model, prefix).get_submodule(name.rpartition(".")[0])
        from peft.utils.integrations import dequantize_module_weight

        with torch.no_grad():
            weight_OI = dequantize_module_weight(wrapper.get_base_layer()) + wrapper.get_delta_weight("default")
            layer["default"].weight.copy_(weight_OI.norm(dim=1))


def merge_into(weights: dict[str, Tensor], delta: dict[str, Tensor], config: LoraConfig) -> None:
    """Add low-rank products to plain weights, in place; with DoRA, stretch them to their lengths.

    Args:
        weights: the model's own state, by plain names.
        delta: adapter state, by the names peft gives it.
    """
    for name, a_RI in delta.items():
        if ".lora_A." not in name:
            continue
        b_OR = delta[name.replace(".lora_A.", ".lora_B.")]
        layer = name.partition(".lora_A.")[0]
        weight_OI = weights[f"{layer}.weight"]
        low_rank_OI = b_OR.float() @ a_RI.float()
        with torch.no_grad():
            if config.dora:
                length_O = delta[f"{layer}.{MAGNITUDE}.weight"].float()
                moved_OI = weight_OI.float() + low_rank_OI * config.scale
                weight_OI.copy_(moved_OI * (length_O / moved_OI.norm(dim=1))[:, None])
            else:
                weight_OI += low_rank_OI.to(weight_OI.dtype) * config.scale


def merge_all(weights: dict[str, Tensor], delta: dict[str, Tensor], config: ModelConfig, where: str) -> None:
    """`merge_into` for all adapters of a model.

    Raises:
        WeightsError: matrices that no adapter of the config accounts for.
    """
    left = dict(delta)
    for prefix, lora in config.low_rank.items():
        mine = {name: left.pop(name) for name in list(left) if name.startswith(prefix)}
        merge_into(weights, mine, lora)
    if left:
        raise WeightsError(f"low-rank matrices without a LoRA config: {min(left)}", where=where)
