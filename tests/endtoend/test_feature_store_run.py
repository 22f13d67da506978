"""Training with the feature store: the same run as without, to the last bit, and fewer pictures encoded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.api import load
from sensorium.data.config import open_sources
from sensorium.encoders.tower import Tower
from sensorium.features.store import FeatureStore
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.pretrained import read_file
from sensorium.processing import pictures as pictures_module
from sensorium.recipes import RECIPES
from sensorium.training.config import Recipe
from sensorium.training.log import read_log
from sensorium.training.plan import StagePlan
from sensorium.training.run import train_recipe
from sensorium.training.trainer import TrainerOptions

ROWS = 12
STAGES = ("align", "instruct")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file of rows with one or two pictures of several shapes, and one row without."""
    rng = np.random.default_rng(1)
    made: list[dict[str, Any]] = []
    for k in range(ROWS):
        for n in range(2):
            height, width = ((40, 30), (30, 64), (33, 33))[(k + n) % 3]
            pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{k}_{n}.png")
        content: list[Any] = [{"type": "image", "image": f"{k}_{n}.png"} for n in range(1 + (k % 3 == 0))]
        content = content if k != 7 else []
        made.append({"messages": [{"role": "user", "content": [*content, {"type": "text", "text": f"what {k}?"}]},
                                  {"role": "assistant", "content": f"answer {k}"}]})  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in made))
    return path


def recipe_on(path: Path, *more: str, cached: bool) -> Recipe:
    """Three epochs and two."""
    source = f"[{{kind: file, path: {path}, format: samples}}]"
    changes = [f"stages.{s}.{o}" for s in STAGES for o in (f"data={source}", f"cache_features={str(cached).lower()}")]
    steps = ["stages.align.steps=9", "stages.instruct.steps=12"]
    return RECIPES.find("tiny")().override([*changes, *steps, *more])


def train(recipe: Recipe, folder: Path) -> tuple[list[Any], dict[str, torch.Tensor]]:
    options = TrainerOptions(folder=folder, cache=folder.parent / "cache")
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)
    lines = read_log(folder / "log.jsonl")
    curve = [(x["stage"], x["step"], x["loss"], x["grad_norm"]) for x in lines]
    return curve, read_file(folder / "model" / "model.safetensors")


def same(one: tuple[list[Any], dict[str, torch.Tensor]], two: tuple[list[Any], dict[str, torch.Tensor]]) -> None:
    assert one[0] == two[0]
    assert one[1].keys() == two[1].keys()
    assert all(torch.equal(value, two[1][name]) for name, value in one[1].items())


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each run of the tower sees."""
    seen: list[int] = []
    real = Tower.forward

    def counted(self: Tower, pixels_NCHW: torch.Tensor) -> Any:
        seen.append(len(pixels_NCHW))
        return real(self, pixels_NCHW)

    monkeypatch.setattr(Tower, "forward", counted)
    return seen


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Which pictures are decoded."""
    seen: list[Any] = []
    real = pictures_module.load_image
    monkeypatch.setattr(pictures_module, "load_image", lambda *a, **k: (seen.append(a), real(*a, **k))[1])
    return seen


@pytest.mark.parametrize(
    "more",
    [(), ("stages.align.pack=true",), ("stages.align.accumulate=2", "stages.align.workers=4"),
     ("model.lanes.image.resolution={kind: anyres, grids: [[1, 1], [1, 2]]}", "model.lanes.image.encoder.feature=patch")],
    ids=["plain", "packed", "accumulated", "tiles"],
)  # fmt: skip
def test_a_cached_run_is_the_uncached_run(
    more: tuple[str, ...], rows: Path, tmp_path: Path, encoded: list[int], decoded: list[Any]
) -> None:
    """Bit for bit with a transformer tower, whose rows do not depend on what goes through beside them."""
    plain = train(recipe_on(rows, *more, cached=False), tmp_path / "plain")
    without = sum(encoded), len(decoded)
    encoded.clear(), decoded.clear()
    same(plain, train(recipe_on(rows, *more, cached=True), tmp_path / "cold"))
    cold = sum(encoded), len(decoded)
    # The second stage of the first run found all, so that only its first epoch and the probes cost something.
    assert cold[0] < without[0] * 0.7
    encoded.clear(), decoded.clear()
    same(plain, train(recipe_on(rows, *more, cached=True), tmp_path / "warm"))
    # Nothing but the probes of both stages, which run without the store.
    assert sum(encoded) < 0.2 * without[0]
    assert len(decoded) < 0.5 * without[1]


def test_views_are_the_same_run_too(rows: Path, tmp_path: Path, encoded: list[int]) -> None:
    source = f"[{{kind: file, path: {rows}, format: samples, augment: {{views: 2, mirror: true}}}}]"
    more = [f"stages.{s}.data={source}" for s in STAGES]
    plain = train(recipe_on(rows, *more, cached=False), tmp_path / "plain")
    same(plain, train(recipe_on(rows, *more, cached=True), tmp_path / "cold"))
    encoded.clear()
    same(plain, train(recipe_on(rows, *more, cached=True), tmp_path / "warm"))
    assert len(encoded) <= 2


def test_a_sweep_over_projectors_shares_the_store(rows: Path, tmp_path: Path, encoded: list[int]) -> None:
    train(recipe_on(rows, cached=True), tmp_path / "one")
    encoded.clear()
    train(recipe_on(rows, "model.lanes.image.projector={kind: linear}", cached=True), tmp_path / "two")
    assert len(encoded) <= 2


def test_evaluation_finds_what_training_kept(rows: Path, tmp_path: Path, encoded: list[int]) -> None:
    train(recipe_on(rows, cached=True), tmp_path / "run")
    asked = open_sources(recipe_on(rows, cached=True).stages[0].data)[0][0][0].messages[:1]
    plain = load(tmp_path / "run", "cpu").respond(asked, max_tokens=10, root=tmp_path)
    model = load(tmp_path / "run", "cpu")
    store = model.keep_features(tmp_path / "cache")
    assert store is not None
    encoded.clear()
    assert model.respond(asked, max_tokens=10, root=tmp_path) == plain
    assert not encoded
    store.close()


ENCODER = "stages.{}.learns=[{{part: encoders.image, lr: 0.001}}, {{part: projectors.image, lr: 0.001}}]"


def test_a_tower_that_learns_switches_it_off(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a tower that has learnt is another one, whose features are its own."""
    more = ENCODER.format("align")
    plain = train(recipe_on(rows, more, cached=False), tmp_path / "plain")
    capsys.readouterr()
    same(plain, train(recipe_on(rows, more, cached=True), tmp_path / "cold"))
    assert "stage align: cache_features is off: encoders.image learns" in capsys.readouterr().err
    same(plain, train(recipe_on(rows, more, cached=True), tmp_path / "warm"))
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_plan_says_so_before_step_one(rows: Path, tmp_path: Path) -> None:
    plans: list[StagePlan] = []
    for cached in (True, False):
        recipe = recipe_on(rows, ENCODER.format("align"), cached=cached)
        options = TrainerOptions(folder=tmp_path / f"{cached}", cache=tmp_path / "cache", on_plan=plans.append)
        train_recipe(recipe, lambda recipe=recipe: build_pretrained(recipe.model), save_model, options)
    assert [plan.keeping for plan in plans] == [
        "cache_features is off: encoders.image learns", "features of image are kept, 16 GB at most",
        *["features are not kept: the stage does not ask for it (cache_features)"] * 2,
    ]  # fmt: skip


def test_endless_augmentation_switches_it_off(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = f"{{kind: file, path: {rows}, format: samples, augment: {{mirror: true}}}}"
    still = f"{{kind: file, path: {rows}, format: samples}}"
    more = [f"stages.align.data=[{endless}]", f"stages.instruct.data=[{endless}, {still}]"]
    plain = train(recipe_on(rows, *more, cached=False), tmp_path / "plain")
    stores: list[FeatureStore] = []
    real = FeatureStore.close
    monkeypatch.setattr(FeatureStore, "close", lambda self: (stores.append(self), real(self))[1])
    capsys.readouterr()
    same(plain, train(recipe_on(rows, *more, cached=True), tmp_path / "cached"))
    said = capsys.readouterr().err
    assert "stage align: cache_features is off: all pictures are augmented anew" in said
    assert "stage instruct: cache_features is off for these pictures" in said
    (store,) = stores
    # The second source's pictures are kept, at most one entry for each.
    assert 0 < store.writer.written <= ROWS + ROWS // 3


def test_a_failed_run_closes_the_store(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[MultimodalModel] = []
    real = MultimodalModel.forward

    def failing(self: MultimodalModel, batch: Any) -> Any:
        if self.shelf is not None:
            models.append(self)
            raise KeyboardInterrupt
        return real(self, batch)

    monkeypatch.setattr(MultimodalModel, "forward", failing)
    with pytest.raises(KeyboardInterrupt):
        train(recipe_on(rows, cached=True), tmp_path / "run")
    assert models[0].shelf is None


def test_old_recipes_still_load() -> None:
    nano = RECIPES.find("nano")().to_dict()
    for stage in nano["stages"]:
        stage.pop("feature_store_gb"), stage.pop("feature_format")
    assert Recipe.from_dict(nano) == RECIPES.find("nano")()
