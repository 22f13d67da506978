"""The graphs of LLMs that read and write pictures as tokens, at their published sizes, and their tiny forms.

Sizes: config.json of huggingface.co/BAAI/Emu3-Chat-hf, facebook/chameleon-7b and deepseek-community/Janus-Pro-1B and -7B.
"""

from __future__ import annotations

from typing import Any, Literal

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.backbones.chameleon_text import ChameleonTextConfig
from sensorium.backbones.emu3_text import Emu3TextConfig
from sensorium.core.weights import HubSource
from sensorium.encoders.siglip import SiglipConfig
from sensorium.generators.chameleon_vq import ChameleonVqConfig
from sensorium.generators.emu3_vq import Emu3VqConfig
from sensorium.generators.janus_vq import JanusVqConfig
from sensorium.input_projectors.mlp import MlpConfig
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.picture_layouts import CHAMELEON, EMU3, JANUS
from sensorium.model.picture_words import CodeTablesConfig, PictureWordsConfig

JanusSize = Literal["1b", "7b"]
DEEPSEEK: dict[JanusSize, dict[str, int]] = {
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16,
           "num_key_value_heads": 16},
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 30, "num_attention_heads": 32,
           "num_key_value_heads": 32},
}  # fmt: skip
# Of each vocabulary, where the words of codes begin.
EMU3_FIRST, CHAMELEON_FIRST = 151854, 4


def emu3_model() -> ModelConfig:
    """A Llama of 32 layers with 32,768 words for pictures."""
    arch: dict[str, Any] = {
        "model_type": "emu3_text_model", "vocab_size": 184622, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 9216,
        "rms_norm_eps": 1e-5, "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}, "pad_token_id": 151643,
        "bos_token_id": 151849, "eos_token_id": 151850, "attention_dropout": 0.1, "tie_word_embeddings": False,
    }  # fmt: skip
    vq = Emu3VqConfig(weights=(HubSource(id="BAAI/Emu3-Chat-hf"),))
    told = PictureWordsConfig(tokenizer=vq, words=((EMU3_FIRST, vq.codes),), **EMU3)
    backbone = Emu3TextConfig(arch=arch, tokenizer_from=(HubSource(id="BAAI/Emu3-Chat-hf"),))
    return ModelConfig(backbone=backbone, picture_words=told, template="emu3")


def chameleon_model() -> ModelConfig:
    """A Llama of 32 layers whose queries and keys are normed, with 8,192 words for pictures."""
    arch: dict[str, Any] = {
        "model_type": "chameleon", "vocab_size": 65536, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
        "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
    }  # fmt: skip
    vq = ChameleonVqConfig(weights=(HubSource(id="facebook/chameleon-7b"),))
    told = PictureWordsConfig(tokenizer=vq, words=((CHAMELEON_FIRST, vq.codes),), **CHAMELEON)
    backbone = ChameleonTextConfig(arch=arch, tokenizer_from=(HubSource(id="facebook/chameleon-7b"),))
    return ModelConfig(backbone=backbone, picture_words=told, template="chameleon")


def janus_model(size: JanusSize) -> ModelConfig:
    """SigLIP-L at 384 pixels reads, 16,384 codes of LlamaGen's tokenizer are written."""
    arch = {"model_type": "llama", "vocab_size": 102400, **DEEPSEEK[size], "max_position_embeddings": 16384,
            "tie_word_embeddings": False}  # fmt: skip
    tower = SiglipConfig(width=1024, layers=24, heads=16, mlp_width=4096, image_size_px=384, patch_size_px=16, activation="gelu",
                         pooling_head=False, weights=(HubSource(id="google/siglip-large-patch16-384"),))  # fmt: skip
    vq = JanusVqConfig(weights=(HubSource(id="deepseek-community/Janus-Pro-1B"),))
    told = PictureWordsConfig(tokenizer=vq, tables=CodeTablesConfig(), **JANUS)
    return ModelConfig(
        lanes={"image": LaneConfig(encoder=tower, projector=MlpConfig(depth=2))},
        backbone=CausalLMConfig(arch=arch, tokenizer_from=(HubSource(id=f"deepseek-community/Janus-Pro-{size.upper()}"),)),
        picture_words=told,
        template="janus",
    )
