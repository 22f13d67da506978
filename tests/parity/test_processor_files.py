"""A model that was trained here, exported: transformers' AutoProcessor reads what lies beside its weights, prepares
pictures and talk as ours does, and the reference computes the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from original_layouts import spread
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

import sensorium
from sensorium.core.config import Config
from sensorium.core.sample import Sample, parse_messages
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.hf import export_hf
from sensorium.interop.saved import save_model
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import ModelConfig
from sensorium.nn.pretrained import read_folder
from sensorium.recipes import TINY_FORMS


def changed(config: ModelConfig, lane: Mapping[str, Config], words: int | None = None) -> ModelConfig:
    """Other parts of the pictures' lane, and an embedding of so many rows."""
    image = config.lane("image").model_copy(update=lane)
    update: dict[str, Any] = {"lanes": {"image": image}}
    if words is not None:
        arch = {**config.backbone.to_dict()["arch"], "vocab_size": words}
        update["backbone"] = config.backbone.model_copy(update={"arch": arch})
    return config.model_copy(update=update)


def made(config: ModelConfig, folder: Path) -> sensorium.api.Model:
    """A model of random weights, saved in `ours` and exported to `theirs`."""
    torch.manual_seed(0)
    model, tokenizer = build_pretrained(config)
    save_model(spread(model), tokenizer, folder / "ours", learnt=set())
    export_hf(folder / "ours", folder / "theirs", "hf")
    return sensorium.load(folder / "ours", device="cpu")


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


CASES: dict[str, tuple[str, dict[str, Config]]] = {
    "llava, crop": ("llava-1.5", {"resolution": FixedResolution(fit="crop")}),
    "llava, stretch": ("llava-1.5", {"resolution": FixedResolution(fit="stretch")}),
    "llava-next": ("llava-next", {}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_reference_prepares_and_computes_the_same(case: str, tmp_path: Path) -> None:
    name, lane = CASES[case]
    ours = made(changed(TINY_FORMS.find(name)().model, lane), tmp_path)
    processor: Any = AutoProcessor.from_pretrained(tmp_path / "theirs")
    theirs: Any = AutoModelForImageTextToText.from_pretrained(tmp_path / "theirs").eval()
    token = theirs.config.image_token_id
    assert processor.image_token_id == token
    for size in ((70, 45), (31, 90)):
        image = picture(*size)
        asked = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "What? "}]},
                 {"role": "assistant", "content": [{"type": "text", "text": "A dog"}]}]  # fmt: skip
        text = processor.apply_chat_template(asked)
        given = processor(text=text, images=[image], return_tensors="pt")
        example = ours.processor.encode(Sample(messages=parse_messages(asked)))
        ids = given["input_ids"][0].tolist()
        slots = set(example.slots["image"])
        assert len(ids) == len(example.input_ids)
        assert {i for i, one in enumerate(ids) if one == token} == slots
        assert [one for i, one in enumerate(ids) if i not in slots] == [
            one for i, one in enumerate(example.input_ids) if i not in slots
        ]
        with torch.no_grad():
            expected = theirs(**given).logits[0]
        torch.testing.assert_close(ours.logits(asked).logits_TV, expected, atol=1e-4, rtol=1e-4)


def test_a_full_vocabulary_gets_rows_that_are_never_the_likeliest(tmp_path: Path) -> None:
    """LLaMA's 32,000 rows have a word each."""
    tiny = TINY_FORMS.find("llava-1.5")().model
    words = len(build_pretrained(tiny)[1])
    config = changed(tiny, {"resolution": FixedResolution(fit="crop")}, words)
    ours = made(config, tmp_path)
    stored = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert stored["image_token_index"] == words
    rows = stored["text_config"]["vocab_size"]
    assert rows > words
    assert rows % 64 == 0
    head = read_folder(tmp_path / "theirs")["language_model.lm_head.weight"]
    assert head.shape[0] == rows
    theirs: Any = AutoModelForImageTextToText.from_pretrained(tmp_path / "theirs").eval()
    ids = torch.randint(0, words, (4, 30))
    with torch.no_grad():
        logits = theirs(input_ids=ids).logits
    assert int(logits.argmax(-1).max()) < words
    known = read_folder(tmp_path / "ours")["backbone.lm.lm_head.weight"]
    assert torch.equal(head[:words], known)
    assert ours.network.config.backbone.vocab_size == words


def test_an_image_token_is_never_a_word_of_text(tmp_path: Path) -> None:
    """It once was the first word of the vocabulary, an exclamation mark in Qwen2's."""
    for name in ("llava-onevision", "qwen2-vl", "qwen2.5-vl", "blip2-opt"):
        folder, config = tmp_path / name, TINY_FORMS.find(name)().model
        if name == "qwen2-vl":
            wide = config.lane("image").encoder.model_copy(update={"mlp_width": 64})
            config = changed(config, {"encoder": wide})
        made(config, folder)
        stored = json.loads((folder / "theirs" / "config.json").read_text())
        token = stored.get("image_token_index", stored.get("image_token_id"))
        read = json.loads((folder / "theirs" / "tokenizer.json").read_text())
        added = {one["id"]: one for one in read["added_tokens"]}
        assert added[token]["special"], name
        # Qwen2-VL's processor looks for its own and reads no other from a file.
        assert added[token]["content"] == ("<|image_pad|>" if name.startswith("qwen") else "<image>")
        files = {path.name for path in (folder / "theirs").iterdir()}
        assert {"preprocessor_config.json", "processor_config.json"} <= files


@pytest.mark.parametrize("name", ["blip2-opt", "llava-onevision", "llava-next", "qwen2.5-vl", "idefics-9b"])
def test_the_reference_sees_the_same_pixels(name: str, tmp_path: Path) -> None:
    ours = made(TINY_FORMS.find(name)().model, tmp_path)
    reader: Any = AutoImageProcessor.from_pretrained(tmp_path / "theirs")
    seen = ours.network.config.lane("image").encoder.preprocess()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (seen.mean, seen.std))
    for size in ((70, 45), (31, 90), (200, 200)):
        image = picture(*size)
        asked = [{"role": "user", "content": [{"type": "image", "image": image}]}]
        media = ours.processor.prompt(parse_messages(asked)).media["image"]
        theirs = reader(images=[image], return_tensors="pt")
        theirs = {"pixel_values": theirs} if isinstance(theirs, torch.Tensor) else theirs
        pixels = (media.pixels_NCHW / 255 - mean) / std
        if "image_grid_thw" in theirs:
            # The same patches in another order, each as often as its frames.
            assert int(theirs["image_grid_thw"].prod()) == len(pixels)
            means = theirs["pixel_values"].mean(-1).sort().values
            torch.testing.assert_close(pixels.flatten(1).mean(-1).sort().values, means, atol=1e-5, rtol=1e-5)
            continue
        expected = theirs["pixel_values"].reshape(-1, *pixels.shape[1:])
        torch.testing.assert_close(pixels, expected, atol=1e-5, rtol=1e-5)
