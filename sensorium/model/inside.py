"""What enters inside the LLM's layers, by its fusion and its adapter, and which LLMs take it."""

from __future__ import annotations

from sensorium.backbones.adaption_prompt import FAMILIES as PROMPT_FAMILIES
from sensorium.backbones.adaption_prompt import check_prompts
from sensorium.backbones.causal_lm import CausalLMConfig, transformers_config
from sensorium.backbones.cross_seq2seq import CrossSeq2SeqConfig
from sensorium.backbones.prefix import check_prefix
from sensorium.backbones.seq2seq_lm import Seq2SeqLMConfig
from sensorium.backbones.token_experts import check_experts
from sensorium.core.errors import ConfigError
from sensorium.fusion.splice import SpliceConfig
from sensorium.fusion.visual_expert import VisualExpertConfig
from sensorium.model.config import AdaptionPromptConfig, ModelConfig, PrefixConfig


def check_adapter(config: ModelConfig) -> None:
    """Adaption prompts and prefixes want attention of a kind that they know, prompts no second weights beside it.

    Raises:
        ConfigError: the LLM's is another, or a visual expert hooks into the same layers.
    """
    adapter, backbone = config.adapter, config.backbone
    if isinstance(adapter, PrefixConfig):
        if not isinstance(backbone, CausalLMConfig):
            raise ConfigError(f"a prefix for a backbone of kind {backbone.kind}", expected="causal_lm",
                              where="model.adapter", fix="nearest: adapter: {kind: lora}")  # fmt: skip
        check_prefix(transformers_config(backbone.arch))
    if not isinstance(adapter, AdaptionPromptConfig):
        return
    if isinstance(config.fusion, VisualExpertConfig):
        raise ConfigError(
            f"adaption prompts with fusion {config.fusion.kind}, which runs the same layers by other weights",
            where="model.adapter",
            fix="nearest: adapter: {kind: lora}, or fusion: {kind: splice} or {kind: visual_prompt}",
        )
    if not isinstance(backbone, CausalLMConfig):
        raise ConfigError(
            f"adaption prompts with backbone {backbone.kind}",
            expected=f"causal_lm of type {', '.join(PROMPT_FAMILIES)}",
            where="model.adapter",
            fix="nearest: adapter: {kind: lora}",
        )
    check_prompts(str(backbone.arch.get("model_type")), backbone.num_layers, adapter.layers)


def check_inside(config: ModelConfig) -> None:
    """What enters inside the LLM's layers, or gives them second weights, wants layers that it knows.

    Raises:
        ConfigError: the LLM is an encoder-decoder, counts places in two dimensions, or is of another family.
    """
    fusion, backbone = config.fusion, config.backbone
    if isinstance(fusion, VisualExpertConfig) and isinstance(backbone, CausalLMConfig):
        check_experts(transformers_config(backbone.arch))
    if isinstance(backbone, CrossSeq2SeqConfig):
        backbone.check()
    if isinstance(backbone, Seq2SeqLMConfig) and not isinstance(fusion, SpliceConfig):
        raise ConfigError(f"fusion {fusion.kind} with an encoder-decoder", where="model.fusion",
                          fix="nearest: fusion: {kind: splice}, or a decoder-only language model")  # fmt: skip
    if backbone.mrope and not fusion.fills_slots:
        raise ConfigError(
            f"fusion {fusion.kind} with a language model that gives pictures places in two dimensions (M-RoPE)",
            expected="a fusion whose tokens stand in the text: splice",
            where="model.fusion",
            fix="nearest: fusion: {kind: splice}, or the plain qwen2 in place of "
            f"{getattr(backbone, 'arch', {}).get('model_type')}",
        )
