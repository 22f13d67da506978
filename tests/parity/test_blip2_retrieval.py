"""`Blip2ForImageTextRetrieval` imported, asked by the commands, and exported: equal scores, pixels and ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hf_models import VISION, save
from PIL import Image
from test_blip import bert_tokenizer
from torch import Tensor
from torch.nn import functional as F
from typer.testing import CliRunner

from sensorium.api import Model, load
from sensorium.backbones.query_tower import QueryTower, QueryTowerConfig
from sensorium.cli.main import app
from sensorium.core.batch import Batch, Example
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.sample import Message, Part, Sample
from sensorium.fusion.match import MatchConfig
from sensorium.input_projectors.linear import LinearConfig
from sensorium.interop.families.blip2 import Blip2
from sensorium.interop.hf import read_hf, same_tensors
from sensorium.model.check import check_model
from sensorium.model.joint import (
    joint_parts,
    matching_parts,
    picture_vectors,
    reading_parts,
    scaled_parts,
    text_vectors,
)
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate

FORMER = {"vocab_size": 264, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
          "intermediate_size": 48, "encoder_hidden_size": 32, "max_position_embeddings": 64,
          "use_qformer_text_input": True}  # fmt: skip
TEXTS = ["a cat", "what is this ?", "a picture of a cat, of a dog and of what is this"]
SIZES = ((50, 20), (20, 71), (3, 200))


def blip2_retrieval(folder: Path) -> Any:
    from transformers import Blip2Config, Blip2ForImageTextRetrieval
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    torch.manual_seed(5)
    config = Blip2Config(vision_config=VISION, qformer_config=FORMER, num_query_tokens=4, image_text_hidden_size=24)
    model = Blip2ForImageTextRetrieval(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Norms pass on what differs between pictures, and between texts.
            if "norm" not in name.lower():
                parameter.normal_(0, 0.3)
    save(model, folder)
    bert_tokenizer(folder)
    BlipImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(folder)
    return model


def pictures() -> list[Any]:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 120, (*size, 3), dtype=np.uint8) for size in SIZES]
    return [Image.fromarray(dots + np.roll(np.array([130, 60, 0], dtype=np.uint8), i)) for i, dots in enumerate(noise)]


def sensorium(*words: str | Path) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


class Pair:
    """The reference with its processors, and the folder it became."""

    def __init__(self, folder: Path) -> None:
        from transformers import BertTokenizer
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        self.folder, self.hf = folder, folder / "hf"
        self.theirs = blip2_retrieval(self.hf)
        self.words = BertTokenizer.from_pretrained(self.hf)
        self.eyes = BlipImageProcessorPil.from_pretrained(self.hf)
        sensorium("import", self.hf, folder / "ours")
        self.ours: Model = load(folder / "ours", device="cpu")

    def asked(self) -> dict[str, Tensor]:
        """Three pictures and three texts, filled up on the right."""
        text = self.words(TEXTS, padding=True, return_tensors="pt")
        seen = self.eyes(images=pictures(), return_tensors="pt")["pixel_values"].float()
        return {"input_ids": text["input_ids"], "attention_mask": text["attention_mask"], "pixel_values": seen}

    @torch.no_grad()
    def scores(self, model: Any = None, *, together: bool = False) -> Tensor:
        model = model or self.theirs
        return model(**self.asked(), use_image_text_matching_head=together).logits_per_image


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("blip2"))


def examples(model: Model) -> list[Example]:
    return [
        model.processor.encode(Sample(messages=(
            Message("user", (Part("image", picture),)), Message("assistant", (Part("text", text),)))))
        for picture, text in zip(pictures(), TEXTS, strict=True)
    ]  # fmt: skip


def layouts(rows: list[Example]) -> dict[str, Batch]:
    alone = [[row] for row in rows]
    return {
        "right": collate(alone, 0),
        "left": collate(alone, 0, pad_left=True),
        "packed": collate([rows[:2], rows[2:]], 0),
    }


@torch.no_grad()
def test_scores(pair: Pair, record: Callable[..., None]) -> None:
    """Vectors of pictures and texts, and both read together, in rows of every layout."""
    contrast, read = pair.scores(), pair.scores(together=True)
    assert contrast.std(dim=0).min() > 0.01
    assert contrast.std(dim=1).min() > 0.01
    assert read.std(dim=0).min() > 0.01
    network = pair.ours.network
    tower, scorer = joint_parts(network)
    reader, hand = reading_parts(network)
    for layout, batch in layouts(examples(pair.ours)).items():
        features = network.features(batch.media)
        vectors_MQJ = picture_vectors(network, features["image"])
        mine = scorer.scores(vectors_MQJ, text_vectors(tower, batch))
        record("blip2-retrieval", "1", layout, ours=mine, theirs=contrast)
        context = hand.context(features, batch.media, len(batch.input_ids_BT))
        media = hand.inserter(context, batch.media_index_BT, batch.slots)
        assert media is not None
        record("blip2-retrieval", layout, ours=reader.matches(batch, media), theirs=read)


def test_prepared_as_by_its_processors(pair: Pair, record: Callable[..., None]) -> None:
    encoder: Any = pair.ours.network.encoders["image"]
    wanted = pair.asked()
    for i, made in enumerate(examples(pair.ours)):
        mine = encoder.normalise(made.media["image"].pixels_NCHW)
        record("blip2-retrieval", "pixels", ours=mine, theirs=wanted["pixel_values"][i : i + 1])
        assert made.input_ids == pair.words(TEXTS[i])["input_ids"]
        assert made.input_ids == wanted["input_ids"][i][wanted["attention_mask"][i] > 0].tolist()
        record("blip2-retrieval", "ids")


def test_commands(pair: Pair, tmp_path: Path) -> None:
    """`match` alone and with --together says what the reference says of each text."""
    contrast, model = pair.scores(), pair.ours
    torch.testing.assert_close(model.similarity(pictures(), TEXTS), contrast, atol=1e-5, rtol=0)
    # Three pictures as they are: two of them have their own text beside them in `asked` alone.
    for i, picture in enumerate(pictures()):
        picture.save(tmp_path / "picture.png")
        command = ("match", tmp_path / "picture.png", *TEXTS, "--model", pair.folder / "ours", "--json")
        said = {row["text"]: row for row in json.loads(sensorium(*command, "--device", "cpu"))}
        for text, score in zip(TEXTS, contrast[i].tolist(), strict=True):
            assert abs(said[text]["score"] - score) < 1e-5
        said = {row["text"]: row for row in json.loads(sensorium(*command, "--device", "cpu", "--together"))}
        want = pair.scores(together=True).softmax(dim=-1)[i, 1]
        assert abs(said[TEXTS[i]]["probability"] - float(want)) < 1e-5


def test_returns_as_it_came(pair: Pair, record: Callable[..., None]) -> None:
    sensorium("export", pair.folder / "ours", pair.folder / "out", "--to", "hf")
    assert same_tensors(pair.hf, pair.folder / "out")
    assert loaded_alike(pair, pair.folder / "out")
    record("blip2-retrieval", "export")


def loaded_alike(pair: Pair, folder: Path) -> bool:
    from transformers import Blip2ForImageTextRetrieval

    found: Any = Blip2ForImageTextRetrieval.from_pretrained(folder, output_loading_info=True)
    again, info = found
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert again.config.image_token_index is None
    for together in (False, True):
        mine, theirs = pair.scores(again.eval(), together=together), pair.scores(together=together)
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
    return True


def test_a_model_without_a_past_goes_out(pair: Pair, tmp_path: Path) -> None:
    """By a config made of ours, with what AutoProcessor needs."""
    from transformers import AutoProcessor

    for file in (pair.folder / "ours").iterdir():
        if file.name != "foreign.json":
            (tmp_path / "ours").mkdir(exist_ok=True)
            (tmp_path / "ours" / file.name).write_bytes(file.read_bytes())
    sensorium("export", tmp_path / "ours", tmp_path / "out", "--to", "hf")
    assert same_tensors(pair.hf, tmp_path / "out")
    assert loaded_alike(pair, tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out", local_files_only=True)
    made = processor(images=pictures(), text=TEXTS, padding=True, return_tensors="pt")
    wanted = pair.asked()
    assert torch.equal(made["input_ids"], wanted["input_ids"])
    torch.testing.assert_close(made["pixel_values"], wanted["pixel_values"], atol=1e-5, rtol=0)
    assert read_hf(tmp_path / "out").config.to_dict() == pair.ours.network.config.to_dict()


@torch.no_grad()
def test_texts_beside_pictures_without_one_are_read_alone(pair: Pair) -> None:
    network, rows = pair.ours.network, examples(pair.ours)
    blind = Example(rows[1].input_ids, rows[1].learn, media_index=[0] * len(rows[1].input_ids))
    alone = network(collate([[blind]], 0)).hidden_BTD[0]
    whole = collate([[rows[0]], [blind], [rows[2]]], 0)
    beside = network(whole).hidden_BTD
    length = len(alone)
    torch.testing.assert_close(beside[1, :length], alone, atol=1e-5, rtol=0)
    for i in (0, 2):
        seeing = network(collate([[rows[i]]], 0)).hidden_BTD[0]
        torch.testing.assert_close(beside[i, : len(seeing)], seeing, atol=1e-5, rtol=0)
        tower, _ = joint_parts(network)
        blank = tower.teacher_forced(tower.embed(torch.tensor([rows[i].input_ids])), collate([[rows[i]]], 0))
        assert not torch.allclose(seeing, blank[0], atol=1e-3)
    reader, hand = reading_parts(network)
    features = network.features(whole.media)
    media = hand.inserter(hand.context(features, whole.media, 3), whole.media_index_BT, whole.slots)
    assert media is not None
    with pytest.raises(DataError, match="without a picture"):
        reader.matches(whole, media)


def test_learns_in_all_its_parts(pair: Pair) -> None:
    """Rows without a picture beside others give no gradient that is not a number."""
    network, rows = read_hf(pair.hf), examples(pair.ours)
    blind = Example(rows[1].input_ids, rows[1].learn, media_index=[0] * len(rows[1].input_ids))
    batch = collate([[rows[0]], [blind], [rows[2]]], 0)
    network.train()
    tower = network.backbone
    assert isinstance(tower, QueryTower)
    vectors_NJ = tower.pooled(network(batch).hidden_BTD, batch)
    shown_MQJ = tower.pictures(network.features(batch.media)["image"])
    (F.normalize(vectors_NJ, dim=-1).sum() + shown_MQJ.sum()).backward()
    grads = {n: p.grad for n, p in tower.named_parameters() if "itm_head" not in n}
    assert all(g is not None and torch.isfinite(g).all() for g in grads.values()), [n for n, g in grads.items() if g is None]


def test_a_folder_whose_texts_hold_room_for_the_queries(pair: Pair, tmp_path: Path) -> None:
    """Its processor puts a token for each query in front of a text, its class takes them off again; ours needs none,
    and the folder goes back as it came."""
    from transformers import AutoProcessor, Blip2ForImageTextRetrieval, Blip2Processor

    again: Any = Blip2ForImageTextRetrieval.from_pretrained(pair.hf)
    processor = Blip2Processor(pair.eyes, bert_tokenizer(tmp_path), num_query_tokens=4)
    processor.save_pretrained(tmp_path)
    again.config.image_token_index = processor.tokenizer.convert_tokens_to_ids("<image>")
    save(again.eval(), tmp_path)
    asked = AutoProcessor.from_pretrained(tmp_path)(images=pictures(), text=TEXTS, padding=True, return_tensors="pt")
    assert asked["input_ids"].shape[1] == pair.asked()["input_ids"].shape[1] + 4
    sensorium("import", tmp_path, tmp_path / "ours")
    model = load(tmp_path / "ours", device="cpu")
    with torch.no_grad():
        contrast = again(**asked).logits_per_image
        read = again(**asked, use_image_text_matching_head=True).logits_per_image
    torch.testing.assert_close(model.similarity(pictures(), TEXTS), contrast, atol=1e-5, rtol=0)
    mine = model.space.matches(pictures(), TEXTS)
    torch.testing.assert_close(mine, read.softmax(dim=-1)[:, 1], atol=1e-5, rtol=0)
    sensorium("export", tmp_path / "ours", tmp_path / "out", "--to", "hf")
    kept = json.loads((tmp_path / "out" / "config.json").read_text())
    assert kept["image_token_index"] == again.config.image_token_index
    assert same_tensors(tmp_path, tmp_path / "out")


def test_long_texts_and_names(pair: Pair) -> None:
    """A text is cut to as many tokens as there are places, its end kept; names are ranked by their best query."""
    model = pair.ours
    made = model.processor.encode(Sample(messages=(Message("assistant", (Part("text", "cat " * 100),)),)))
    ids = pair.words("cat " * 100)["input_ids"]
    assert made.input_ids == [*ids[:63], ids[-1]]
    assert torch.isfinite(model.similarity(pictures()[:1], ["cat " * 100])).all()
    found = model.classify(pictures(), ["cat", "picture"])
    scores = model.similarity(pictures(), ["a photo of a cat.", "a photo of a picture."])
    torch.testing.assert_close(found, scores.softmax(dim=-1))


def test_what_cannot_be_is_refused_by_name(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="blip2-represent"):
        matching_parts(pair.ours.network)
    with pytest.raises(ConfigError, match=r"objective\.temperature"):
        scaled_parts(pair.ours.network)
    with pytest.raises(ConfigError, match="sensorium import"):
        QueryTowerConfig.tiny().build(tmp_path)
    ours = pair.ours.network.config
    wider = ours.model_copy(update={"backbone": ours.backbone.model_copy(update={"d_picture": 40})})
    with pytest.raises(ConfigError, match="media of width 32 for a Q-Former over width 40"):
        MultimodalModel(wider)
    with pytest.raises(ConfigError, match="with this backbone: query_match"):
        check_model(ours.model_copy(update={"fusion": MatchConfig()}))
    lane = ours.lane("image").model_copy(update={"projector": LinearConfig()})
    with pytest.raises(ConfigError, match="a projector lies between"):
        Blip2().to_theirs(ours.model_copy(update={"lanes": {"image": lane}}))
    config = json.loads((pair.hf / "config.json").read_text())
    config["architectures"] = ["Blip2TextModelWithProjection"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="Blip2TextModelWithProjection"):
        read_hf(tmp_path)
