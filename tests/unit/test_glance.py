"""A second look at each thing: what is cut out, whose words are told, and that pixels are never silently missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torch import Tensor, nn

from sensorium.api import Model
from sensorium.core.batch import Features, Grid, MediaBatch, TilePlan
from sensorium.core.boxes import Box
from sensorium.core.errors import AlignmentError, ConfigError
from sensorium.core.sample import Message, Part, Sample
from sensorium.features.store import storable
from sensorium.inference.ranking import Ranker
from sensorium.input_projectors.avg_pool import AvgPoolConfig
from sensorium.interop.assemble import build_pretrained
from sensorium.model.config import LaneConfig
from sensorium.model.device import to_device
from sensorium.model.glance import Glance, crops
from sensorium.model.lookup import LookupConfig, VocabularyLookup
from sensorium.model.multimodal import MultimodalModel
from sensorium.model.places import MARKS, STEPS, Cells, Places, PlacesConfig
from sensorium.processing.collate import collate
from sensorium.recipes import RECIPES

SIDE = 32
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
RED, BLUE, EMPTY = 10, 12, 9
GLANCING = (
    "model.lanes.image.places={room: 24, hidden: 8, floor: 0.0, things: 2, glance: true}",
    "model.lanes.image.lookup={words: 8, pieces: 2}",
    "model.lanes.image.projector={kind: avg_pool, side: 2, summary: true}",
)


def noise(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def test_crops_are_those_of_pillow() -> None:
    pixels_MCHW = noise(2)
    # Squares of whole pixels, one on its edge, and a wide box, of which the square around its middle is taken.
    box_N4 = torch.tensor([[8, 4, 24, 20], [2, 16, 14, 28], [6, 14, 26, 18]]) / SIDE
    picture_N = torch.tensor([1, 0, 1])
    cut_NCHW = crops(pixels_MCHW, picture_N, box_N4)
    assert cut_NCHW.dtype == torch.uint8
    for cut_CHW, m, seen in zip(cut_NCHW, picture_N.tolist(), [(8, 4, 24, 20), (2, 16, 14, 28), (6, 6, 26, 26)], strict=True):
        picture = PILImage.fromarray(pixels_MCHW[m].permute(1, 2, 0).numpy())
        true = picture.transform((SIDE, SIDE), PILImage.Transform.EXTENT, seen, PILImage.Resampling.BILINEAR)
        apart = np.abs(np.asarray(true, dtype=int) - cut_CHW.permute(1, 2, 0).numpy().astype(int))
        assert apart.max() <= 1  # Pillow rounds fractions down.


def test_a_box_of_the_whole_picture_is_the_picture_and_beyond_it_the_border_goes_on() -> None:
    pixels_MCHW = noise(1)
    zero_1 = torch.zeros(1, dtype=torch.long)
    assert torch.equal(crops(pixels_MCHW, zero_1, torch.tensor([[0.0, 0, 1, 1]])), pixels_MCHW)
    # A strip along the top: the square around it begins half a picture above.
    cut_CHW = crops(pixels_MCHW, zero_1, torch.tensor([[0.0, 0, 1, 2 / SIDE]]))[0]
    assert torch.equal(cut_CHW[:, SIDE // 2 - 1 :], pixels_MCHW[0, :, : SIDE // 2 + 1])
    assert torch.equal(cut_CHW[:, 3], pixels_MCHW[0, :, 0])


class Averages(nn.Module):
    """An encoder whose map says the mean colour in every cell, and behind a token outside of the map."""

    def forward(self, pixels_NCHW: Tensor) -> Features:
        mean_N3 = pixels_NCHW.float().mean(dim=(2, 3))
        values_N53 = torch.cat([torch.full((len(mean_N3), 1, 3), 1e4), mean_N3[:, None].expand(-1, 4, -1)], dim=1)
        return Features(values_N53.flatten(0, 1), (Grid(2, 2, prefix=1),) * len(mean_N3))


def two_things() -> tuple[Places, Cells, VocabularyLookup, Tensor, Tensor]:
    """Red above on the left and blue below on the right of the first picture; a map that says green of all boxes."""
    pixels_2CHW = torch.full((2, 3, SIDE, SIDE), 85, dtype=torch.uint8)
    pixels_2CHW[0, :, 2:14, 2:14] = torch.tensor(COLOURS[0], dtype=torch.uint8)[:, None, None]
    pixels_2CHW[0, :, 18:30, 15:26] = torch.tensor(COLOURS[2], dtype=torch.uint8)[:, None, None]
    thing_MS, box_MS4 = torch.full((2, 4), -9.0), torch.zeros(2, 4, 4)
    thing_MS[0, :2] = torch.tensor([3.0, 2.0])
    box_MS4[0, :2] = torch.tensor([[4, 4, 12, 12], [16, 20, 24, 28]]) / SIDE
    cells = Cells(thing_MS, box_MS4, torch.tensor([0.0, 1, 0]).expand(2, 4, 3), Grid(2, 2))
    places = Places(PlacesConfig(room=24, words=1, hidden=4, glance=True, scale=5), 3, 3)
    places.norm_inside = cast(nn.LayerNorm, nn.Identity())
    places.what.weight.data, places.what.bias.data = torch.eye(3), torch.zeros(3)
    places.choose([[0]] * (STEPS + 1) + [[1], [2], [3], [EMPTY]])
    lookup = VocabularyLookup(LookupConfig(words=3))
    lookup.choose(torch.tensor([[RED], [11], [BLUE]]))
    embedding_VD = torch.zeros(13, 3)
    embedding_VD[10:] = torch.eye(3)
    return places, cells, lookup, embedding_VD, pixels_2CHW


def glance_at(pixels_NCHW: Tensor, summary_33: Tensor | None = None) -> Glance:
    projector = AvgPoolConfig(summary=True).build(3, 3)
    assert projector.summary is not None
    projector.summary.weight.data, projector.summary.bias.data = torch.zeros(3, 3), torch.zeros(3)
    projector.summary.weight.data += torch.eye(3) if summary_33 is None else summary_33
    return Glance(Averages(), projector, MediaBatch(pixels_NCHW, (TilePlan(),) * len(pixels_NCHW)))


def test_words_come_from_what_is_cut_out() -> None:
    places, cells, lookup, embedding_VD, pixels_2CHW = two_things()
    told_MR = places.told(cells, lookup, embedding_VD, glance_at(pixels_2CHW))
    words = [[i for i in row if i >= 10] for row in told_MR.tolist()]
    assert words == [[RED, BLUE], []]
    places.config = places.config.model_copy(update={"glance": False})
    without = places.told(cells, lookup, embedding_VD)
    assert [i for i in without[0].tolist() if i >= 10] == [11, 11]


def test_three_readings_weigh_alike() -> None:
    places, cells, lookup, embedding_VD, pixels_2CHW = two_things()
    # Of a red crop the summary says blue and what reads the map red, and the map says green.
    glance = glance_at(pixels_2CHW, torch.eye(3).roll(-1, dims=0))
    box = Box(*cells.box_MS4[0, 0].tolist())
    red_1C = places._chances(cells, [(0, box)], lookup, embedding_VD, glance)
    torch.testing.assert_close(red_1C, torch.full((1, 3), 1 / 3))
    assert places._chances(cells, [], lookup, embedding_VD, glance).shape == (0, 3)


def test_the_lookups_noise_makes_words_of_things_less_sure() -> None:
    places, cells, lookup, embedding_VD, pixels_2CHW = two_things()
    glance = glance_at(pixels_2CHW)
    told = lambda: places.told(cells, lookup, embedding_VD, glance)  # noqa: E731
    sure_MR = told()
    torch.manual_seed(0)
    with lookup.noised(40.0):
        drawn = [told() for _ in range(20)]
    same = sum(torch.equal(one_MR, sure_MR) for one_MR in drawn)
    # Mostly a little, now and then much; boxes are told as they were.
    assert 0 < same < 20
    assert all(torch.equal(one_MR < RED, sure_MR < RED) for one_MR in drawn)
    assert torch.equal(told(), sure_MR)


def test_pixels_that_are_not_there_are_an_error() -> None:
    places, cells, lookup, embedding_VD, pixels_2CHW = two_things()
    with pytest.raises(AlignmentError, match="pixels of 1 of 2 pictures"):
        places.told(cells, lookup, embedding_VD, glance_at(pixels_2CHW[:1]))
    with pytest.raises(ConfigError, match="no pixels to look at"):
        places.told(cells, lookup, embedding_VD)


@pytest.fixture(scope="module")
def model() -> Model:
    """tiny with a second look; its eyes find two things anywhere."""
    torch.manual_seed(0)
    config = RECIPES.find("tiny")().override([*GLANCING, "model.boxes=minigpt_v2"]).model
    network, tokenizer = build_pretrained(config)
    places, lookup = cast(Places, network.places["image"]), cast(VocabularyLookup, network.lookups["image"])
    spelt = [tokenizer.encode(text) for text in [*map(str, range(STEPS + 1)), *MARKS]]
    places.choose([ids[:4] for ids in spelt])
    lookup.choose(torch.arange(3, 11)[:, None])
    return Model(network, tokenizer)


def prompt(model: Model, seed: int) -> Any:
    side = model.network.config.lanes["image"].encoder.preprocess().size_px
    picture = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    parts = (Part("image", picture), Part("text", "where?"))
    return model.processor.encode(Sample((Message("user", parts),)), answer_next=True)


@torch.no_grad()
def test_batched_is_single_and_ranking_keeps_the_pixels(model: Model) -> None:
    examples = [prompt(model, seed) for seed in (1, 2)]
    network = model.network

    def features(*rows: Any) -> Tensor:
        media = to_device(collate([[row] for row in rows], 0), network.device).media
        return network.features(media)["image"].values_ND

    single = [features(one) for one in examples]
    torch.testing.assert_close(features(*examples), torch.cat(single))
    assert not torch.equal(*single)
    # Packed into one row.
    packed = network.features(collate([examples], 0).media)["image"].values_ND
    torch.testing.assert_close(packed, torch.cat(single))
    torch.testing.assert_close(features(Ranker(model.engine)._seen(examples[0])), single[0])
    found = examples[0].media["image"]
    stored = replace(found, pixels_NCHW=found.pixels_NCHW[:0], features=network.encode("image", found))
    with pytest.raises(AlignmentError, match="pixels of 0 of 1 pictures"):
        network.features({"image": stored})


def test_no_store_keeps_features_of_a_lane_that_looks_again(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    for trains in (False, True):
        model.network.requires_grad_(False)
        kinds, reasons = storable(model.network, trains=trains)
        assert kinds == []
        assert "places.glance" in reasons[0]
    assert model.keep_features() is None
    assert "features are not kept: the lane image looks at each thing once more" in capsys.readouterr().err


def test_what_cannot_look_again_is_refused_and_older_configs_do_not() -> None:
    lane = RECIPES.find("tiny")().override([*GLANCING]).model.lanes["image"].to_dict()
    with pytest.raises(ConfigError, match=r"places\.glance with projector mlp without summary"):
        LaneConfig.from_dict({**lane, "projector": {"kind": "mlp"}})
    with pytest.raises(ConfigError, match=r"places\.glance with projector avg_pool without summary"):
        LaneConfig.from_dict({**lane, "projector": {"kind": "avg_pool"}})
    assert not PlacesConfig.from_dict({"room": 96, "words": 6}).glance
    assert isinstance(LaneConfig.from_dict(lane).places, PlacesConfig)


def test_a_model_without_it_encodes_pictures_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    network: MultimodalModel = model.network
    encoder = network.encoders["image"]
    hook = encoder.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    media = {"image": prompt(model, 1).media["image"]}
    places = cast(Places, network.places["image"])
    network.features(media)
    monkeypatch.setattr(places, "config", places.config.model_copy(update={"glance": False}))
    network.features(media)
    monkeypatch.setattr(places, "config", places.config.model_copy(update={"glance": True, "floor": 1.0}))
    network.features(media)  # Nothing is found: nothing to look at.
    hook.remove()
    assert calls == [1, 2, 1, 1]
