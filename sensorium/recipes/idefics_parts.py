"""The graph of IDEFICS-9B (arXiv:2306.16527): CLIP ViT-H, a perceiver resampler, gated
cross-attention before every fourth layer of LLaMA-7B.

Sizes: config.json of huggingface.co/HuggingFaceM4/idefics-9b.
"""

from __future__ import annotations

from sensorium.core.weights import HubSource
from sensorium.encoders.idefics_vit import IdeficsVitConfig
from sensorium.fusion.gated_cross_attention import GatedCrossAttentionConfig
from sensorium.input_projectors.perceiver import PerceiverConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.recipes.published_parts import LLAMA, llama

AROUND, IMAGE = "<fake_token_around_image>", "<image>"


def idefics_model() -> ModelConfig:
    """The published sizes; the two markers are the last rows of the vocabulary."""
    shape = LLAMA["7b"]
    return ModelConfig(
        lanes={
            "image": LaneConfig(
                encoder=IdeficsVitConfig(weights=(HubSource(id="laion/CLIP-ViT-H-14-laion2B-s32B-b79K"),)),
                projector=PerceiverConfig(
                    heads=16, head_dim=96, norm_heads=True, activation="relu", project=False
                ),
                resolution=FixedResolution(fit="stretch"),
            )
        },
        backbone=llama("7b", "huggyllama/llama-7b", vocab_size=32002).model_copy(
            update={"added_tokens": (AROUND, IMAGE)}
        ),
        fusion=GatedCrossAttentionConfig(
            every=4,
            heads=shape["num_attention_heads"],
            head_dim=shape["hidden_size"] // shape["num_attention_heads"],
            mlp_width=shape["intermediate_size"],
            feed_forward="swiglu",
            norm="rms",
            norm_eps=1e-6,
            norm_heads=True,
        ),
        image_markers=(AROUND, IMAGE, AROUND),
        template="document",
    )
