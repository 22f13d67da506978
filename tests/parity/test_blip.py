"""BLIP imported from transformers' own folders: equal scores and texts, and equal tensors on the way
back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hf_models import blip
from PIL import Image
from torch import Tensor

from sensorium.api import load
from sensorium.backbones.cross_tower import CrossTower
from sensorium.core.batch import Batch, Example, MediaBatch, TilePlan
from sensorium.core.sample import parse_messages
from sensorium.inference.engine import Engine
from sensorium.interop.families import FAMILIES
from sensorium.interop.hf import export_hf, import_hf, read_hf, same_tensors, write_hf
from sensorium.media.image import load_image
from sensorium.model.joint import joint_parts, text_vectors
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.training.objectives.next_token import CaptionConfig, next_token_losses

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
DEC, PAD = 259, 0


def normalised(raw: Tensor) -> Tensor:
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    return (raw / 255 - mean) / std


def example(ids: list[int], picture: Tensor, learned: int = 0) -> Example:
    """A text about a picture, of which the last tokens are learned."""
    learn = [i >= len(ids) - learned for i in range(len(ids))]
    return Example(ids, learn, {"image": []}, {"image": MediaBatch(picture[None], (TilePlan(),))},
                   [1] * len(ids))  # fmt: skip


def batch_of(*examples: Example, pad_left: bool = False) -> Batch:
    return collate([[e] for e in examples], PAD, pad_left=pad_left)


def pictures(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 28, 28), dtype=torch.uint8)


TEXTS = [[DEC, 5, 6, 7, 8], [DEC, 9, 10], [DEC, *range(20, 40)]]


def test_captions(tmp_path: Path, record: Callable[..., None]) -> None:
    theirs = blip(tmp_path / "hf")
    ours = read_hf(tmp_path / "hf")
    raw = pictures(3)
    made = [example(ids, picture) for ids, picture in zip(TEXTS, raw, strict=True)]
    batches = {
        "alone": [batch_of(one) for one in made],
        "right": [batch_of(*made)],
        "left": [batch_of(*made, pad_left=True)],
        "packed": [collate([made[:2], made[2:]], PAD)],
    }
    for layout, found in batches.items():
        with torch.no_grad():
            hidden = torch.cat([ours(b).hidden_BTD[b.segments_BT > 0] for b in found])
        mine = ours.logits(hidden).split([len(ids) for ids in TEXTS])
        for ids, picture, logits in zip(TEXTS, raw, mine, strict=True):
            with torch.no_grad():
                expected = theirs(input_ids=torch.tensor([ids]), pixel_values=normalised(picture[None])).logits
            record("blip-caption", "1" if layout == "alone" else layout, ours=logits, theirs=expected[0])


def greedy(model: Any, prompts: list[Example], length: int) -> list[list[int]]:
    engine = Engine(model, SimpleNamespace(frames=None, signals={}, stop_ids={PAD}, tokenizer=SimpleNamespace(pad_id=PAD)))  # pyright: ignore[reportArgumentType]
    return engine.generate(prompts, max_tokens=length)


def until_end(ids: list[int]) -> list[int]:
    return ids[: ids.index(PAD)] if PAD in ids else ids


def test_captions_go_on_alike(tmp_path: Path, record: Callable[..., None]) -> None:
    theirs = blip(tmp_path / "hf")
    ours = read_hf(tmp_path / "hf")
    raw = pictures(3)
    wanted: list[list[int]] = []
    for ids, picture in zip(TEXTS, raw, strict=True):
        # It takes the end that the tokenizer puts behind a prompt off again.
        text = theirs.generate(pixel_values=normalised(picture[None]), input_ids=torch.tensor([[*ids, 0]]),
                               max_new_tokens=12, do_sample=False)[0].tolist()  # fmt: skip
        assert text[: len(ids)] == ids
        wanted.append(until_end(text[len(ids) :]))
    assert any(len(set(text)) > 3 for text in wanted)
    prompts = [example(ids, picture) for ids, picture in zip(TEXTS, raw, strict=True)]
    assert greedy(ours, prompts, 12) == wanted
    assert [greedy(ours, [prompt], 12)[0] for prompt in prompts] == wanted
    record("blip-caption", "greedy")


def test_the_loss_of_captions(tmp_path: Path) -> None:
    """With smoothed targets, too."""
    theirs = blip(tmp_path / "hf")
    ours = read_hf(tmp_path / "hf")
    ids, picture = [DEC, 5, 6, 7, 8, 9, 0], pictures(1)
    labels = torch.tensor([[-100, -100, -100, 7, 8, 9, 0]])
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor([ids]), pixel_values=normalised(picture), labels=labels).loss
        losses = next_token_losses(ours, batch_of(example(ids, picture[0], learned=4)))
    torch.testing.assert_close(losses.total / losses.count, expected, atol=1e-5, rtol=1e-5)
    theirs.text_decoder.label_smoothing = 0.1
    objective = CaptionConfig(smoothing=0.1).build(ours, SimpleNamespace(), [])  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        smooth = theirs(input_ids=torch.tensor([ids]), pixel_values=normalised(picture), labels=labels).loss
        losses = objective(ours, batch_of(example(ids, picture[0], learned=4)))
    assert abs(float(smooth - expected)) > 1e-3
    torch.testing.assert_close(losses.total / losses.count, smooth, atol=1e-5, rtol=1e-5)


def test_rows_without_a_picture_read_the_text_alone(tmp_path: Path) -> None:
    """Beside rows with pictures, and alone."""
    blip(tmp_path / "hf")
    ours = read_hf(tmp_path / "hf")
    blind = Example(TEXTS[0], [False] * 5, media_index=[0] * 5)
    seeing = example(TEXTS[2], pictures(1)[0])
    with torch.no_grad():
        alone = ours(batch_of(blind)).hidden_BTD[0]
        beside = ours(batch_of(seeing, blind)).hidden_BTD[1, :5]
    torch.testing.assert_close(beside, alone, atol=1e-5, rtol=1e-4)


QUESTIONS = [[1, 5, 6, 7, 8, 0], [1, 9, 0], [1, *range(20, 40), 0]]
ANSWERS = [[30, 31, 0], [40, 0], [50, 51, 52, 0]]


def test_answers(tmp_path: Path, record: Callable[..., None]) -> None:
    theirs = blip(tmp_path / "hf", "BlipForQuestionAnswering")
    ours = read_hf(tmp_path / "hf")
    raw = pictures(3)
    rows = [example(q + a, p, learned=len(a)) for q, a, p in zip(QUESTIONS, ANSWERS, raw, strict=True)]
    prompts = [example(q, p) for q, p in zip(QUESTIONS, raw, strict=True)]
    with torch.no_grad():
        together = ours(batch_of(*rows)).hidden_BTD
        pushed = ours(batch_of(*rows, pad_left=True)).hidden_BTD
    wanted: list[list[int]] = []
    for i, (question, answer, picture) in enumerate(zip(QUESTIONS, ANSWERS, raw, strict=True)):
        asked = {"input_ids": torch.tensor([question]), "pixel_values": normalised(picture[None])}
        with torch.no_grad():
            vision = theirs.vision_model(pixel_values=asked["pixel_values"]).last_hidden_state
            read = theirs.text_encoder(input_ids=asked["input_ids"], encoder_hidden_states=vision).last_hidden_state
            expected = theirs.text_decoder(
                input_ids=torch.tensor([[DEC, *answer[:-1]]]), encoder_hidden_states=read
            ).logits[0]
            alone = ours(batch_of(rows[i])).hidden_BTD[0]
        begin = len(question) - 1
        left = pushed[i, -len(rows[i]) :]
        for aspect, hidden in (("right", together[i]), ("1", alone), ("left", left)):
            mine = ours.logits(hidden[begin : begin + len(answer)])
            record("blip-vqa", aspect, ours=mine, theirs=expected)
        text = theirs.generate(**asked, max_new_tokens=10, do_sample=False)[0].tolist()
        assert text[0] == DEC
        wanted.append(until_end(text[1:]))
    assert greedy(ours, prompts, 10) == wanted
    assert [greedy(ours, [prompt], 10)[0] for prompt in prompts] == wanted
    record("blip-vqa", "greedy")


def test_retrieval(tmp_path: Path, record: Callable[..., None]) -> None:
    """Vectors of texts and pictures, and both read together."""
    theirs = blip(tmp_path / "hf", "BlipForImageTextRetrieval")
    ours = read_hf(tmp_path / "hf")
    raw = pictures(3)
    tower, scorer = joint_parts(ours)
    assert isinstance(tower, CrossTower)
    rows = [example(q, p) for q, p in zip(QUESTIONS, raw, strict=True)]
    longest = max(map(len, QUESTIONS))
    ids = torch.tensor([q + [PAD] * (longest - len(q)) for q in QUESTIONS])
    mask = torch.tensor([[1] * len(q) + [0] * (longest - len(q)) for q in QUESTIONS])
    asked = {"input_ids": ids, "attention_mask": mask, "pixel_values": normalised(raw)}
    with torch.no_grad():
        cosines = theirs(**asked, use_itm_head=False).itm_score
        read = theirs(**asked).itm_score
    packed = collate([rows[:2], rows[2:]], PAD)
    batches = {"right": batch_of(*rows), "left": batch_of(*rows, pad_left=True), "packed": packed}
    for layout, batch in batches.items():
        with torch.no_grad():
            vectors_NJ = scorer.pictures(ours.features(batch.media)["image"])
            mine = scorer.scores(vectors_NJ, text_vectors(tower, batch))
            record("blip-retrieval", "1", layout, ours=mine, theirs=cosines)
            together = tower.matched(ours(batch).hidden_BTD, batch)
            record("blip-retrieval", layout, ours=together, theirs=read)


WRITERS = ["BlipForConditionalGeneration", "BlipForQuestionAnswering"]
CLASSES = [*WRITERS, "BlipForImageTextRetrieval"]
ORACLES = dict(zip(CLASSES, ("blip-caption", "blip-vqa", "blip-retrieval"), strict=True))


@pytest.mark.parametrize("name", CLASSES)
def test_there_and_back(name: str, tmp_path: Path, record: Callable[..., None]) -> None:
    import transformers

    theirs = blip(tmp_path / "hf", name)
    ours = read_hf(tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "back").mkdir()
    write_hf(ours, config, FAMILIES.find("blip")(), tmp_path / "back")
    assert same_tensors(tmp_path / "hf", tmp_path / "back")
    # By a config made of ours, too.
    family = FAMILIES.find("blip")()
    (tmp_path / "new").mkdir()
    write_hf(ours, family.to_theirs(ours.config), family, tmp_path / "new")
    again, info = getattr(transformers, name).from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for one, two in zip(theirs.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    record(ORACLES[name], "export")


@pytest.mark.parametrize("name", CLASSES)
def test_parts_take_their_weights_from_a_whole_checkpoint(name: str, tmp_path: Path) -> None:
    blip(tmp_path / "hf", name)
    whole = read_hf(tmp_path / "hf")
    folders = dict.fromkeys(("backbone", "encoders.image"), tmp_path / "hf")
    built = MultimodalModel(whole.config, folders)
    for key, value in whole.state_dict().items():
        if key.startswith("fusion."):
            continue
        assert torch.equal(value, built.state_dict()[key]), key


def bert_tokenizer(folder: Path) -> Any:
    """Words and letters, 259 of them, so that the decoder's mark is the next."""
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "picture", "of", "what", "is", "this", "?", "cat"]
    letters = [*"bcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    vocab = [*words, *letters]
    vocab += [f"[unused{i}]" for i in range(DEC - len(vocab))]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(vocab)})
    tokenizer.save_pretrained(folder)
    return tokenizer


def test_pictures_to_be_found_are_prepared_alike(tmp_path: Path, record: Callable[..., None]) -> None:
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    blip(tmp_path / "hf", "BlipForImageTextRetrieval")
    eyes = BlipImageProcessorPil(size={"height": 28, "width": 28})
    eyes.save_pretrained(tmp_path / "hf")
    lane = read_hf(tmp_path / "hf").config.lane("image")
    for size in ((50, 20), (20, 71), (3, 200)):
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
        raw = lane.resolution.cut(load_image(picture), TilePlan(), lane.encoder.preprocess())
        seen = eyes(images=picture, return_tensors="pt")["pixel_values"].float()
        record("blip-retrieval", "pixels", ours=normalised(torch.from_numpy(raw).permute(0, 3, 1, 2)), theirs=seen)


@pytest.mark.parametrize("name", WRITERS)
def test_prepared_as_by_its_processor(name: str, tmp_path: Path, record: Callable[..., None]) -> None:
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    theirs = blip(tmp_path / "hf", name)
    tokenizer = bert_tokenizer(tmp_path / "hf")
    eyes = BlipImageProcessorPil(size={"height": 28, "width": 28})
    eyes.save_pretrained(tmp_path / "hf")
    import_hf(tmp_path / "hf", tmp_path / "ours")
    model = load(tmp_path / "ours", device="cpu")
    rng = np.random.default_rng(0)
    for size in ((50, 20), (20, 71), (28, 28), (3, 200)):
        picture = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        seen = eyes(images=picture, return_tensors="pt")["pixel_values"]
        text = "a picture of" if name == CLASSES[0] else "What is this?"
        ids = tokenizer(text)["input_ids"]
        made = model.processor.prompt(parse_messages([{"role": "user", "content": [
            {"type": "image", "image": picture}, {"type": "text", "text": text}]}]))  # fmt: skip
        encoder: Any = model.network.encoders["image"]
        mine = encoder.normalise(made.media["image"].pixels_NCHW)
        record(ORACLES[name], "pixels", ours=mine, theirs=seen.float())
        assert made.input_ids == ([DEC, *ids[1:-1]] if name == CLASSES[0] else ids)
        record(ORACLES[name], "ids")
        said = theirs.generate(pixel_values=seen.float(), input_ids=torch.tensor([ids]), max_new_tokens=6,
                               do_sample=False)[0].tolist()  # fmt: skip
        prompt = len(made.input_ids) if name == CLASSES[0] else 1
        assert model.engine.generate([made], max_tokens=6) == [
            [i for i in said[prompt:] if i != model.tokenizer.eos_id]
        ]
    export_hf(tmp_path / "ours", tmp_path / "out")
    assert same_tensors(tmp_path / "hf", tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_text() == (tmp_path / "hf" / "tokenizer.json").read_text()
