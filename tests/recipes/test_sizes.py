"""Is every published recipe as large, part by part, as the original?"""

from __future__ import annotations

from pathlib import Path

import pytest
from oracles import ORACLES, oracle_sizes

from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.recipes.sizes import on_meta, part_sizes
from sensorium.recipes.systems_page import systems_page
from sensorium.training.config import Recipe

PAGE = Path(__file__).parents[2] / "docs" / "systems.md"
# The class has no single linear map; the map is Lin(1024, 4096).
ONE_LINEAR_MAP = {"llava-v1": 1024 * 4096 + 4096, "shikra": 1024 * 4096 + 4096}


def published() -> list[str]:
    return [name for name in RECIPES if RECIPES.find(name)().published is not None]


def test_every_published_recipe_has_an_oracle() -> None:
    assert set(published()) == set(ORACLES)


@pytest.mark.parametrize("name", ORACLES)
def test_parts_are_as_large_as_the_originals(name: str) -> None:
    recipe: Recipe = RECIPES.find(name)()
    oracle, expected = oracle_sizes(name)
    if name in ONE_LINEAR_MAP:
        expected["projectors.image"] = ONE_LINEAR_MAP[name]
    assert part_sizes(recipe.model) == expected
    assert recipe.published is not None
    assert recipe.published.oracle == oracle


@pytest.mark.parametrize("name", ORACLES)
def test_no_memory_is_taken(name: str) -> None:
    assert all(p.is_meta for p in on_meta(RECIPES.find(name)().model).parameters())


def test_published_totals() -> None:
    """To the precision in which the originals print them."""
    billions = {n: sum(part_sizes(RECIPES.find(n)().model).values()) / 1e9 for n in ORACLES}
    assert round(billions["llava-1.5"]) == 7
    assert round(billions["llava-1.5-13b"]) == 13
    assert round(billions["idefics-9b"]) == 9


def test_the_page_is_up_to_date() -> None:
    again = "run: sensorium recipe table --out docs/systems.md"
    assert PAGE.read_text(encoding="utf-8") == systems_page(), again


def test_tiny_forms_keep_the_graph() -> None:
    """Same kinds of parts, same freeze plan, same objectives and templates."""
    for name in TINY_FORMS:
        full, small = RECIPES.find(name)(), TINY_FORMS.find(name)()
        assert Recipe.from_dict(small.to_dict()) == small
        assert small.model.template == full.model.template
        assert small.model.fusion.kind == full.model.fusion.kind
        for kind, lane in full.model.lanes.items():
            assert small.model.lanes[kind].encoder.kind == lane.encoder.kind
            assert small.model.lanes[kind].projector.kind == lane.projector.kind
        for one, two in zip(full.stages, small.stages, strict=True):
            assert one.objective == two.objective
            assert [(x.part, x.module) for x in one.learns] == [(x.part, x.module) for x in two.learns]


def test_a_variant_is_tested_through_what_it_varies() -> None:
    assert set(published()) - set(TINY_FORMS) == {"llava-1.5-13b"}
