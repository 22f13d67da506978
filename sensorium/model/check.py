"""Which parts go together: refused here, by config alone, is all that could not be built or run."""

from __future__ import annotations

from collections.abc import Collection

import torch

from sensorium.backbones.cross_lm import BlipTextBackbone
from sensorium.backbones.cross_tower import CrossTowerConfig
from sensorium.backbones.quantised import DEVICES
from sensorium.backbones.query_tower import QueryTowerConfig
from sensorium.backbones.seq2seq_lm import Seq2SeqLMConfig
from sensorium.core.errors import ConfigError
from sensorium.fusion import FUSIONS
from sensorium.fusion.apart import ApartConfig
from sensorium.fusion.cross_attention import CrossAttentionConfig
from sensorium.fusion.match import MatchConfig
from sensorium.fusion.query_match import QueryMatchConfig
from sensorium.fusion.splice import SpliceConfig
from sensorium.fusion.visual_expert import VisualExpertConfig
from sensorium.fusion.visual_expert_detail import VisualExpertDetailConfig
from sensorium.fusion.visual_prompt import VisualPromptConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.clip_check import check_clips
from sensorium.model.config import AdaptionPromptConfig, LoraConfig, ModelConfig, PrefixConfig
from sensorium.model.fitting import check_lane, check_picture_words
from sensorium.model.hand_check import check_fed_back
from sensorium.model.inside import check_adapter, check_inside
from sensorium.model.written import check_written


def check_model(config: ModelConfig) -> None:
    """Do the parts fit together? Asked before weights are looked for.

    Raises:
        ConfigError: what does not, and the nearest that would.
    """
    check_fusion(config)
    _check_visual_prompts(config)
    for kind, lane in config.lanes.items():
        check_lane(kind, lane, config.backbone)
    check_quantised(config)
    check_adapter(config)
    check_inside(config)
    _check_ends(config)
    _check_details(config)
    check_picture_words(config)
    check_fed_back(config)
    _check_frames(config)
    check_clips(config)
    check_written(config.written, config.backbone)


def _check_frames(config: ModelConfig) -> None:
    """Can tokens of a video's frames be averaged?"""
    pool = config.video.pool if config.video is not None else 1
    if pool == 1:
        return
    where, lane = "model.video.pool", config.lanes.get("image")
    plain = lane is not None and isinstance(lane.resolution, FixedResolution) and isinstance(config.fusion, SpliceConfig) and not config.backbone.mrope
    if lane is None or not plain:
        raise ConfigError("frames of fewer tokens than pictures", expected="a lane image of resolution fixed, fusion splice, plain positions",
                          where=where, fix="leave it out")  # fmt: skip
    grid = lane.tile_grid()
    if grid.h % pool or grid.w % pool:
        raise ConfigError(f"squares of {pool} x {pool} on a map of {grid.h} x {grid.w} tokens", expected="a number that divides both sides", where=where)


def check_quantised(config: ModelConfig) -> None:
    """What goes with a backbone in four bits.

    Raises:
        ConfigError: an adapter or a fusion needs its weights as numbers.
    """
    if not is_quantised(config):
        return
    found = [(config.adapter, "model.adapter", "lora or prefix", LoraConfig | PrefixConfig),
             (config.fusion, "model.fusion", "another fusion", None)]  # fmt: skip
    for part, where, expected, fits in found:
        bad = isinstance(part, VisualExpertConfig) if fits is None else part is not None and not isinstance(part, fits)
        if part is not None and bad:
            raise ConfigError(f"{part.kind} with a quantised backbone, whose weights it would have to read",
                              expected=expected, where=where, fix="leave backbone.quantise out")  # fmt: skip


def is_quantised(config: ModelConfig) -> bool:
    """Whether the language model's weights are in four bits."""
    return getattr(config.backbone, "quantise", None) is not None


def check_quantised_run(device: torch.device, learns: Collection[str]) -> None:
    """Whether a quantised language model can run there, while these parts learn.

    Raises:
        ConfigError: naming the device or the part.
    """
    if device.type not in DEVICES:
        raise ConfigError(f"a quantised language model on {device.type}", expected=f"one of {', '.join(DEVICES)}",
                          where="model.backbone.quantise", fix="run on the CPU, or leave quantise out")  # fmt: skip
    if "backbone" in learns:
        raise ConfigError("the backbone learns, and is quantised", expected="part adapter: lora or prefix",
                          where="learns", fix="let an adapter learn, or leave backbone.quantise out")  # fmt: skip


def refuse_quantised(config: ModelConfig, what: str, where: str) -> None:
    """Refuse what needs the language model's weights as numbers.

    Raises:
        ConfigError: they are in four bits.
    """
    if is_quantised(config):
        raise ConfigError(
            f"{what} of a model whose language model is quantised",
            expected="weights as numbers: what is read back from four bits is not what the source holds",
            where=where,
            fix="export the adapter with --adapter-only; put it onto a model without backbone.quantise with import --onto",
        )


def check_fusion(config: ModelConfig) -> None:
    """Text towers need `apart`, BERTs with cross-attention `cross_attention`, and the other way round.

    Raises:
        ConfigError: one is without the other.
    """
    matches = isinstance(config.backbone, CrossTowerConfig)
    if matches != isinstance(config.fusion, MatchConfig):
        raise _unlike(config, "match with cross_tower")
    if matches:
        widths = {getattr(part, "joint", None) for part in (config.backbone, config.fusion)}
        if len(widths) > 1:
            raise ConfigError(
                "texts and pictures in spaces of different width",
                expected="one number",
                where="model.backbone.joint and model.fusion.joint",
            )
        return
    asks = isinstance(config.backbone, QueryTowerConfig)
    if asks != isinstance(config.fusion, QueryMatchConfig):
        raise _unlike(config, "query_match with query_tower")
    if asks:
        return
    crosses = isinstance(config.backbone, BlipTextBackbone)
    if crosses != isinstance(config.fusion, CrossAttentionConfig):
        raise _unlike(config, "cross_attention with a backbone whose layers have cross-attention")
    check_apart(config)


def check_apart(config: ModelConfig) -> None:
    """A text tower and the fusion `apart` need each other, and one embedding for a picture.

    Raises:
        ConfigError: one is without the other, or a picture becomes several tokens.
    """
    embeds = config.text_frame is not None
    if embeds != isinstance(config.fusion, ApartConfig):
        raise _unlike(config, "apart with text_tower, and another with a language model")
    if not embeds:
        return
    for kind, lane in config.lanes.items():
        tokens = lane.tile_grid().tokens
        if tokens != 1 or not isinstance(lane.resolution, FixedResolution):
            raise ConfigError(
                f"{tokens} tokens of {kind} at resolution {lane.resolution.kind}",
                expected="one token, because a picture is compared with a text as a whole",
                where=f"model.lanes.{kind}",
                fix="choose feature: pooled and resolution fixed",
            )


def _unlike(config: ModelConfig, expected: str) -> ConfigError:
    fitting = [name for name in FUSIONS if _meets(config, name)]
    return ConfigError(
        f"fusion {config.fusion.kind} with backbone {config.backbone.kind}",
        expected=expected,
        where="model.fusion",
        fix=f"with this backbone: {', '.join(fitting)}",
    )


def _meets(config: ModelConfig, fusion: str) -> bool:
    """Whether the backbone and a fusion of this kind are of one sort."""
    kind = FUSIONS.find(fusion)
    if isinstance(config.backbone, CrossTowerConfig):
        return kind is MatchConfig
    if isinstance(config.backbone, QueryTowerConfig):
        return kind is QueryMatchConfig
    if isinstance(config.backbone, BlipTextBackbone):
        return kind is CrossAttentionConfig
    if config.text_frame is not None:
        return kind is ApartConfig
    if isinstance(config.backbone, Seq2SeqLMConfig):
        return kind is SpliceConfig
    return kind not in (MatchConfig, QueryMatchConfig, CrossAttentionConfig, ApartConfig)


def _check_ends(config: ModelConfig) -> None:
    """A visual expert knows whether projectors put learned tokens around a picture.

    Raises:
        ConfigError: what it believes is not so.
    """
    if not isinstance(config.fusion, VisualExpertConfig):
        return
    for kind, lane in config.lanes.items():
        ends = bool(getattr(lane.projector, "ends", False))
        if ends != config.fusion.ends:
            raise ConfigError(
                f"fusion visual_expert with ends: {str(config.fusion.ends).lower()}",
                expected=f"ends: {str(ends).lower()}, as the projector has it",
                where=f"model.lanes.{kind}.projector",
            )


def _check_details(config: ModelConfig) -> None:
    """Second encoders and the fusion that reads them come together, one input for each picture.

    Raises:
        ConfigError: one is there without the other, encoders differ in width, or there are tiles.
    """
    wanted = isinstance(config.fusion, VisualExpertDetailConfig)
    widths: set[int] = set()
    for kind, lane in config.lanes.items():
        where = f"model.lanes.{kind}.detail"
        if (lane.detail is not None) != wanted:
            raise ConfigError(
                f"fusion {config.fusion.kind} with{'' if lane.detail else 'out'} a second encoder",
                where=where,
                fix="use a detail encoder and fusion: {kind: visual_expert_detail} together",
            )
        if lane.detail is not None:
            widths.add(lane.detail.out_dim)
            if not isinstance(lane.resolution, FixedResolution):
                raise ConfigError(f"a second encoder with resolution {lane.resolution.kind}",
                                  expected="fixed: one input for each picture", where=where)  # fmt: skip
    if len(widths) > 1:
        raise ConfigError(f"second encoders of widths {sorted(widths)}", expected="one width",
                          where="model.lanes")  # fmt: skip


def _check_visual_prompts(config: ModelConfig) -> None:
    """Where media add to adaption prompts: there are some, of as many vectors as features.

    Raises:
        ConfigError: the model has no prompts, or a medium another number of features.
    """
    if not isinstance(config.fusion, VisualPromptConfig):
        return
    if not isinstance(config.adapter, AdaptionPromptConfig):
        raise ConfigError(
            "fusion visual_prompt in a model without adaption prompts",
            where="model.adapter",
            fix="set adapter: {kind: adaption_prompt}",
        )
    for kind, lane in config.lanes.items():
        tokens = lane.tile_grid().tokens
        if not isinstance(lane.resolution, FixedResolution):
            raise ConfigError(
                f"resolution {lane.resolution.kind} with fusion visual_prompt",
                expected="fixed: every medium adds the same number of features",
                where=f"model.lanes.{kind}.resolution",
            )
        if tokens not in (1, config.adapter.length):
            raise ConfigError(
                f"{tokens} features of {kind} for prompts of {config.adapter.length} vectors",
                expected=f"1 or {config.adapter.length}",
                where=f"model.lanes.{kind}",
                fix="choose a pooled feature, or a projector with as many queries",
            )
