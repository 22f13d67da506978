"""MM1 and PaLI-X, whose weights are closed: the figures that their papers print."""

from __future__ import annotations

import pytest
from part_sizes import BY_PARTS, UL2, vit_22b

from sensorium.model.picture_size import at_size
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.recipes.mm1_parts import MM1_LR, Mm1Size, learning_rate


@pytest.mark.parametrize(("size", "billions"), [("3b", 3), ("7b", 7), ("30b", 30)])
def test_mm1(size: Mm1Size, billions: int) -> None:
    recipe = RECIPES.find(f"mm1-{size}")()
    assert recipe.model.lane("image").tile_grid().tokens == 144
    assert float(f"{learning_rate(billions * 1e9):.0e}") == MM1_LR[size]
    pretrain, tune = recipe.stages
    assert {learn.lr for learn in pretrain.learns} == {MM1_LR[size]}
    assert [source.weight for source in pretrain.data] == [0.45, 0.45, 0.1]
    assert (pretrain.batch_size, pretrain.max_length) == (512, 4096)
    assert {learn.part for learn in tune.learns} == {"encoders.image", "projectors.image", "backbone"}


def test_pali_x_sizes() -> None:
    """22B (the tower's paper: 21,743M, its pooling head and classes aside). 32B have an output layer of
    their own, as UL2 has; transformers' T5 ties it to the embedding."""
    sizes = BY_PARTS["pali-x"].sizes()
    assert vit_22b() == pytest.approx(21_743e6, rel=2e-3)
    assert round(sizes["encoders.image"] / 1e9) == 22
    assert round((sizes["backbone"] + UL2["vocab_size"] * UL2["d_model"]) / 1e9) == 32


def test_pali_x_pictures_grow() -> None:
    recipe = RECIPES.find("pali-x")()
    assert [stage.picture_px for stage in recipe.stages] == [224, 448, 672, 756]
    tokens = [at_size(recipe.model, stage.picture_px or 0).lane("image").tile_grid().tokens
              for stage in recipe.stages]  # fmt: skip
    assert tokens == [16**2, 32**2, 48**2, 54**2]
    assert [stage.picture_px for stage in TINY_FORMS.find("pali-x")().stages] == [8, 16, 24, 32]
