"""The tiny form of a recipe: the same graph, freeze plan, objectives and templates, every size
shrunk, on the shipped pictures.

It trains in seconds from random parts and answers nothing; it proves that a recipe's stages run
and that they train what they say.
"""

from __future__ import annotations

from typing import Any, TypeVar

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.backbones.cross_lm import TINY, BlipTextBackbone
from sensorium.backbones.cross_tower import CrossTowerConfig
from sensorium.backbones.query_tower import QueryTowerConfig
from sensorium.backbones.seq2seq_lm import Seq2SeqLMConfig
from sensorium.backbones.text_tower import KINDS, TextTowerConfig
from sensorium.core.config import Config
from sensorium.core.errors import ConfigError
from sensorium.core.hands import MadeKind
from sensorium.core.parts import BackboneConfig
from sensorium.data.both_ways import BothWaysSource
from sensorium.data.config import PictureBookSource, SourceConfig
from sensorium.data.edits import EditsSource
from sensorium.data.located import LocatedScenesSource
from sensorium.data.requests import RequestsSource
from sensorium.encoders.imagebind import ImageBindConfig
from sensorium.encoders.imagebind_sound import SoundConfig
from sensorium.encoders.native_vit import NativeVitConfig
from sensorium.encoders.tower import TowerConfig, tiny_shape
from sensorium.fusion.gated_cross_attention import GatedCrossAttentionConfig
from sensorium.fusion.match import MatchConfig
from sensorium.fusion.visual_expert_detail import VisualExpertDetailConfig
from sensorium.media.native import NativeResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.hand import HandConfig, OtherConfig
from sensorium.output_projectors.retrieval import RetrievalConfig
from sensorium.recipes.shrink_words import tiny_words, words_backbone
from sensorium.training.config import Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.base import ObjectiveConfig

C = TypeVar("C", bound=Config)
PICTURES = 4
# Projectors that have sizes of their own; the others have those of encoder and LLM.
PROJECTORS = {
    "qformer": {"queries": 4, "width": 32, "layers": 2, "heads": 4, "mlp_width": 48, "reader": ()},
    "abstractor": {"queries": 4, "layers": 2, "heads": 4, "mlp_width": 48},
    "avg_pool": {"side": 2},
    "position_aware": {"side": 2, "heads": 4},
    "c_abstractor": {"tokens": 4, "width": 16, "depth": 1, "position_side": 4},
    "cformer": {"queries": 4, "width": 32, "layers": 2, "heads": 4, "head_dim": 8, "mlp_width": 48, "dropout": 0.0},
    "glu": {"mlp_width": 48},
    "perceiver": {"latents": 4, "depth": 2, "heads": 4, "head_dim": 8},
    "query_vit": {"queries": 3, "width": 16, "layers": 2, "heads": 2, "mlp_width": 24},
    "latent_query": {"latents": 4, "heads": 4},
    "grouping": {"width": 16, "heads": 2, "depths": (1, 1, 1), "groups": (8, 6)},
}
# A second, finer encoder of the same picture.
DETAIL = tiny_shape(width=16, layers=2, heads=2, mlp_width=24, image_size_px=64, weights=())
FUSION = {"heads": 4, "head_dim": 12, "mlp_width": 96}
ADAPTERS = {"lora": {"rank": 4, "alpha": 8.0, "dropout": 0.0},
            "bias_norm": {}, "adaption_prompt": {"layers": 1, "length": 3}, "prefix": {"length": 3}}  # fmt: skip
# Of objectives that own modules or read by a vocabulary of their own.
TEACHER = {"layers": 1, "width": 32, "heads": 4, "mlp_width": 48, "words": 512}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "blip_pretrain": {"slow": {"queue": 8}},
    "matching": {"slow": {"queue": 8}},
    "query_pretrain": {"words": 512, "width": 16},
    "sentences": {"width": 16, "teacher": TEACHER},
    # A teacher of a few steps is not to outweigh the LLM.
    "aligned": {"teacher": TEACHER, "weight": 1.0},
    # No larger than what tiny pipelines make, whose random UNet hardly heeds in a few steps what steers it: words are heard, too.
    "diffuse": {"size_px": None, "text_weight": 1.0},
    # Of what tiny pipelines make, as little as goes through their levels.
    "generate": {"denoise": {"image": {"size_px": None}, "video": {"height_px": 64, "width_px": 64, "frames": 2}, "audio": {"seconds": 0.032}}},
}
# Of what reads signal tokens.
HANDS: dict[str, dict[str, Any]] = {
    "retrieval": {"image_width": tiny_shape()["width"]},
    "mapper": {"width": 16, "layers": 1, "heads": 2, "mlp_width": 32},
    "encoder_decoder": {"layers": 1, "heads": 2, "mlp_factor": 2},
}
TALKS = ("instruct",)
DRAWS = {"regress": 0.5, "redraw": 1.0}
"""Objectives of documents, with the share whose picture stands last."""
MAKES = ("generate", "decide")
MADE: tuple[MadeKind, ...] = ("image", "video", "audio")
"""What there are requests of, and questions about."""
# By the names in transformers configs; `num_key_value_heads` stays a half where it is less.
BACKBONE = {"vocab_size": 512, "hidden_size": 48, "word_embed_proj_dim": 48,
            "intermediate_size": 96, "ffn_dim": 96, "num_attention_heads": 4,
            "num_key_value_heads": 4,
            # Kosmos-2's, and MPT's.
            "embed_dim": 48, "attention_heads": 4, "d_model": 48, "n_heads": 4}  # fmt: skip
BYTES = 263
"""Tokens of the tokenizer of bytes."""
LAYERS = ("num_hidden_layers", "layers", "n_layers")

# Of the tokenizer of bytes.
TOKENS = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}


def shrink(recipe: Recipe, *, lr: float = 1e-2, steps: int = 8) -> Recipe:
    """The tiny form of a recipe.

    Args:
        lr: of every part that learns.
        steps: of every stage.
    """
    return recipe.model_copy(
        update={
            "name": f"{recipe.name}-tiny",
            "model": _model(recipe.model),
            "stages": tuple(_stage(stage, lr, steps, recipe.model) for stage in recipe.stages),
        }
    )


def _model(config: ModelConfig) -> ModelConfig:
    fusion, every = config.fusion, 1
    if isinstance(fusion, GatedCrossAttentionConfig):
        fusion, every = _with(fusion, FUSION), fusion.every
    if isinstance(fusion, MatchConfig):
        fusion = MatchConfig.tiny()
    if isinstance(fusion, VisualExpertDetailConfig):
        fusion = _with(fusion, {"heads": 4, "head_dim": 8})
    return config.model_copy(
        update={
            "lanes": {kind: _lane(lane) for kind, lane in config.lanes.items()},
            "backbone": words_backbone(config, _backbone(config.backbone, layers=2 * every), BYTES),
            "picture_words": config.picture_words and tiny_words(config, BYTES),
            "fusion": fusion,
            "hands": {kind: _fed(hand, _lane(config.lane(kind))) if hand.feeds_back else _hand(hand) for kind, hand in config.hands.items()},
            "adapter": config.adapter and _with(config.adapter, ADAPTERS[config.adapter.kind]),
            # The tokenizer of bytes has only those of these tokens that are added to it.
            "image_markers": tuple(t for t in config.image_markers if t in config.backbone.added_tokens),
            "placeholder_token": None,
        }
    )


def _hand(hand: HandConfig) -> HandConfig:
    """With small projectors, and the tiny generators of their kinds."""
    other = hand.other and hand.other.model_copy(update=_way(hand.other))
    # The space between signals, as the tokenizer of bytes calls it.
    signals = tuple(token.replace("▁", "Ġ") for token in hand.signals)
    return hand.model_copy(update=_way(hand) | {"other": other, "signals": signals})


def _way(way: HandConfig | OtherConfig) -> dict[str, Any]:
    projector = way.projector and _with(way.projector, HANDS.get(way.projector.kind, {}))
    if isinstance(projector, RetrievalConfig) and projector.summary:
        projector = _with(projector, {"image_width": BACKBONE["hidden_size"]})
    return {"projector": projector, "generator": type(way.generator).tiny()}


def _lane(lane: LaneConfig) -> LaneConfig:
    if isinstance(lane.encoder, NativeVitConfig):
        windows = {"window_px": 32, "whole_layers": (1,)} if lane.encoder.window_px else {}
        encoder = _with(lane.encoder, tiny_shape(weights=(), **windows))
    elif isinstance(lane.encoder, TowerConfig):
        joint = {"token_projection": 16} if getattr(lane.encoder, "token_projection", None) else {}
        joint |= _imagebind(lane.encoder) if isinstance(lane.encoder, ImageBindConfig) else {}
        encoder = _with(lane.encoder, tiny_shape(weights=(), **joint))
    else:
        raise ConfigError(f"no tiny form of a {lane.encoder.kind} encoder", expected="a tower")
    sizes = PROJECTORS.get(lane.projector.kind, {})
    if lane.projector.vocabulary is not None:
        sizes = sizes | {"words": BACKBONE["vocab_size"]}
    projector = _with(lane.projector, sizes)
    resolution = lane.resolution
    if isinstance(resolution, NativeResolution):
        pixels = {"patch_px": tiny_shape()["patch_size_px"], "min_pixels": 32**2, "max_pixels": 64**2}
        resolution = _with(resolution, pixels)
    detail = lane.detail and _with(lane.detail, DETAIL)
    return lane.model_copy(
        update={"encoder": encoder, "projector": projector, "resolution": resolution, "detail": detail}
    )


def _imagebind(encoder: ImageBindConfig) -> dict[str, Any]:
    """Of a small space, with a small ear and few clips."""
    video = encoder.video and _with(encoder.video, {"clips": 2})
    return {"joint": 16, "audio": encoder.audio and SoundConfig.tiny().to_dict(), "video": video and video.to_dict()}


def _fed(hand: HandConfig, lane: LaneConfig) -> HandConfig:
    """One whose vectors are read by the lane that is given."""
    width = BACKBONE["hidden_size"] if hand.reader.feeds_back == "llm" else lane.encoder.out_dim
    sizes = {"length": lane.tile_grid().tokens, "width": width, "scale": "tiny", "weights": ()}
    return hand.model_copy(update={"generator": _with(hand.generator, sizes)})


def _backbone(config: BackboneConfig, layers: int) -> BackboneConfig:
    if isinstance(config, Seq2SeqLMConfig):
        sizes = Seq2SeqLMConfig.tiny().arch
        # Dropout would hide that what is frozen gives the same twice.
        kept = {k: v for k, v in config.arch.items() if k not in sizes}
        return Seq2SeqLMConfig(arch=kept | sizes, tokenizer="bytes")
    if isinstance(config, BlipTextBackbone):
        wide = {"hidden_size": 32} if config.one_answer else {}
        small: dict[str, Any] = {"arch": config.arch | TINY | wide, "tokenizer": "bytes"}
        if isinstance(config, CrossTowerConfig):
            small["joint"] = MatchConfig.tiny().joint
        # The first of the marks, behind all bytes, begins what is written.
        small["arch"] |= {"vocab_size": BYTES + len(config.added_tokens), "bos_token_id": BYTES}
        return _with(config, small | {"tokenizer_from": ()})
    if isinstance(config, QueryTowerConfig):
        return _with(QueryTowerConfig.tiny(), {"looks_back": config.looks_back})
    if isinstance(config, TextTowerConfig):
        # As wide as the tiny towers of pictures, with which some have to agree.
        tiny, width = TextTowerConfig.tiny().arch, KINDS[config.arch["model_type"]].width
        sizes = {name: size for name, size in tiny.items() if name != "projection_dim"} | {"hidden_size": 32, width: 32}
        return TextTowerConfig(arch=config.arch | sizes | TOKENS | {"model_type": config.arch["model_type"]},
                               tokenizer="bytes")
    if not isinstance(config, CausalLMConfig):
        raise ConfigError(f"no tiny form of a {config.kind} backbone", expected="causal_lm")
    sizes = BACKBONE | dict.fromkeys(LAYERS, layers)
    arch: dict[str, Any] = {**config.arch}
    arch |= {name: size for name, size in sizes.items() if name in arch}
    if "num_key_value_heads" in arch and (
        config.arch["num_key_value_heads"] != config.arch["num_attention_heads"]
    ):
        arch["num_key_value_heads"] = 2
    rope = arch.get("rope_parameters", {})
    if "mrope_section" in rope:
        # Half the width of a head in three.
        arch["rope_parameters"] = rope | {"mrope_section": [2, 2, 2]}
    for mark in ("bos_token_id", "eos_token_id"):
        # Ends of text of a large vocabulary are not in a small one.
        if (arch.get(mark) or 0) >= arch["vocab_size"]:
            arch[mark] = None if config.kind == "causal_lm" else 0
    if config.added_tokens:
        # As in the full form, their rows are the last ones.
        arch["vocab_size"] = BYTES + len(config.added_tokens)
    return type(config)(arch=arch, tokenizer="bytes", added_tokens=config.added_tokens)


def _stage(stage: StageConfig, lr: float, steps: int, model: ModelConfig) -> StageConfig:
    seen = any(learn.part.startswith("projectors.") for learn in stage.learns)
    source = _source(stage.objective, model, seen)
    return stage.model_copy(
        update={
            "data": (source, source.model_copy(update={"task": "drawings"})) if model.picture_words else (source,),
            "objective": _objective(stage.objective),
            "learns": tuple(learn.model_copy(update={"lr": lr}) for learn in stage.learns),
            "steps": steps,
            "epochs": None,
            "batch_size": 1 if stage.pack else PICTURES,
            "max_length": min(256 if stage.pack and not model.picture_words else 512, _backbone(model.backbone, 1).max_positions),
            "picture_px": stage.picture_px and _picture_px(stage.picture_px, model),
            "schedule": ScheduleConfig(shape=stage.schedule.shape, warmup_steps=1, every=stage.schedule.every and steps),
            "precision": "fp32",
        }
    )


def _source(objective: ObjectiveConfig, model: ModelConfig, seen: bool) -> SourceConfig:
    """The shipped pictures, edits of them, requests for what the model makes (behind a picture where it learns to see), questions about all kinds
    of media that it takes, or scenes with masks."""
    if objective.kind == "mask":
        return LocatedScenesSource(task="segment", take=PICTURES)
    if objective.kind == "diffuse":
        return EditsSource(source=PictureBookSource(part="shipped", task="captions"), take=PICTURES)
    takes = model.takes
    taken: tuple[MadeKind, ...] = tuple(kind for kind in MADE if takes.get(kind) is not None)
    if objective.kind in MAKES:
        held = bool(objective.from_answers)
        return RequestsSource(kinds=tuple(model.hands), seen=seen, seen_kinds=taken or ("image",), held=held, take=PICTURES * len(model.hands))
    if len(taken) > 1:
        return RequestsSource(kinds=taken, read=True, take=PICTURES * len(taken))
    task = "instruct" if objective.kind in TALKS else "captions"
    source = PictureBookSource(part="shipped", task=task, take=PICTURES)
    return BothWaysSource(source=source, take=PICTURES, last=DRAWS[objective.kind]) if objective.kind in DRAWS else source


def _objective(config: ObjectiveConfig) -> ObjectiveConfig:
    """With small modules of its own, and of one that it holds."""
    sizes = OBJECTIVES.get(config.kind, {})
    inner = getattr(config, "objective", None)
    held = {} if inner is None else {"objective": _objective(inner).to_dict()}
    sizes = _sized(config.to_dict(), sizes)
    return _with(config, sizes | held)


def _sized(given: dict[str, Any], sizes: dict[str, Any]) -> dict[str, Any]:
    """The sizes of what is given: nodes that are not there are left out."""
    return {key: given[key] | _sized(given[key], size) if isinstance(size, dict) else size
            for key, size in sizes.items() if not isinstance(size, dict) or given[key] is not None}  # fmt: skip


def _picture_px(size_px: int, model: ModelConfig) -> int:
    """The stage's share of the tiny tower's side, in whole patches."""
    encoder, small = model.lane("image").encoder, tiny_shape()
    patches = small["image_size_px"] // small["patch_size_px"] * size_px // encoder.preprocess().size_px
    return small["patch_size_px"] * max(1, patches)


def _with(config: C, sizes: dict[str, Any]) -> C:
    """The config with other sizes."""
    return type(config).from_dict(config.to_dict() | sizes)
