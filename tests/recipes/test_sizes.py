"""Is every published recipe the original, as large, part by part, and short?"""

from __future__ import annotations

import inspect
import sys
from typing import Any

import pytest
import torch
from oracles import ORACLES
from part_sizes import BY_PARTS

from sensorium.backbones.causal_lm import CausalLMConfig, transformers_config
from sensorium.backbones.cross_lm import BlipTextBackbone
from sensorium.backbones.seq2seq_lm import Seq2SeqLMConfig
from sensorium.backbones.text_tower import TextTowerConfig
from sensorium.core.parts import BackboneConfig
from sensorium.interop.families import FAMILIES
from sensorium.media.native import NativeResolution
from sensorium.model.adapter import inject_adapter
from sensorium.model.config import ModelConfig
from sensorium.model.learning import count_parameters
from sensorium.model.multimodal import MultimodalModel
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.recipes.shrink import OBJECTIVES
from sensorium.recipes.sizes import adapter_size, on_meta
from sensorium.text.byte_tokenizer import byte_tokenizer
from sensorium.training.config import Recipe

# The class has no single linear map; the map is Lin(1024, 4096).
ONE_LINEAR_MAP = dict.fromkeys(("llava-v1", "shikra", "chatspot"), 1024 * 4096 + 4096)

# As the originals' names say; what a diffusion model makes of a condition is none of them. Janus-1.3B is named for its LLM, which has
# 1.7 billion with its two tables of words, and 1.2 without.
BILLIONS = {"llava-v1": 7, "llava-1.5": 7, "llava-1.5-13b": 13, "idefics-9b": 9, "llava-next": 7,
            "llava-onevision": 8, "chameleon": 7, "janus-pro": 7, "emu": 14, "emu2": 37, "emu2-chat": 37, "emu2-gen": 37, "seed-llama": 8,
            "seed-llama-14b": 14}  # fmt: skip


def published() -> list[str]:
    return [name for name in RECIPES if RECIPES.find(name)().published is not None]


def test_every_published_recipe_has_an_oracle_or_parts_that_have() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    assert set(published()) == set(ORACLES) | set(BY_PARTS) | {"llama-adapter", "llama-adapter-v2"}
    # `test_llama_adapter.py` compares its parts.
    # The reason for going by parts: transformers does not have the system.
    assert {parts.model_type for parts in BY_PARTS.values()}.isdisjoint(CONFIG_MAPPING_NAMES)


@pytest.mark.parametrize("name", BY_PARTS)
def test_parts_without_an_oracle_are_as_large_as_the_originals(name: str) -> None:
    recipe: Recipe = RECIPES.find(name)()
    assert recipe.published is not None
    assert recipe.published.oracle is None
    sizes = {part: size for part, size, _ in count_parameters(on_meta(recipe.model))}
    assert sizes == BY_PARTS[name].sizes()
    if name in BILLIONS:
        assert round(sum(sizes.values()) / 1e9) == BILLIONS[name]


@pytest.mark.parametrize("name", ORACLES)
def test_parts_are_as_large_as_the_originals(name: str) -> None:
    recipe: Recipe = RECIPES.find(name)()
    expected = ORACLES[name].sizes()
    if name in ONE_LINEAR_MAP:
        expected["projectors.image"] = ONE_LINEAR_MAP[name]
    if name == "chameleon":
        expected["picture_tokenizer"] += decoder_of_pictures()
    model = on_meta(recipe.model)
    assert all(p.is_meta for p in model.parameters()), "memory was taken"
    assert {part: size for part, size, _ in count_parameters(model)} == expected
    if name == "emu3":
        assert round(expected["backbone"] / 1e9) == 8
    if name in BILLIONS:
        assert round(sum(expected.values()) / 1e9) == BILLIONS[name]
    assert recipe.published is not None
    assert recipe.published.oracle == ORACLES[name].class_name


def decoder_of_pictures() -> int:
    """Parameters of the decoder that transformers leaves out: Janus' with Chameleon's sizes, without attention at its coarsest level."""
    from transformers.models.janus.configuration_janus import JanusVQVAEConfig
    from transformers.models.janus.modeling_janus import JanusVQVAEDecoder

    sizes = {"base_channels": 128, "latent_channels": 256, "channel_multiplier": [1, 1, 2, 2, 4], "num_res_blocks": 2}
    with torch.device("meta"):
        decoder: Any = JanusVQVAEDecoder(JanusVQVAEConfig(**sizes))
    apart = {id(p) for name, module in decoder.named_modules() if ".attn" in name and "mid" not in name for p in module.parameters()}
    return sum(p.numel() for p in decoder.parameters() if id(p) not in apart)


def test_each_published_total_is_compared() -> None:
    assert set(BILLIONS) <= set(ORACLES) | set(BY_PARTS)


def test_flamingo_3b_as_its_paper_prints() -> None:
    sizes = BY_PARTS["flamingo"].sizes()
    assert round(sizes["fusion"] / 1e9, 1) == 1.2
    assert round(sizes["backbone"] / 1e9, 1) == 1.4


def decoder(backbone: BackboneConfig) -> dict[str, Any]:
    """All that a language model's config says about its computation."""
    assert isinstance(backbone, CausalLMConfig | Seq2SeqLMConfig | TextTowerConfig | BlipTextBackbone)
    saved = ("architectures", "dtype", "_name_or_path", "transformers_version")
    config = transformers_config(backbone.arch).to_dict()
    return {key: value for key, value in config.items() if key not in saved}


def words_of(model: ModelConfig) -> dict[str, Any]:
    """How pictures are tokens, but for what the preparing file and the tensors say: size of pictures, and whether there is a decoder."""
    assert model.picture_words is not None
    told = model.picture_words.to_dict()
    tokenizer = {key: value for key, value in told["tokenizer"].items() if key not in ("decoder", "weights")}
    return {**told, "tokenizer": tokenizer}


@pytest.mark.parametrize("name", ORACLES)
def test_the_graph_is_the_one_that_importing_the_original_gives(name: str) -> None:
    """`tests/parity` shows that an imported model computes what the original computes."""
    recipe: Recipe = RECIPES.find(name)()
    model = FAMILIES.find(ORACLES[name].family)().to_ours(ORACLES[name].config().to_dict())
    if recipe.model.picture_words is not None:
        assert words_of(recipe.model) == words_of(model)
        assert recipe.model.template == model.template
    if not model.lanes:
        assert not recipe.model.lanes
        assert decoder(recipe.model.backbone) == decoder(model.backbone)
        return
    mine, theirs = recipe.model.lanes["image"], model.lanes["image"]
    assert mine.encoder.model_copy(update={"weights": ()}) == theirs.encoder
    if name not in ONE_LINEAR_MAP:
        # Where a tokenizer comes from is not of the graph.
        apart = {"reader": ()} if hasattr(mine.projector, "reader") else {}
        assert mine.projector.model_copy(update=apart) == theirs.projector
    # Families of one tile lay pictures out by a file of their own, which config.json is not.
    if theirs.resolution.kind == "anyres":
        assert mine.resolution == theirs.resolution
    # Least and most pixels are in that file, too.
    if isinstance(theirs.resolution, NativeResolution):
        assert isinstance(mine.resolution, NativeResolution)
        pixels = {"min_pixels": mine.resolution.min_pixels, "max_pixels": mine.resolution.max_pixels}
        assert mine.resolution == theirs.resolution.model_copy(update=pixels)
        assert recipe.model.template == model.template
    assert recipe.model.fusion == model.fusion
    assert decoder(recipe.model.backbone) == decoder(model.backbone)


def test_an_adapter_is_as_large_as_the_one_that_learns() -> None:
    config = TINY_FORMS.find("llava-1.5-lora")().model
    model = MultimodalModel(config)
    inject_adapter(model)
    learning = sum(p.numel() for n, p in model.named_parameters() if ".lora_" in n)
    assert adapter_size(config) == learning > 0


def shrunk(objective: dict[str, Any]) -> dict[str, Any]:
    """An objective's values with the small sizes of what it owns."""
    values = sized(objective, OBJECTIVES.get(objective["kind"], {}))
    if "objective" in values:
        values["objective"] = shrunk(values["objective"])
    return values


def sized(values: dict[str, Any], sizes: dict[str, Any]) -> dict[str, Any]:
    """Values with these small sizes, of nodes that are there."""
    small = {key: sized(values[key], size) if isinstance(size, dict) else size for key, size in sizes.items() if values[key] is not None or not isinstance(size, dict)}
    return values | small


OTHER_TOWER = ("nano-chooses",)
"""EfficientNet has no tiny form: its widths are its weights'."""


def test_tiny_forms_keep_the_graph() -> None:
    """Same kinds of parts, same freeze plan, same objectives and templates."""
    for name in TINY_FORMS:
        full, small = RECIPES.find(name)(), TINY_FORMS.find(name)()
        assert Recipe.from_dict(small.to_dict()) == small
        assert small.model.template == full.model.template
        assert small.model.fusion.kind == full.model.fusion.kind
        for kind, lane in full.model.lanes.items():
            assert small.model.lanes[kind].encoder.kind == lane.encoder.kind or name in OTHER_TOWER
            assert small.model.lanes[kind].projector.kind == lane.projector.kind
        for one, two in zip(full.stages, small.stages, strict=True):
            assert shrunk(one.objective.to_dict()) == two.objective.to_dict()
            assert [(x.part, x.module) for x in one.learns] == [(x.part, x.module) for x in two.learns]


def test_added_tokens_have_the_last_rows_of_a_tiny_form() -> None:
    for name in TINY_FORMS:
        model = TINY_FORMS.find(name)().model
        backbone, told = model.backbone, model.picture_words
        if backbone.added_tokens:
            # Words of a picture's codes lie behind them.
            codes = told.tokenizer.codes if told is not None and told.words else 0
            assert backbone.vocab_size == len(byte_tokenizer()) + len(backbone.added_tokens) + codes


def test_a_variant_is_tested_through_what_it_varies() -> None:
    variants = {"clip-l-336", "siglip-so400m", "llava-1.5-13b", "llava-next-mistral", "llava-onevision-0.5b", "qwen2-vl-2b",
                "qwen2.5-vl-3b", "llava-onevision-1.5-8b", "openflamingo-4b", "openflamingo-9b"}  # fmt: skip
    variants |= {"mm1-7b", "mm1-30b", "cogvlm-224", "clip-l", "janus-pro", "seed-llama-14b"}
    assert set(published()) - set(TINY_FORMS) == variants


def test_a_recipe_fits_on_a_page() -> None:
    """At most 60 lines for a published system, its docstring and tiny form included."""
    for name in published():
        lines = inspect.getsource(sys.modules[RECIPES.find(name).__module__]).splitlines()
        assert len(lines) <= 60, name
