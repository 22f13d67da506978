"""Flamingo-3B (arXiv:2204.14198) with open stand-ins for its closed parts.

Resampler and blocks have the paper's sizes (its table 4: 6 and 24 layers, widths 1536 and 2048, 16
heads, squared ReLU; for the width of the resampler's heads see `flamingo`), without biases as in OpenFlamingo. The language model is one
of the same depth, width, heads and size; the tower one that was trained by contrast too and yields
features of the same width.
"""

from __future__ import annotations

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.weights import HubSource
from sensorium.encoders.siglip import SiglipConfig
from sensorium.fusion.gated_cross_attention import GatedCrossAttentionConfig
from sensorium.input_projectors.perceiver import PerceiverConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig

IMAGE, CHUNK_END = "<image>", "<EOC>"
# The words of GPT-NeoX-20B's tokenizer, and two new ones.
VOCABULARY = 50_277 + 2


def pythia_1_4b() -> CausalLMConfig:
    """Pythia-1.4B (arXiv:2304.01373), in the place of Chinchilla-1.4B."""
    return CausalLMConfig(
        arch={
            "model_type": "gpt_neox",
            "vocab_size": VOCABULARY,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "max_position_embeddings": 2048,
            "rotary_pct": 0.25,
            "use_parallel_residual": True,
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
        weights=(HubSource(id="EleutherAI/pythia-1.4b"),),
        added_tokens=(CHUNK_END, IMAGE),
    )


def siglip_giant() -> SiglipConfig:
    """SigLIP 2 giant (arXiv:2502.14786), in the place of NFNet-F6 at 320 pixels."""
    return SiglipConfig(
        width=1536, layers=40, heads=16, mlp_width=6144, image_size_px=384, patch_size_px=16,
        weights=(HubSource(id="google/siglip2-giant-opt-patch16-384"),),
    )  # fmt: skip


def flamingo_model() -> ModelConfig:
    """A block in front of every layer."""
    heads, head_dim = 16, 128
    return ModelConfig(
        lanes={
            "image": LaneConfig(
                encoder=siglip_giant(),
                projector=PerceiverConfig(
                    heads=heads, head_dim=head_dim, activation="squared_relu", project=False
                ),
                resolution=FixedResolution(),  # Whole pictures; padded with white, there with the mean.
            )
        },
        backbone=pythia_1_4b(),
        fusion=GatedCrossAttentionConfig(heads=heads, head_dim=head_dim, feed_forward="squared_relu"),
        image_markers=(IMAGE,),
        template="flamingo",
    )
