"""The first stage of SEED's tokenizer: what its queries see, its loss beside the authors' own, and how the second stage takes it over."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from typer.testing import CliRunner

from sensorium.api import Model
from sensorium.backbones.query_tower import QueryTower
from sensorium.cli.main import app
from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.core.sample import parse_sample
from sensorium.fusion.query_match import QueryMatch
from sensorium.generators.seed import SeedConfig
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.families.blip2 import Blip2
from sensorium.interop.saved import save_model
from sensorium.interop.seed_queries import read_queries
from sensorium.model.joint import joint_parts
from sensorium.nn.cross_media import CrossMedia
from sensorium.nn.pretrained import read_file
from sensorium.processing.collate import collate
from sensorium.recipes import TINY_FORMS
from sensorium.training.objectives.contrastive import ContrastiveConfig

CAPTIONS = ("a red ball", "grass", "the sea at night")
SIZES = {"size_px": 32, "patch_px": 8, "queries": 4, "width": 48, "layers": 2, "heads": 4, "mlp_width": 64,
         "tower_width": 32, "tower_layers": 3, "tower_heads": 4, "tower_mlp_width": 48}  # fmt: skip
SEED = SeedConfig.from_dict(SeedConfig.tiny().to_dict() | SIZES)


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    model = Model(*build_pretrained(TINY_FORMS.find("seed-queries")().model))
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            if "norm" not in name:
                parameter.normal_(0, 0.2)
    return model


def tower_of(model: Model) -> QueryTower:
    tower, scorer = joint_parts(model.network)
    assert isinstance(tower, QueryTower)
    assert isinstance(scorer, QueryMatch)
    return tower


def rows(model: Model) -> Batch:
    noise = torch.randint(0, 256, (len(CAPTIONS), 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    pairs: list[Any] = [
        parse_sample({"messages": [{"role": "user", "content": [{"type": "image", "image": Image.fromarray(picture.numpy())}]},
                                   {"role": "assistant", "content": caption}]}) for picture, caption in zip(noise, CAPTIONS, strict=True)]  # fmt: skip
    processor = model.processor.with_template("pair")
    return collate([[processor.encode(pair)] for pair in pairs], model.tokenizer.pad_id)


def looked_at(model: Model, batch: Batch) -> Tensor:
    """The tower's tokens of each picture, (M, L, D)."""
    return model.network.features(batch.media)["image"].values_ND.unflatten(0, (len(CAPTIONS), -1))


@torch.no_grad()
def test_the_last_query_stands_for_the_picture(model: Model) -> None:
    """It has seen all others; which words stand beside a picture does not change who sees whom."""
    batch, tower = rows(model), tower_of(model)
    former, image_MLD = tower.lm.former, looked_at(model, batch)
    features = model.network.features(batch.media)["image"]
    vectors_MQJ = tower.pictures(features)
    assert vectors_MQJ.shape == (len(CAPTIONS), 1, tower.config.joint)
    back_QQ = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]).bool()
    said_MQD = former.states(image_MLD, mask=back_QQ[None, None])
    torch.testing.assert_close(vectors_MQJ[:, 0], tower.lm.vision_projection(said_MQD[:, -1]), atol=1e-5, rtol=1e-4)
    # With words: `get_extended_attention_mask` is causal among the queries alone.
    text = batch.input_ids_BT[:1][:, batch.segments_BT[0] > 0]
    length = 4 + text.shape[1]
    mask_TT = torch.ones(length, length, dtype=torch.bool)
    mask_TT[:4, :4] = back_QQ
    read_1TD = former.states(image_MLD[:1], text, tower.path, mask_TT[None, None])
    media = CrossMedia(image_MLD, (batch.segments_BT > 0)[:, :, None].expand(-1, -1, image_MLD.shape[1]))
    expected = tower.lm.itm_head(read_1TD[:, :4]).mean(dim=1)
    torch.testing.assert_close(tower.matches(batch, media)[:1], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_loss_is_the_authors(model: Model) -> None:
    """`Blip2QformerCasual.forward` with its `contrastive` alone: the last query, texts read without queries, `temp`, smoothed targets."""
    batch, tower, objective_config = rows(model), tower_of(model), TINY_FORMS.find("seed-queries")().stages[0].objective
    assert objective_config == ContrastiveConfig(temperature=0.07, smoothing=0.1, max_scale=None)
    objective = objective_config.build(model.network, model.processor.with_template("pair"), ())
    seed = SEED.build()
    seed.take_queries(taken(model))
    pictures_NCHW = batch.media["image"].pixels_NCHW
    image = F.normalize(tower.lm.vision_projection(seed.said(seed.to_values(pictures_NCHW)))[:, -1], dim=-1)
    read: list[Tensor] = []
    for row, ids in enumerate(batch.input_ids_BT):
        alone = ids[batch.segments_BT[row] > 0][None]
        hidden = tower.lm.former.states(None, alone, tower.path)
        read.append(F.normalize(tower.lm.text_projection(hidden[:, 0]), dim=-1))
    similar = image @ torch.cat(read).T / 0.07
    own = torch.arange(len(CAPTIONS))
    expected = (F.cross_entropy(similar, own, label_smoothing=0.1) + F.cross_entropy(similar.T, own, label_smoothing=0.1)) / 2
    losses = objective(model.network, batch)
    assert losses.count == len(CAPTIONS)
    torch.testing.assert_close(losses.total / losses.count, expected, atol=1e-5, rtol=1e-4)


def taken(model: Model) -> dict[str, Tensor]:
    """By `read_queries`' names, without a folder."""
    state = model.network.state_dict()
    named = {k.replace("encoders.image.tower.", "tower.").replace("backbone.lm.former.", "former."): v for k, v in state.items()}
    return {k: v for k, v in named.items() if k in SEED.build().state_dict() and k.startswith(("tower.", "former."))}


def test_the_second_stage_begins_with_the_first(model: Model, tmp_path: Path) -> None:
    """By the command; other sizes, other models and other tokenizers are refused."""
    save_model(model.network, model.tokenizer, tmp_path / "queries", learnt={n for n, _ in model.network.named_parameters()})
    assert {k: v.tolist() for k, v in read_queries(tmp_path / "queries").items()} == {k: v.tolist() for k, v in taken(model).items()}
    with pytest.raises(WeightsError, match="queries that do not fit"):
        SeedConfig.tiny().build().take_queries(taken(model))
    other = Model(*build_pretrained(TINY_FORMS.find("clip")().model))
    save_model(other.network, other.tokenizer, tmp_path / "clip", learnt={n for n, _ in other.network.named_parameters()})
    with pytest.raises(ConfigError, match="query_tower with looks_back"):
        read_queries(tmp_path / "clip")
    if importlib.util.find_spec("diffusers") is None:
        return
    (tmp_path / "pictures").mkdir()
    for i in range(12):
        Image.new("RGB", (40, 40), (20 * i, 90, 200 - 9 * i)).save(tmp_path / "pictures" / f"{i}.png")
    training = {"steps": 1, "batch_size": 4, "flip": False}
    (tmp_path / "seed.yaml").write_text(json.dumps({"tokenizer": SEED.to_dict(), "training": training}), encoding="utf-8")
    words = ["tokenizer", "train", "--config", str(tmp_path / "seed.yaml"), "--pictures", str(tmp_path / "pictures"),
             "--queries", str(tmp_path / "queries"), "--out", str(tmp_path / "run"), "--device", "cpu"]  # fmt: skip
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    made = read_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(made[name], value) for name, value in taken(model).items())


def test_what_only_looks_back_is_not_exported_as_blip2(model: Model) -> None:
    with pytest.raises(ConfigError, match="look back only"):
        Blip2().to_theirs(model.network.config)
    clip = Model(*build_pretrained(TINY_FORMS.find("clip")().model))
    with pytest.raises(ConfigError, match="a factor of their own"):
        ContrastiveConfig(temperature=0.07).build(clip.network, clip.processor, ())
