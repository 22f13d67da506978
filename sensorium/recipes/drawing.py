"""A recipe's graph in plain text: parts, shapes between them, parameters, what learns when."""

from __future__ import annotations

from sensorium.core.naming import of_choice, of_detail
from sensorium.core.parts import EncoderConfig
from sensorium.encoders.native_vit import NativeVitConfig
from sensorium.encoders.tower import TowerConfig
from sensorium.fusion.apart import ApartConfig
from sensorium.fusion.cross_attention import CrossAttentionConfig
from sensorium.fusion.gated_cross_attention import GatedCrossAttentionConfig
from sensorium.fusion.match import MatchConfig
from sensorium.fusion.visual_expert import VisualExpertConfig
from sensorium.fusion.visual_expert_detail import VisualExpertDetailConfig
from sensorium.fusion.visual_prompt import VisualPromptConfig
from sensorium.media.native import NativeResolution
from sensorium.model.config import (
    AdapterConfig,
    AdaptionPromptConfig,
    BiasNormConfig,
    LaneConfig,
    LoraConfig,
    ModelConfig,
    PrefixConfig,
)
from sensorium.model.hand import HandConfig
from sensorium.model.picture_words import PictureWordsConfig
from sensorium.recipes.sizes import adapter_size, part_sizes, tokens_text
from sensorium.recipes.summary import llm_name
from sensorium.training.config import Recipe

NAME, WHAT, COUNT = 22, 46, 16


def draw(recipe: Recipe) -> str:
    """The drawing; every count is taken from the model, built on the meta device."""
    model, sizes = recipe.model, part_sizes(recipe.model)
    table = _Table(recipe, {**sizes, "adapter": adapter_size(model)})
    lines = [f"{recipe.name}: {sum(sizes.values()):,} parameters", ""]
    for kind, lane in model.lanes.items():
        lines += _lane(kind, lane, model, table)
    if model.picture_words is not None:
        lines += _words(model.picture_words, table)
    lines += _language_model(model, table)
    for kind, hand in model.hands.items():
        lines += _hand(kind, hand, model, table)
    return "\n".join(line.rstrip() for line in lines) + "\n"


class _Table:
    """Lines for parts, with their counts and the stages in which they learn."""

    def __init__(self, recipe: Recipe, sizes: dict[str, int]) -> None:
        self.sizes = sizes
        self.learns: dict[str, list[str]] = {}
        for stage in recipe.stages:
            for learn in stage.learns:
                inner = learn.module or (f"last {learn.last_blocks}" if learn.last_blocks else "")
                said = f"{stage.name} ({inner})" if inner else stage.name
                self.learns.setdefault(learn.part, []).append(said)

    def line(self, part: str, what: str) -> str:
        learns = ", ".join(self.learns.get(part, ())) or "frozen"
        return f"{part:<{NAME}}{what:<{WHAT}}{self.sizes.get(part, 0):>{COUNT},}  {learns}"


def _words(told: PictureWordsConfig, table: _Table) -> list[str]:
    """Pictures that are read and written as tokens, or written alone."""
    tokenizer, grid = told.tokenizer, told.tokenizer.grid()
    where = "of the vocabulary" if told.shared else "with tables of their own"
    lines = [f"{'picture':<{NAME}}{tokenizer.size_px} x {tokenizer.size_px} pixels <-> {grid.h} x {grid.w} codes",
             table.line("picture_tokenizer", f"{tokenizer.kind}, {tokenizer.codes:,} codes")]  # fmt: skip
    if not told.shared:
        lines.append(table.line("code_tables", "their embedding, and a head for them"))
    return [*lines, f"  |  words {where}", "  v"]


def _lane(kind: str, lane: LaneConfig, model: ModelConfig, table: _Table) -> list[str]:
    """From a medium to the tokens that the LLM meets."""
    encoder, grid = lane.encoder, lane.encoder.grid()
    size, patches = f"{encoder.preprocess().size_px} x {encoder.preprocess().size_px}", f"{grid.tokens:,}"
    if isinstance(lane.resolution, NativeResolution):
        px = lane.resolution.patch_px
        size, patches = "H x W", f"H/{px} x W/{px}"
    width = model.backbone.d_media
    if not getattr(lane.projector, "project", True):
        width = encoder.out_dim
    lines = [
        f"{kind:<{NAME}}3 x {size} bytes ({lane.resolution.kind})",
        "  |",
        table.line(f"encoders.{kind}", _encoder(encoder)),
        f"  |  {patches} x {encoder.out_dim:,}",
        table.line(f"projectors.{kind}", lane.projector.kind),
    ]
    if lane.lookup is not None:
        between = lane.projector.out_grid(grid).tokens
        part, what = f"lookups.{kind}", "averages of word embeddings"
        lines.append(f"  |  {between:,} x {width:,}")
        lines.append(table.line(part, what) if part in table.sizes else f"{'lookup':<{NAME}}{what}")
    if lane.places is not None:
        lines.append(table.line(f"places.{kind}", f"{lane.places.room} tokens of words and boxes, in front"))
    lines.append(f"  |  {tokens_text(lane)} x {width:,}" + (" a tile" if lane.resolution.kind == "anyres" else ""))
    if f"newlines.{kind}" in table.sizes:
        lines.append(table.line(f"newlines.{kind}", "one token behind each row of the map"))
    if lane.detail is not None:
        finer, grid = lane.detail.preprocess().size_px, lane.detail.grid()
        lines += ["  v", f"{'the same':<{NAME}}3 x {finer} x {finer} bytes", "  |",
                  table.line(f"encoders.{of_detail(kind)}", _encoder(lane.detail)),
                  f"  |  {grid.tokens:,} x {lane.detail.out_dim:,}, read inside the layers"]  # fmt: skip
    return [*lines, "  v"]


def _encoder(encoder: EncoderConfig) -> str:
    if isinstance(encoder, NativeVitConfig):
        return f"{encoder.kind}, {encoder.layers} layers, patch"
    if not isinstance(encoder, TowerConfig):
        return encoder.kind
    layer = "" if encoder.select_layer is None else f", layer {encoder.select_layer}"
    return f"{encoder.kind}, {encoder.layers} layers, {encoder.feature}{layer}"


def _adapter(adapter: AdapterConfig) -> str:
    if isinstance(adapter, LoraConfig):
        return f"LoRA of rank {adapter.rank}"
    if isinstance(adapter, AdaptionPromptConfig):
        return f"prompts of {adapter.length} in the last {adapter.layers} layers"
    if isinstance(adapter, PrefixConfig):
        return f"{adapter.length} keys and values in front, in every layer"
    if isinstance(adapter, BiasNormConfig):
        return "biases and norms of the LLM" if adapter.norms else "biases of the LLM"
    return adapter.kind


def _language_model(model: ModelConfig, table: _Table) -> list[str]:
    """Fusion, layers and scores."""
    backbone, fusion = model.backbone, model.fusion
    if isinstance(fusion, ApartConfig | MatchConfig):
        return _text_tower(model, table)
    words = f"{backbone.vocab_size:,} words -> T x {backbone.d_model:,}"
    lines = [f"{'text':<{NAME}}{words}", "  v"]
    if isinstance(fusion, GatedCrossAttentionConfig):
        blocks = fusion.num_blocks(backbone.num_layers)
        inside = f"{blocks} gated cross-attentions, every {fusion.every} layers"
        lines.append(table.line("fusion", inside))
    elif isinstance(fusion, VisualExpertConfig):
        finer = ", a finer look" if isinstance(fusion, VisualExpertDetailConfig) else ""
        lines.append(table.line("fusion", f"second weights for pictures{finer}"))
    elif isinstance(fusion, VisualPromptConfig):
        lines.append(f"{fusion.kind:<{NAME}}features are added to the adapter's prompts")
    elif isinstance(fusion, CrossAttentionConfig):
        lines.append(f"{fusion.kind:<{NAME}}every layer of the LLM attends to the features")
    elif model.lanes:
        lines.append(f"{fusion.kind:<{NAME}}features take the places of placeholder tokens")
    lines += ["  |", table.line("backbone", f"{llm_name(model)}, {backbone.num_layers} layers")]
    if model.adapter is not None:
        lines.append(table.line("adapter", _adapter(model.adapter)))
    if model.tuning is not None and model.tuning is not model.adapter:
        lines.append(table.line("tuning", _adapter(model.tuning)))
    lines += [f"  |  T x {backbone.d_model:,}", "  v", f"{'scores':<{NAME}}T x {backbone.vocab_size:,}"]
    return [*lines, *([table.line("written", "rows for writing of single words")] if model.written else [])]


def _hand(kind: str, hand: HandConfig, model: ModelConfig, table: _Table) -> list[str]:
    """From signal tokens to what makes a medium, both ways if there are two."""
    width = model.backbone.d_model
    if hand.projector is None:
        told = " ... ".join(hand.signals) or ("boxes" if hand.generator.cuts_boxes else "the whole answer")
        return ["", f"{f'{kind} made':<{NAME}}{told} -> {hand.generator.kind}"]
    reads = model.ways[kind].reads
    between = sum(hand.signals.count(token) > 1 for token in hand.signals)
    how = f"{reads} embeddings behind {hand.signals[0]}, each read before the next" if hand.feeds_back else (
        f"{reads - between} signal tokens{f' and {between} between' if between else ''}, {hand.signals[0]} first")  # fmt: skip
    lines = ["", f"{f'{kind} made':<{NAME}}{how} -> {reads} x {width:,}"]
    if hand.choice is not None:
        lines.append(table.line(f"hands.{of_choice(kind)}", "which way"))
    for name, way in model.ways.items():
        if way.kind == kind:
            condition = way.generator.condition
            lines += ["  |", table.line(f"hands.{name}", way.projector.kind),
                      f"  |  {condition.length:,} x {condition.width:,}", "  v",
                      f"{way.generator.kind:<{NAME}}{way.generator.makes}"]  # fmt: skip
    return lines


def _text_tower(model: ModelConfig, table: _Table) -> list[str]:
    """The other side of a dual encoder, and the scores between both."""
    backbone = model.backbone
    words = f"{backbone.vocab_size:,} words -> T x {backbone.d_model:,}"
    return [
        f"{'text':<{NAME}}{words}",
        "  |",
        table.line("backbone", f"{llm_name(model)}, {backbone.num_layers} layers"),
        f"  |  1 x {getattr(model.fusion, 'joint', backbone.d_media):,}",
        "  v",
        table.line("fusion", "cosines of pictures and texts"),
    ]
