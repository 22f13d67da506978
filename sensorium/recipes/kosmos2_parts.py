"""The graph of Kosmos-2 (arXiv:2306.14824). Sizes: config.json of
huggingface.co/microsoft/kosmos-2-patch14-224."""

from __future__ import annotations

from sensorium.backbones.kosmos2_text import Kosmos2TextLMConfig
from sensorium.encoders.clip import ClipConfig
from sensorium.input_projectors.latent_query import LatentQueryConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig


def kosmos2_model() -> ModelConfig:
    """1,024 of the words are places on a grid of 32 x 32."""
    return ModelConfig(
        lanes={
            "image": LaneConfig(
                encoder=ClipConfig(
                    image_size_px=224, feature="cls_patch", norm_tokens=True, unit_tokens=True
                ),
                projector=LatentQueryConfig(),
                resolution=FixedResolution(fit="stretch"),
            )
        },
        backbone=Kosmos2TextLMConfig(
            arch={
                "model_type": "kosmos_2_text_model",
                "vocab_size": 65037,
                "embed_dim": 2048,
                "ffn_dim": 8192,
                "layers": 24,
                "attention_heads": 32,
                "max_position_embeddings": 2048,
                "dropout": 0.1,
                "attention_dropout": 0.1,
                "bos_token_id": 0,
                "pad_token_id": 1,
                "eos_token_id": 2,
            }
        ),
        template="kosmos2",
        boxes="kosmos2",
    )
