"""CLIP and SigLIP imported from transformers' own folders: equal embeddings, scores and losses, equal
preparation of pictures and texts, and equal tensors on the way back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hf_models import clip, siglip
from PIL import Image
from torch import Tensor

from sensorium.api import load
from sensorium.core.batch import Example, MediaBatch, TilePlan
from sensorium.core.errors import ConfigError
from sensorium.interop.families import FAMILIES
from sensorium.interop.hf import export_hf, import_hf, read_hf, same_tensors, write_hf
from sensorium.model.joint import joint_parts
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.text.byte_tokenizer import byte_tokenizer
from sensorium.training.objectives.contrastive import ContrastiveConfig, ContrastiveObjective

# Texts of different lengths, each closed by the end of text.
END, PAD = 299, 1
TEXTS = [[298, 5, 6, 7, END], [298, 9, END], [298, *range(20, 37), END]]
FILLED = 20
MODELS = {"clip": clip, "siglip": siglip}
PIXELS = {"clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
          "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}  # fmt: skip


def normalised(raw: Tensor, family: str) -> Tensor:
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in PIXELS[family])
    return (raw / 255 - mean) / std


def rows(family: str) -> list[list[int]]:
    """As each family reads them: SigLIP's are filled up."""
    return TEXTS if family == "clip" else [ids + [PAD] * (FILLED - len(ids)) for ids in TEXTS]


def theirs_inputs(family: str, raw: Tensor) -> dict[str, Tensor]:
    ids = rows(family)
    longest = max(map(len, ids))
    inputs = {"input_ids": torch.tensor([r + [PAD] * (longest - len(r)) for r in ids]),
              "pixel_values": normalised(raw, family)}  # fmt: skip
    if family == "clip":
        inputs["attention_mask"] = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in ids])
    return inputs


def examples(family: str, raw: Tensor) -> list[Example]:
    return [
        Example(ids, [False] + [True] * (len(ids) - 1), {"image": []},
                {"image": MediaBatch(picture[None], (TilePlan(),))}, [1] * len(ids))
        for ids, picture in zip(rows(family), raw, strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("layout", ["right", "left", "packed"])
def test_embeddings_scores_and_loss(
    family: str, layout: str, tmp_path: Path, record: Callable[..., None]
) -> None:
    theirs = MODELS[family](tmp_path / "hf")
    ours = read_hf(tmp_path / "hf")
    raw = torch.randint(0, 256, (3, 3, 28, 28), dtype=torch.uint8)
    with torch.no_grad():
        expected = theirs(**theirs_inputs(family, raw), return_loss=True)
    made = examples(family, raw)
    grouped = [made[:2], made[2:]] if layout == "packed" else [[e] for e in made]
    batch = collate(grouped, PAD, pad_left=layout == "left")
    tower, apart = joint_parts(ours)
    with torch.no_grad():
        output = ours(batch)
        texts_NJ = tower.pooled(output.hidden_BTD, batch)
        pictures_NJ = output.features["image"].values_ND
        scores_NN = apart.scores(pictures_NJ, texts_NJ)
    for mine, wanted in ((pictures_NJ, expected.image_embeds), (texts_NJ, expected.text_embeds)):
        unit = torch.nn.functional.normalize(mine, dim=-1)
        torch.testing.assert_close(unit, wanted, atol=1e-5, rtol=1e-4)
    record(family, "1", layout, ours=scores_NN, theirs=expected.logits_per_image)
    loss = "softmax" if family == "clip" else "sigmoid"
    losses = ContrastiveObjective(ContrastiveConfig(loss=loss))(ours, batch)
    assert losses.count == 3
    torch.testing.assert_close(losses.total / 3, expected.loss, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", MODELS)
def test_there_and_back(family: str, tmp_path: Path) -> None:
    MODELS[family](tmp_path / "hf")
    ours = read_hf(tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "back").mkdir()
    write_hf(ours, config, FAMILIES.find(family)(), tmp_path / "back")
    assert same_tensors(tmp_path / "hf", tmp_path / "back")


@pytest.mark.parametrize("family", MODELS)
def test_the_reference_loads_what_is_exported(family: str, tmp_path: Path, record: Callable[..., None]) -> None:
    import transformers

    theirs = MODELS[family](tmp_path / "hf")
    byte_tokenizer().save(tmp_path / "hf")
    import_hf(tmp_path / "hf", tmp_path / "ours")
    # Not by the config it came with, but by one made of ours.
    (tmp_path / "ours" / "foreign.json").unlink()
    export_hf(tmp_path / "ours", tmp_path / "out", family)
    again, info = getattr(transformers, type(theirs).__name__).from_pretrained(
        tmp_path / "out", output_loading_info=True)  # fmt: skip
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    inputs = theirs_inputs(family, torch.randint(0, 256, (3, 3, 28, 28), dtype=torch.uint8))
    with torch.no_grad():
        one, two = theirs(**inputs).logits_per_image, again.eval()(**inputs).logits_per_image
    record(family, "export", ours=one, theirs=two)


@pytest.mark.parametrize("family", MODELS)
def test_parts_take_their_weights_from_a_whole_checkpoint(family: str, tmp_path: Path) -> None:
    MODELS[family](tmp_path / "hf")
    whole = read_hf(tmp_path / "hf")
    built = MultimodalModel(whole.config, dict.fromkeys(("backbone", "encoders.image"), tmp_path / "hf"))
    for key, value in whole.state_dict().items():
        if key.startswith(("backbone.", "encoders.")):
            assert torch.equal(value, built.state_dict()[key]), key


def pictures() -> list[Image.Image]:
    """Wide, tall, small, large, square, and grey."""
    rng = np.random.default_rng(0)
    sizes = [(61, 28), (28, 90), (9, 13), (200, 133), (28, 28), (101, 50), (350, 7)]
    made = [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    return [*made, Image.fromarray(rng.integers(0, 256, (40, 33), dtype=np.uint8), "L")]


def clip_processor() -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})


def siglip_processor() -> Any:
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    return SiglipImageProcessorPil(size={"height": 28, "width": 28})


PROCESSORS: dict[str, Callable[[], Any]] = {"clip": clip_processor, "siglip": siglip_processor}


@pytest.mark.parametrize("family", MODELS)
def test_pictures_are_prepared_alike(family: str, tmp_path: Path, record: Callable[..., None]) -> None:
    theirs = MODELS[family](tmp_path / "hf")
    processor = PROCESSORS[family]()
    processor.save_pretrained(tmp_path / "hf")
    byte_tokenizer().save(tmp_path / "hf")
    import_hf(tmp_path / "hf", tmp_path / "ours")
    model = load(tmp_path / "ours", device="cpu")
    seen = processor(images=[p.convert("RGB") for p in pictures()], return_tensors="pt")["pixel_values"]
    encoder: Any = model.network.encoders["image"]
    for picture, wanted in zip(pictures(), seen, strict=True):
        media = model.processor.encode(_sample(picture)).media["image"]
        mine = encoder.normalise(media.pixels_NCHW)[0]
        record(family, "pixels", ours=mine, theirs=wanted.float())
    with torch.no_grad():
        expected = theirs.get_image_features(pixel_values=seen.float()).pooler_output
    unit = torch.nn.functional.normalize(expected, dim=-1)
    torch.testing.assert_close(model.space.pictures(pictures()), unit, atol=1e-5, rtol=1e-4)


def _sample(picture: Image.Image) -> Any:
    from sensorium.core.sample import parse_sample

    return parse_sample({"messages": [{"role": "user", "content": [{"type": "image", "image": picture}]}]})


def test_texts_are_prepared_as_by_clip(tmp_path: Path, record: Callable[..., None]) -> None:
    """Token ids, padding aside; then scores of texts of different lengths, one of them too long."""
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz.0'"
    vocab = {c: i for i, c in enumerate([*letters, *(c + "</w>" for c in letters), "ca", "cat</w>"])}
    vocab |= {"<|startoftext|>": 298, "<|endoftext|>": END}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[("c", "a"), ("ca", "t</w>")], model_max_length=20)
    theirs = clip(tmp_path / "hf")
    tokenizer.save_pretrained(tmp_path / "hf")
    import_hf(tmp_path / "hf", tmp_path / "ours")
    model = load(tmp_path / "ours", device="cpu")
    texts = ["A photo of a cat.", "cat", "It's   a DOG", "a text that is longer than what is read"]
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    for text, ids, mask in zip(texts, inputs["input_ids"], inputs["attention_mask"], strict=True):
        made = model.processor.encode(_caption(text))
        assert made.input_ids == ids[mask.bool()].tolist()
        assert bool(made.truncated_tokens) == (text == texts[-1])
    record("clip", "ids")
    pixels = clip_processor()(images=[p.convert("RGB") for p in pictures()], return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**inputs, pixel_values=pixels["pixel_values"].float()).logits_per_image
    torch.testing.assert_close(model.similarity(pictures(), texts), expected, atol=1e-5, rtol=1e-5)
    names = model.classify(pictures(), ["cat", "dog"], ["{}"])
    assert names.shape == (len(pictures()), 2)
    torch.testing.assert_close(names.sum(dim=1), torch.ones(len(pictures())))
    with pytest.raises(ConfigError, match="writes nothing"):
        model.respond("Hello")
    with pytest.raises(ConfigError, match="writes nothing"):
        model.logits("Hello")


def _caption(text: str) -> Any:
    from sensorium.core.sample import parse_sample

    return parse_sample({"messages": [{"role": "assistant", "content": text}]})


def test_texts_are_filled_up_for_siglip(tmp_path: Path) -> None:
    siglip(tmp_path / "hf")
    byte_tokenizer().save(tmp_path / "hf")
    import_hf(tmp_path / "hf", tmp_path / "ours")
    model = load(tmp_path / "ours", device="cpu")
    end = model.tokenizer.eos_id
    made = model.processor.encode(_caption("A  Cat!"))
    spelt = model.tokenizer.encode("a cat")
    assert made.input_ids == [*spelt, end] + [model.tokenizer.pad_id] * (FILLED - len(spelt) - 1)
    long = model.processor.encode(_caption("x" * 50))
    assert long.input_ids == [*model.tokenizer.encode("x" * (FILLED - 1)), end]
    assert model.similarity([pictures()[0]], ["a cat", "a dog", "x" * 50]).shape == (1, 3)


def test_older_files_store_counted_positions(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    clip(tmp_path / "hf")
    file = tmp_path / "hf" / "model.safetensors"
    more = {f"{side}_model.embeddings.position_ids": torch.arange(5)[None] for side in ("text", "vision")}
    save_file(load_file(file) | more, file, metadata={"format": "pt"})
    assert read_hf(tmp_path / "hf").config.text_frame is not None
