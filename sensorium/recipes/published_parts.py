"""Parts that several published systems share, at their published sizes."""

from __future__ import annotations

from typing import Any, Literal

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.backbones.seq2seq_lm import Seq2SeqLMConfig
from sensorium.core.weights import HubSource
from sensorium.encoders.clip import ClipConfig
from sensorium.encoders.siglip import SiglipConfig
from sensorium.generators.stable_diffusion import StableDiffusionConfig

SD_15 = StableDiffusionConfig(weights=(HubSource(id="stable-diffusion-v1-5/stable-diffusion-v1-5"),))
"""Where `runwayml/stable-diffusion-v1-5` has gone (arXiv:2112.10752)."""
Size = Literal["7b", "13b"]
QwenSize = Literal["0.5b", "1.5b", "7b"]
# Sizes of LLaMA (arXiv:2302.13971), which Vicuna keeps.
LLAMA: dict[Size, dict[str, int]] = {
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
           "num_attention_heads": 32, "num_key_value_heads": 32},
    "13b": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
            "num_attention_heads": 40, "num_key_value_heads": 40},
}  # fmt: skip


def clip_l(size_px: Literal[224, 336]) -> ClipConfig:
    """CLIP ViT-L/14 (arXiv:2103.00020), patch features of the last layer but one."""
    suffix = "-336" if size_px == 336 else ""
    return ClipConfig(
        image_size_px=size_px,
        select_layer=-2,
        weights=(HubSource(id=f"openai/clip-vit-large-patch14{suffix}"),),
    )


def siglip_so400m() -> SiglipConfig:
    """SigLIP SO400M/14 at 384 pixels (arXiv:2303.15343) as LLaVA-OneVision reads it: without the
    last of its 27 blocks and without its head."""
    return SiglipConfig(
        layers=26,
        select_layer=-1,
        pooling_head=False,
        weights=(HubSource(id="google/siglip-so400m-patch14-384"),),
    )


def llama(size: Size, hub_id: str | None, **changes: Any) -> CausalLMConfig:
    """LLaMA or a relative of its shape; the defaults are those of the first LLaMA."""
    arch: dict[str, Any] = {
        "model_type": "llama",
        "vocab_size": 32000,
        **LLAMA[size],
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
    return CausalLMConfig(
        arch=arch | changes, weights=(HubSource(id=hub_id),) if hub_id else ()
    )


def vicuna_15(size: Size) -> CausalLMConfig:
    """Vicuna v1.5, which is Llama 2 (arXiv:2307.09288) tuned on conversations."""
    return llama(size, f"lmsys/vicuna-{size}-v1.5", max_position_embeddings=4096, rms_norm_eps=1e-5)


def llama_2_chat_7b() -> CausalLMConfig:
    """Llama 2 (arXiv:2307.09288), tuned on conversations by its makers."""
    return llama("7b", "meta-llama/Llama-2-7b-chat-hf", max_position_embeddings=4096, rms_norm_eps=1e-5)


# Sizes of Qwen2 (arXiv:2407.10671), from the config.json of each.
QWEN2: dict[QwenSize, dict[str, Any]] = {
    "0.5b": {"vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864,
             "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
             "tie_word_embeddings": True},
    "1.5b": {"vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960,
             "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
             "tie_word_embeddings": True},
    "7b": {"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
           "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
           "tie_word_embeddings": False},
}  # fmt: skip


def qwen2_instruct(size: QwenSize) -> CausalLMConfig:
    """Qwen2-Instruct, whose attention reaches all positions."""
    arch: dict[str, Any] = {
        "model_type": "qwen2",
        **QWEN2[size],
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
    }
    return CausalLMConfig(arch=arch, weights=(HubSource(id=f"Qwen/Qwen2-{size.upper()}-Instruct"),))


def qwen_7b() -> CausalLMConfig:
    """Qwen-7B, the first, which Qwen2's class computes; its own files are brought into that class' layout."""
    return CausalLMConfig(
        arch={
            "model_type": "qwen2",
            "vocab_size": 151936,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
        },
        weights=(HubSource(id="Qwen/Qwen-7B", format="qwen"),),
        stretched_beyond=2048,
    )


def mistral_7b_instruct() -> CausalLMConfig:
    """Mistral-7B-Instruct v0.2 (arXiv:2310.06825), without a sliding window."""
    return CausalLMConfig(
        arch={
            "model_type": "mistral",
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1000000.0,
            "sliding_window": None,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "tie_word_embeddings": False,
        },
        weights=(HubSource(id="mistralai/Mistral-7B-Instruct-v0.2"),),
    )


def opt_2_7b() -> CausalLMConfig:
    """OPT-2.7B (arXiv:2205.01068)."""
    return _opt("2.7b", hidden_size=2560, word_embed_proj_dim=2560, ffn_dim=10240)


def opt_6_7b(*added: str) -> CausalLMConfig:
    """OPT-6.7B with control tokens behind those of its tokenizer, and no row for anything else, as
    `resize_token_embeddings` leaves it."""
    sizes = {"hidden_size": 4096, "word_embed_proj_dim": 4096, "ffn_dim": 16384, "vocab_size": OPT_TOKENS + len(added)}
    return _opt("6.7b", **sizes).model_copy(update={"added_tokens": added})


OPT_TOKENS = 50265
"""Of OPT's tokenizer; its embeddings have seven rows more."""


def _opt(size: str, **sizes: int) -> CausalLMConfig:
    arch: dict[str, Any] = {
        "model_type": "opt",
        "vocab_size": 50272,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "do_layer_norm_before": True,
        "bos_token_id": 2,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }
    return CausalLMConfig(arch=arch | sizes, weights=(HubSource(id=f"facebook/opt-{size}"),))


def flan_t5_xl() -> Seq2SeqLMConfig:
    """FlanT5-XL (arXiv:2210.11416), from its config.json."""
    return Seq2SeqLMConfig(
        arch={
            "model_type": "t5",
            "vocab_size": 32128,
            "d_model": 2048,
            "d_kv": 64,
            "d_ff": 5120,
            "num_layers": 24,
            "num_decoder_layers": 24,
            "num_heads": 32,
            "feed_forward_proj": "gated-gelu",
            "dropout_rate": 0.1,
            "tie_word_embeddings": False,
            "decoder_start_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 0,
        },
        weights=(HubSource(id="google/flan-t5-xl"),),
    )
