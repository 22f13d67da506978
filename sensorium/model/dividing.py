"""Which modules of a model may be divided among processes, each to be gathered while it runs."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from sensorium.backbones.causal_lm import CausalLM, CausalLMConfig
from sensorium.core.errors import ConfigError
from sensorium.model.check import is_quantised
from sensorium.model.config import ModelConfig
from sensorium.model.multimodal import MultimodalModel

FUSIONS = ("splice",)
"""Those that read no weight of the LLM from outside of its layers."""
LANES = ("image",)
"""Those of which a blank medium can be made."""


def check_dividing(config: ModelConfig) -> None:
    """Whether a model of this config may be divided.

    Raises:
        ConfigError: naming the part that cannot.
    """
    backbone = config.backbone
    if not isinstance(backbone, CausalLMConfig):
        raise ConfigError(f"shard: full with a backbone of kind {backbone.kind!r}", expected="causal_lm",
                          where="shard", fix="shard: none")  # fmt: skip
    if is_quantised(config):
        raise ConfigError(f"shard: full with a backbone in {backbone.quantise}", expected="weights that are numbers",
                          where="shard", fix="leave backbone.quantise out, or shard: none")  # fmt: skip
    if config.fusion.kind not in FUSIONS:
        raise ConfigError(f"shard: full with fusion {config.fusion.kind!r}", expected=", ".join(FUSIONS),
                          where="shard", fix="shard: none")  # fmt: skip
    others = sorted(set(config.lanes) - set(LANES))
    if others:
        raise ConfigError(f"shard: full with a lane {others[0]!r}", expected=", ".join(LANES),
                          where="shard", fix="shard: none")  # fmt: skip


def dividable(model: MultimodalModel, encoders: Collection[str]) -> list[nn.Module]:
    """The LLM's layers, and the blocks of these encoders where each is a module that is called.

    Args:
        encoders: names in `model.encoders`.
    """
    backbone = model.backbone
    assert isinstance(backbone, CausalLM)  # `check_dividing`
    found = backbone.decoder_layers()
    for name in encoders:
        found += dividable_blocks(model.encoders[name])
    return found


def dividable_blocks(encoder: nn.Module) -> list[nn.Module]:
    """The blocks of an encoder that every pass with pictures calls, and calls equally often."""
    # One that takes its pictures in pieces calls its blocks once a piece: processes with other numbers of pictures would wait.
    if getattr(encoder, "in_pieces", False):
        return []
    blocks: list[nn.Module] = getattr(encoder, "trainable_blocks", list)()
    # What pairs the blocks of two towers is not called itself.
    return [block for block in blocks if type(block).forward is not nn.Module.forward]
