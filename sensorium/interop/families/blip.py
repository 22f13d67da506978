"""BLIP in transformers' layout: captions (`BlipForConditionalGeneration`), answers
(`BlipForQuestionAnswering`), and pictures that belong to texts (`BlipForImageTextRetrieval`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sensorium.backbones.causal_lm import transformers_config
from sensorium.backbones.cross_lm import BlipTextBackbone, CrossLMConfig
from sensorium.backbones.cross_seq2seq import CrossSeq2SeqConfig
from sensorium.backbones.cross_tower import CrossTowerConfig
from sensorium.core.errors import ConfigError
from sensorium.encoders.blip_vit import BlipVitConfig
from sensorium.fusion.cross_attention import CrossAttentionConfig
from sensorium.fusion.match import MatchConfig
from sensorium.input_projectors.linear import LinearConfig
from sensorium.interop.families.base import refuse_export, text_arch
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.text.chat import TemplateName

CAPTION, ANSWER = "BlipForConditionalGeneration", "BlipForQuestionAnswering"
RETRIEVAL = "BlipForImageTextRetrieval"
BACKBONES: dict[str, type[CrossLMConfig] | type[CrossSeq2SeqConfig] | type[CrossTowerConfig]] = {
    CAPTION: CrossLMConfig, ANSWER: CrossSeq2SeqConfig, RETRIEVAL: CrossTowerConfig,
}  # fmt: skip
# Theirs -> ours; the rest of a name stays.
TEXTS = {
    CAPTION: {"text_decoder": "backbone.lm"},
    ANSWER: {"text_encoder": "backbone.lm.text_encoder", "text_decoder": "backbone.lm.text_decoder"},
    RETRIEVAL: {"text_encoder": "backbone.lm.text_encoder", "text_proj": "backbone.lm.text_proj",
                "itm_head": "backbone.lm.itm_head", "vision_proj": "fusion.vision_proj"},
}  # fmt: skip
TEMPLATES: dict[str, TemplateName] = {CAPTION: "picture_of", ANSWER: "blip_vqa", RETRIEVAL: "pair"}
# What BLIP adds to BERT's vocabulary: begins of what the decoder and the encoder read.
MARKS = ("[DEC]", "[ENC]")


class Blip:
    """A vision transformer and BERTs with cross-attention in every layer."""

    def to_ours(self, config: Mapping[str, Any]) -> ModelConfig:
        """The model config.

        Raises:
            ConfigError: the file is of another of BLIP's classes.
        """
        name = (config.get("architectures") or [CAPTION])[0]
        if name not in BACKBONES:
            raise ConfigError(f"BLIP as {name}", expected=", ".join(BACKBONES), where="architectures")
        whole = transformers_config({**text_arch(config), "model_type": "blip"})
        text = whole.text_config
        # They come behind BERT's own words.
        marked = text.bos_token_id == text.vocab_size - len(MARKS)
        joint = {"joint": whole.image_text_hidden_size} if name == RETRIEVAL else {}
        return ModelConfig(
            lanes={"image": _lane(whole.vision_config)},
            backbone=BACKBONES[name](
                arch=text_arch(text.to_diff_dict()),
                added_tokens=MARKS if marked else (),
                # transformers begins questions as BERT's texts do.
                begins_with=MARKS[0] if marked and name == CAPTION else None,
                **joint,
            ),
            fusion=MatchConfig(**joint) if joint else CrossAttentionConfig(),
            template=TEMPLATES[name],
        )

    def to_theirs(self, config: ModelConfig) -> dict[str, Any]:
        lane, backbone = config.lanes.get("image"), config.backbone
        if lane is None or not isinstance(lane.encoder, BlipVitConfig):
            raise refuse_export("blip", "the encoder is not BLIP's")
        names = [name for name, kind in BACKBONES.items() if isinstance(backbone, kind)]
        if not isinstance(backbone, BlipTextBackbone) or not names:
            raise refuse_export("blip", "the backbone is not BLIP's")
        width = backbone.joint if isinstance(backbone, CrossTowerConfig) else 256
        return {
            "image_text_hidden_size": width,
            "architectures": names,
            "model_type": "blip",
            "text_config": dict(backbone.arch),
            "vision_config": {
                "model_type": "blip_vision_model",
                **lane.encoder.hf_shape(),
                "layer_norm_eps": lane.encoder.norm_eps,
            },
        }

    def key_map(self, config: Mapping[str, Any]) -> KeyMap:
        name = (config.get("architectures") or [CAPTION])[0]
        text = tuple(Rule(f"{theirs}.*", f"{ours}.*") for theirs, ours in TEXTS[name].items())
        return KeyMap(
            rules=(Rule("vision_model.*", "encoders.image.tower.*"), *text),
            left_out=("embeddings.position_ids",),
        )


def _lane(vision: Any) -> LaneConfig:
    encoder = BlipVitConfig(
        width=vision.hidden_size,
        layers=vision.num_hidden_layers,
        heads=vision.num_attention_heads,
        mlp_width=vision.intermediate_size,
        image_size_px=vision.image_size,
        patch_size_px=vision.patch_size,
        norm_eps=vision.layer_norm_eps,
    )
    return LaneConfig(
        encoder=encoder,
        projector=LinearConfig(project=False),
        resolution=FixedResolution(fit="stretch"),
    )
