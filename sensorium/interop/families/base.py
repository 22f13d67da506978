"""What every family answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.backbones.seq2seq_lm import Seq2SeqLMConfig
from sensorium.core.errors import ConfigError
from sensorium.interop.key_map import KeyMap
from sensorium.model.config import ModelConfig

RUNTIME_KEYS = ("transformers_version", "dtype", "torch_dtype", "architectures", "_name_or_path")


class Family(Protocol):
    """One foreign architecture."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        """The model config that a foreign config.json means."""
        ...

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        """The foreign config.json of one of our models.

        Raises:
            ConfigError: the model does not fit the architecture.
        """
        ...

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        """The key map for a foreign config."""
        ...


@runtime_checkable
class ByTensors(Protocol):
    """A family whose config.json does not say all: what there are tensors for decides."""

    def with_tensors(self, config: ModelConfig, names: Collection[str]) -> ModelConfig:
        """The model config of a file that holds tensors of these names."""
        ...


def text_arch(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's own config without notes of how it was saved."""
    return {k: v for k, v in config.items() if k not in RUNTIME_KEYS}


def lm_arch(family: str, config: ModelConfig) -> dict[str, Any]:
    """The language model's config.

    Raises:
        ConfigError: the backbone is not one of transformers.
    """
    if not isinstance(config.backbone, CausalLMConfig | Seq2SeqLMConfig):
        raise refuse_export(family, "the backbone is not a transformers language model")
    return dict(config.backbone.arch)


def refuse_export(family: str, reason: str) -> ConfigError:
    """The error for a model that does not fit."""
    return ConfigError(f"this model cannot be written in {family} layout: {reason}")
