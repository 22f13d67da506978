"""FROMAGe and GILL: pictures, sizes, rates and decisions of the originals (losses: tests/parity/test_koh_losses.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sensorium.api import Model
from sensorium.core.batch import TilePlan
from sensorium.core.hands import Making
from sensorium.generators.found_pictures import FoundPictures, RetrievalIndexConfig
from sensorium.generators.retrieval_index import RetrievalIndex
from sensorium.interop.assemble import build_pretrained
from sensorium.media.image import load_image
from sensorium.model.learning import Learn, set_learning
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.recipes.fromage_parts import EMBEDDING
from sensorium.recipes.sizes import part_sizes
from sensorium.training.objectives.retrieve import Retrieve, RetrieveConfig
from sensorium.training.optimiser import rate

FEW = Making(steps=2)


@pytest.fixture(scope="module", params=["fromage", "gill"])
def tiny(request: pytest.FixtureRequest) -> Model:
    if request.param == "gill":
        pytest.importorskip("diffusers", reason="diffusers is not installed (extra `gen`)")
    torch.manual_seed(0)
    return Model(*build_pretrained(TINY_FORMS.find(request.param)().model))


def test_learnt_embeddings_stay_as_long_as_the_others(tiny: Model) -> None:
    rows = tuple(range(-len(tiny.processor.signals["image"]), 0))
    weight = tiny.network.backbone.embedding.weight
    before = weight.detach().clone()
    objective = Retrieve(RetrieveConfig(), tiny.processor, ("image", None))
    set_learning(tiny.network, (Learn(part="hands.image", lr=1.0),))
    objective.stepped(tiny.network)
    assert torch.equal(weight, before)  # They do not learn.
    set_learning(tiny.network, (Learn(part="backbone", module=EMBEDDING, rows=rows, lr=1.0),))
    objective.stepped(tiny.network)
    assert torch.equal(weight[: rows[0]], before[: rows[0]])
    mean = before[: rows[0]].norm(dim=1).mean()
    torch.testing.assert_close(weight.detach()[rows[0] :].norm(dim=1), mean.expand(len(rows)))
    tiny.network.requires_grad_(False)


@pytest.mark.parametrize("name", ["fromage", "gill"])
@pytest.mark.parametrize("size", [(640, 427), (97, 401), (224, 224)])
def test_pictures_are_clips(name: str, size: tuple[int, int]) -> None:
    """`get_pixel_values_for_model` is CLIP's own processor."""
    from transformers import CLIPImageProcessor

    noise = np.random.default_rng(0).integers(0, 256, (size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    lane = RECIPES.find(name)().model.lanes["image"]
    cut = lane.resolution.cut(load_image(picture), TilePlan(), lane.encoder.preprocess())
    mean, std = (np.array(v, dtype=np.float32) for v in (lane.encoder.mean, lane.encoder.std))
    ours = ((cut[0] / 255.0 - mean) / std).transpose(2, 0, 1)
    theirs = CLIPImageProcessor()(picture, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_ids_and_what_learns_are_the_originals() -> None:
    """50266 is [RET]'s id, and [IMG0]'s (gill_opt/model_args.json); 5.5 M and 50.1 M numbers learn."""
    for name, tokens, learning in (("fromage", 1, 5_513_729), ("gill", 8, 50_096_385)):
        recipe = RECIPES.find(name)()
        backbone = recipe.model.backbone
        assert backbone.vocab_size - tokens == 50266
        assert backbone.added_tokens[1:] == recipe.model.hands["image"].signals
        parts = {learn.part for learn in recipe.stages[0].learns}
        sizes = part_sizes(recipe.model)
        assert sum(sizes[part] for part in parts - {"backbone"}) + tokens * 4096 == learning


def test_the_rate_falls_by_stairs() -> None:
    """GILL's: ten epochs of 2,000 steps, a tenth every five, counted behind the warm-up."""
    schedule = RECIPES.find("gill")().stages[0].schedule
    steps = (0, 1999, 11_999, 12_000, 19_999)
    assert [rate(schedule, step, 20_000) for step in steps] == pytest.approx([1 / 2000, 1, 1, 0.1, 0.1])


def test_what_is_decided_is_done(tmp_path: Any) -> None:
    """Without an index it draws; with one it does what it has learnt to decide."""
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra `gen`)")
    torch.manual_seed(0)
    model = Model(*build_pretrained(TINY_FORMS.find("gill")().model))
    choice: Any = model.network.hands["image_choice"]
    ids = [*model.tokenizer.encode("here "), *model.processor.signals["image"]]
    found = np.full((9, 7, 3), 77, np.uint8)
    Image.fromarray(found).save(tmp_path / "found.png")

    def made(other: bool) -> Any:
        with torch.no_grad():
            choice.out.weight.zero_()
            choice.out.bias.copy_(torch.tensor([0.0, 1.0] if other else [1.0, 0.0]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model.engine, "generate", lambda *_, **__: [ids])
            text, picture = model.answer("a ball", making=FEW).content
        assert text.value == "here"
        return np.asarray(picture.value)

    drawn = made(other=True)
    assert drawn.shape == (64, 64, 3)
    config = RetrievalIndexConfig.tiny()
    index = RetrievalIndex.build(["found.png"], np.ones((1, config.width), np.float32), tmp_path)
    model.network.generators.put("image_other", FoundPictures(config, index))
    assert np.array_equal(made(other=True), found)
    assert np.array_equal(made(other=False), drawn)
