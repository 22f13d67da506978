"""Keys of a backbone's `arch` that nothing reads: transformers' config classes keep whatever they are given.

A key is known where the class has it without being given it, or takes it in (older names, what `generate`
wants). One that only becomes an attribute because it was given is read by nobody, but for a few.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sensorium.backbones.causal_lm import transformers_config
from sensorium.core.config import as_mapping
from sensorium.core.errors import ConfigError
from sensorium.core.naming import did_you_mean
from sensorium.core.parts import BackboneConfig

# Read from any config that has them, though not every class names them.
READ_ANYWAY = ("model_type", "auto_map", "transformers_version", "tie_word_embeddings", "decoder_start_token_id",
               "bos_token_id", "eos_token_id", "pad_token_id", "tokenizer_class")  # fmt: skip
ROPE_FIELDS = ("rope_parameters", "rope_scaling")
# Beside transformers' own list: the older name of `rope_type`, and what M-RoPE adds.
ROPE_KEYS = ("type", "mrope_section", "mrope_interleaved")


def check_arch(backbone: BackboneConfig, where: str = "model.backbone.arch") -> None:
    """Whether all keys of `arch` are read; for configs that people write, not for foreign checkpoints, whose
    files name much that only their own code reads.

    Raises:
        ConfigError: naming every key that is not, and the nearest one that is.
    """
    arch: dict[str, Any] | None = getattr(backbone, "arch", None)
    if arch is None:
        return
    unread = [f"unknown key {key!r} ({did_you_mean(key.rpartition('.')[2], known)})"
              for key, known in _unread(arch, transformers_config(arch), "")]  # fmt: skip
    if unread:
        raise ConfigError("; ".join(unread), where=where,
                          fix=f"name what transformers' {arch['model_type']!r} reads, or leave the key out")  # fmt: skip


def _unread(values: Mapping[str, Any], config: Any, place: str) -> Iterator[tuple[str, list[str]]]:
    """Dotted keys that nothing reads, each with those that could stand there."""
    kind = type(config)
    bare = kind()
    for key, value in values.items():
        inner, below = getattr(config, key, None), as_mapping(value)
        if below is not None and key in kind.sub_configs:
            yield from _unread(below, inner, f"{place}{key}.")
        elif below is not None and key in ROPE_FIELDS:
            yield from _unread_rope(below, f"{place}{key}.")
        elif key not in READ_ANYWAY and not hasattr(bare, key) and key in vars(config):
            known = {*vars(bare), *kind.attribute_map, *READ_ANYWAY}
            yield place + key, [name for name in known if not name.startswith("_")]


def _unread_rope(values: Mapping[str, Any], place: str) -> Iterator[tuple[str, list[str]]]:
    """The same of how positions turn; some models have that once for each type of layer."""
    from transformers.modeling_rope_utils import RopeParameters

    known = [*RopeParameters.__annotations__, *ROPE_KEYS]
    for key, value in values.items():
        below = as_mapping(value)
        if below is not None:
            yield from _unread_rope(below, f"{place}{key}.")
        elif key not in known:
            yield place + key, known
