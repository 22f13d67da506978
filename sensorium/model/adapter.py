"""Low-rank adapters on the LLM: injected through peft, merged by arithmetic.

While training, the adapter's matrices stand beside the frozen weights. For answering
they are added into them, so that serving needs neither peft nor extra work a token.

Adaption prompts, the other kind of adapter, cannot be merged: `MultimodalModel` builds them in
(`backbones/adaption_prompt.py`), and they are saved and loaded like any part.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sensorium.core.errors import ConfigError, MissingDependencyError
from sensorium.model.config import LoraConfig
from sensorium.model.multimodal import MultimodalModel


def inject_adapter(model: MultimodalModel) -> None:
    """Add the config's low-rank adapter to the LLM; its output starts at zero. A model
    with adaption prompts was built with them.

    Raises:
        MissingDependencyError: peft is not installed.
        ConfigError: no layer matches the adapter's targets.
    """
    config = model.config.adapter
    if not isinstance(config, LoraConfig) or has_lora(model):
        return
    try:
        import peft
    except ImportError:
        raise MissingDependencyError(
            "adapters need peft", fix="pip install -e '.[train]' in the clone"
        ) from None
    names = {name.rpartition(".")[2] for name, m in model.backbone.lm.named_modules()
             if isinstance(m, nn.Linear)}
    targets = [t for t in config.targets if t in names]
    if not targets:
        raise ConfigError(
            f"no linear layer of the LLM is called {', '.join(config.targets)}",
            expected=", ".join(sorted(names)),
            where="model.adapter.targets",
        )
    lora = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=config.dropout,
        target_modules=targets,
    )
    peft.inject_adapter_in_model(lora, model.backbone.lm)


def has_lora(model: MultimodalModel) -> bool:
    """Whether low-rank matrices stand in the model."""
    return any("lora_A" in name for name, _ in model.backbone.named_parameters())


def merge_into(weights: dict[str, Tensor], delta: dict[str, Tensor], config: LoraConfig) -> None:
    """Add low-rank products to plain weights, in place.

    Args:
        weights: the model's own state, by plain names.
        delta: adapter state, by the names peft gives it.
    """
    scale = config.alpha / config.rank
    for name, a_RD in delta.items():
        if ".lora_A." not in name:
            continue
        b_OR = delta[name.replace(".lora_A.", ".lora_B.")]
        target = name.partition(".lora_A.")[0] + ".weight"
        with torch.no_grad():
            weights[target] += (b_OR.float() @ a_RD.float()).to(weights[target].dtype) * scale
