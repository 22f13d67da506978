"""Does every part keep the promises of its kind?"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sensorium.core.batch import Features, Grid, MediaShape
from sensorium.core.errors import ConfigError
from sensorium.core.parts import EncoderConfig
from sensorium.encoders import ENCODERS
from sensorium.encoders.tower import TowerConfig
from sensorium.fusion import FUSIONS
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.media import RESOLUTIONS
from sensorium.model.config import ADAPTERS
from sensorium.recipes import RECIPES
from sensorium.training.objectives import OBJECTIVES

TABLES = (ENCODERS, INPUT_PROJECTORS, FUSIONS, RESOLUTIONS, ADAPTERS)
# What is not a transformer tower has no layers and no CLS token to choose.
TOWERS = [n for n in ENCODERS if issubclass(ENCODERS.find(n), TowerConfig)]


@pytest.mark.parametrize(
    ("table", "name"), [(t, n) for t in TABLES for n in t], ids=lambda v: str(getattr(v, "noun", v))
)
def test_config_round_trips(table: Any, name: str) -> None:
    config = table.find(name).tiny()
    assert config.kind == name
    assert table.find(name).from_dict(config.to_dict()) == config


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_keeps_its_promise(name: str) -> None:
    config = ENCODERS.find(name).tiny()
    preprocess, grid = config.preprocess(), config.grid()
    size = preprocess.size_px
    assert config.num_tokens(MediaShape(10, 1000)) == grid.tokens
    pixels = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    module = config.build().eval()
    with torch.no_grad():
        features = module(pixels)
    assert features.grids == (grid, grid)
    assert features.values_ND.shape == (2 * grid.tokens, config.out_dim)
    with torch.no_grad():
        alone = module(pixels[1:])
    expected = features.values_ND[grid.tokens :]
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(alone.values_ND / scale, expected / scale, atol=1e-5, rtol=1e-4)
    assert module.trainable_blocks()


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("feature", ["patch", "cls_patch", "cls", "pooled"])
@pytest.mark.parametrize("layer", [None, -2])
def test_tower_features(name: str, feature: str, layer: int | None) -> None:
    tiny: TowerConfig = ENCODERS.find(name).tiny()
    config = tiny.from_dict(tiny.to_dict() | {"feature": feature, "select_layer": layer})
    size = config.preprocess().size_px
    pixels = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    has_cls = config.prefix_tokens > 0
    if (not has_cls and feature in ("cls", "cls_patch")) or (
        feature == "pooled" and (layer is not None or not config.has_pooled)
    ):
        with pytest.raises(ConfigError):
            config.build()
        return
    features = config.build().eval()(pixels)
    assert features.values_ND.shape == (config.grid().tokens, config.out_dim)


@pytest.mark.parametrize("name", ["clip", "siglip", "dinov2", "vit", "blip2_vit"])
@pytest.mark.parametrize("layer", [-1, -2, 0, 1])
def test_layer_choice_equals_the_list_of_hidden_states(name: str, layer: int) -> None:
    tiny: TowerConfig = ENCODERS.find(name).tiny()
    tower = tiny.from_dict(tiny.to_dict() | {"feature": "patch", "select_layer": layer}).build().eval()
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        listed = tower.tower(tower.normalise(pixels), output_hidden_states=True).hidden_states[layer]
        got = tower(pixels).values_ND
    assert torch.equal(got, listed[:, tiny.prefix_tokens :].flatten(0, 1))


def published(name: str) -> EncoderConfig:
    """An encoder at its default, which is a published size; a pair is as large as its towers."""
    kind = ENCODERS.find(name)
    return kind(first=published("siglip"), second=published("dinov2")) if name == "fused" else kind()


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_builds_at_published_size_without_memory(name: str) -> None:
    config = published(name)
    with torch.device("meta"):
        module = config.build()
    # Buffers that hold known numbers may be real; weights may not.
    assert all(p.is_meta for p in module.parameters())


@pytest.mark.parametrize("name", INPUT_PROJECTORS)
@pytest.mark.parametrize("grid", [Grid(4, 4), Grid(2, 6)], ids=str)
def test_projector_keeps_its_promise(name: str, grid: Grid) -> None:
    config = INPUT_PROJECTORS.find(name).tiny()
    module = config.build(32, 48)
    features = Features(torch.randn(3 * grid.tokens, 32), (grid,) * 3)
    out = module(features)
    assert out.dim == 48
    assert out.lengths == [config.num_tokens(grid)] * 3
    assert len(out.values_ND) == sum(out.lengths)
    out.values_ND.sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    # Modules can be moved and recast like any other.
    assert all(p.dtype == torch.float64 for p in module.to(torch.float64).parameters())


@pytest.mark.parametrize("name", INPUT_PROJECTORS)
def test_projector_treats_items_alone(name: str) -> None:
    """Items of different layouts in one call give what each gives alone."""
    config = INPUT_PROJECTORS.find(name).tiny()
    module = config.build(16, 24).eval()
    grids = (Grid(4, 4), Grid(2, 2), Grid(4, 4), Grid(2, 4))
    pieces = [torch.randn(g.tokens, 16) for g in grids]
    together = module(Features(torch.cat(pieces), grids))
    for piece, grid, out in zip(pieces, grids, together.values_ND.split(together.lengths), strict=True):
        alone = module(Features(piece, (grid,))).values_ND
        torch.testing.assert_close(out, alone, atol=1e-5, rtol=1e-4)


def test_pixel_shuffle_names_the_bad_grid() -> None:
    config = INPUT_PROJECTORS.find("pixel_shuffle").tiny()
    with pytest.raises(ConfigError, match="3x4"):
        config.out_grid(Grid(3, 4))


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_prints_and_reads_back(name: str) -> None:
    import yaml

    from sensorium.training.config import Recipe

    recipe = RECIPES.find(name)()
    assert Recipe.from_dict(yaml.safe_load(recipe.to_yaml())) == recipe


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective_config_round_trips(name: str) -> None:
    config = OBJECTIVES.find(name)()
    assert OBJECTIVES.find(name).from_dict(config.to_dict()) == config
