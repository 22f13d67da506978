"""Things and their places, told in words: the eyes learn them without the LLM, which then reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from sensorium.core.batch import Features, Grid
from sensorium.core.boxes import Box
from sensorium.core.errors import ConfigError
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.model.config import LaneConfig
from sensorium.model.lookup import LookupConfig, VocabularyLookup
from sensorium.model.places import (
    MARKS,
    STEPS,
    Cells,
    Places,
    PlacesConfig,
    best_things,
    inside,
    share_N,
)
from sensorium.processing.processor import Processor
from sensorium.recipes import RECIPES
from sensorium.text.box_formats import MiniGPTv2
from sensorium.training.config import Recipe
from sensorium.training.objectives.places import Thing, pair_up
from sensorium.training.run import train_recipe
from sensorium.training.trainer import TrainerOptions

GRID = Grid(4, 4)
SMALL = "model.lanes.image.places={room: 96, hidden: 32}"
WORDS = (
    "model.boxes=minigpt_v2", "model.lanes.image.lookup={words: 64, pieces: 8}", SMALL,
    "stages.align.objective={kind: vocabulary}", "stages.align.steps=1", "stages.align.batch_size=2",
    "stages.align.data=[{kind: scenes, task: captions, count: 4}]", "stages.instruct.checkpoint_every=99",
)  # fmt: skip
LEARNT = (
    "stages.instruct.objective={kind: places}", "stages.instruct.steps=12", "stages.instruct.batch_size=4",
    "stages.instruct.data=[{kind: located_scenes, task: words, count: 4}]",
    "stages.instruct.learns=[{part: places.image, lr: 0.004}]",
)  # fmt: skip


def tiny(*overrides: str) -> Recipe:
    return RECIPES.find("tiny")().override([*WORDS, *overrides])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, list[dict[str, Any]]]:
    import json

    folder = tmp_path_factory.mktemp("places")
    recipe = tiny(*LEARNT)
    options = TrainerOptions(folder=folder, cache=folder / "cache")
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)
    lines = (folder / "log.jsonl").read_text().splitlines()
    return recipe, folder / "model", [json.loads(line) for line in lines]


def test_it_learns_what_is_where_and_is_kept(trained: tuple[Recipe, Path, list[dict[str, Any]]]) -> None:
    recipe, folder, log = trained
    mine = [row for row in log if row.get("stage") == "instruct" and "loss" in row]
    assert mine[-1]["loss"] < 0.8 * mine[0]["loss"]
    model, tokenizer = load_model(folder)
    places = cast(Places, model.places["image"])
    assert int((places.spelling_NK[:, 0] >= 0).sum()) == STEPS + 1 + len(MARKS)
    processor = Processor(recipe.model, tokenizer)
    from sensorium.data.located import LocatedScenesSource

    sample = LocatedScenesSource(count=8).open()[0]
    example = processor.encode(sample)
    lane = recipe.model.lanes["image"]
    assert lane.places is not None
    grid = lane.projector.out_grid(lane.encoder.grid())
    assert lane.tile_grid().tokens == grid.tokens + lane.places.room
    features = model.features({"image": example.media["image"]})["image"]
    assert features.grids[0].tokens == len(features.values_ND) == lane.tile_grid().tokens


def told(places: Places, cells: Cells, decode: Any, lookup: VocabularyLookup, embedding: torch.Tensor) -> str:
    return decode(places.told(cells, lookup, embedding)[0].tolist())


def test_what_is_told_reads_as_words_and_boxes(
    trained: tuple[Recipe, Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two things with certain boxes, the first sure of one word and the other torn between two."""
    model, tokenizer = load_model(trained[1])
    places, lookup = cast(Places, model.places["image"]), cast(VocabularyLookup, model.lookups["image"])
    embedding_VD = model.backbone.embedding.weight.detach()
    keys_CD = torch.nn.functional.normalize(lookup.keys(embedding_VD), dim=-1)
    thing_MS = torch.full((1, 16), -9.0)
    box_MS4 = torch.zeros(1, 16, 4)
    # A map in which each box sees one number, which stands for a word.
    map_MSE = torch.zeros(1, 16, keys_CD.shape[1])
    thing_MS[0, [5, 6, 10]] = torch.tensor([4.0, 3.0, 2.0])
    box_MS4[0, 5] = torch.tensor([0.25, 0.30, 0.76, 0.87])
    box_MS4[0, 6] = torch.tensor([0.26, 0.31, 0.76, 0.87])  # Nearly the same: told once.
    box_MS4[0, 10] = torch.tensor([-0.2, 0.05, 0.09, 1.3])
    map_MSE[0, [5, 6, 9, 10]], map_MSE[0, [0, 4, 8, 12]] = keys_CD[3], keys_CD[7]
    places.what.weight.data = torch.eye(keys_CD.shape[1])
    places.what.bias.data.zero_()
    monkeypatch.setattr(places, "norm_inside", torch.nn.Identity())
    cells = Cells(thing_MS, box_MS4, map_MSE, GRID)
    text = told(places, cells, tokenizer.decode, lookup, embedding_VD)
    boxes = MiniGPTv2().parse(text).boxes
    assert boxes == [Box(0.25, 0.30, 0.76, 0.87), Box(0, 0.05, 0.09, 1)]
    words = [tokenizer.decode([i for i in row if i >= 0]).strip() for row in lookup.pieces_CK[[3, 7]].tolist()]
    lines = text.strip("\n").split("\n")
    assert len(lines) == 2
    assert all(word in line for word, line in zip(words, lines, strict=True))


def test_only_probable_things_that_differ_are_told() -> None:
    thing_MS = torch.tensor([[2.0, 1.0, 0.0, -5.0]])
    box_MS4 = torch.tensor([[[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.45], [0.5, 0.5, 1, 1], [0, 0.5, 0.5, 1]]])
    cells = Cells(thing_MS, box_MS4, torch.zeros(1, 4, 8), Grid(2, 2))
    boxes = [Box(*numbers) for numbers in box_MS4[0].tolist()]
    assert best_things(cells, 0, PlacesConfig()) == [boxes[0], boxes[2]]
    assert best_things(cells, 0, PlacesConfig(things=1)) == boxes[:1]
    assert best_things(cells, 0, PlacesConfig(floor=0.001, alike=1.0)) == boxes


def test_what_lies_inside_of_a_box() -> None:
    weight_NS = inside(torch.tensor([[0.25, 0.0, 0.75, 0.5], [0.0, 0.25, 1.0, 0.5]]), Grid(2, 4))
    torch.testing.assert_close(weight_NS[0], torch.tensor([0.0, 1, 1, 0, 0, 0, 0, 0]))
    torch.testing.assert_close(weight_NS[1], torch.tensor([0.5] * 4 + [0.0] * 4))


def test_each_thing_is_answered_for_by_the_cell_of_its_middle_and_those_beside() -> None:
    cells = Cells(torch.zeros(1, 16), torch.zeros(1, 16, 4), torch.zeros(1, 16, 8), GRID)
    left, right = Thing(Box(0.1, 0.1, 0.3, 0.3), (1, 2)), Thing(Box(0.7, 0.7, 0.9, 0.9), (0,))
    there_MS, pairs = pair_up([[left, right]], cells, GRID, 3)
    assert there_MS[0, 0] == 1  # The middle of the first, (0.2, 0.2), in a grid of quarters.
    assert there_MS[0, 15] == 1
    assert int((there_MS == 1).sum()) == 2
    assert there_MS[0, 1] == -1
    assert there_MS[0, 3] == 0
    mine = pairs.cell_N.tolist().index(0)
    torch.testing.assert_close(pairs.word_NC[mine], torch.tensor([0.0, 0.5, 0.5]))
    torch.testing.assert_close(pairs.box_N4[mine], torch.tensor(left.box.numbers))


def test_a_picture_without_things_costs_only_what_is_seen_in_vain() -> None:
    cells = Cells(torch.zeros(1, 16), torch.zeros(1, 16, 4), torch.zeros(1, 16, 8), GRID)
    there_MS, pairs = pair_up([[]], cells, GRID, 3)
    assert not there_MS.any()
    assert len(pairs.box_N4) == 0


def test_shares() -> None:
    one = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1]])
    other = torch.tensor([[0.0, 0, 1, 0.5], [2, 0, 3, 1]])
    iou, general = share_N(one, other)
    torch.testing.assert_close(iou, torch.tensor([0.5, 0.0]))
    torch.testing.assert_close(general, torch.tensor([0.5, -1 / 3]))


def test_what_cannot_be_told_is_refused() -> None:
    with pytest.raises(ConfigError, match="places without lookup"):
        LaneConfig.from_dict({**RECIPES.find("tiny")().model.lanes["image"].to_dict(), "places": {}})
    places = Places(PlacesConfig(hidden=8), 8, 8)
    two = Features(torch.zeros(20, 8), (Grid(4, 4), Grid(2, 2)))
    with pytest.raises(ConfigError, match="several sizes"):
        places.cells(two)
    with pytest.raises(ConfigError, match="a number or mark of 5 tokens"):
        places.choose([[1, 2, 3, 4, 5]])
    lookup = VocabularyLookup(LookupConfig(words=4))
    lookup.choose(torch.tensor([[1], [2]]))
    # Before anything was chosen there is room, and no error.
    assert places(Features(torch.zeros(16, 8), (GRID,)), lookup, torch.randn(9, 8)).shape == (1, 112, 8)
