"""Of every generator and picture tokenizer that reads a folder, each file and folder in it is taken away in turn: the error names it, where
it should lie, and what brings it, in one line; or what is read is the same without it."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sensorium.core.errors import SensoriumError, WeightsError
from sensorium.generators import GENERATORS, PICTURE_TOKENIZERS
from sensorium.generators import piper as piper_module
from sensorium.generators.retrieval_index import RetrievalIndex
from sensorium.generators.small_diffusion import SmallDiffusionConfig

NEEDS = {"speecht5": "sentencepiece", "sam": "transformers", "vits": "transformers", "cutter": "torch", "drawer": "torch"}
FOLDERLESS = {"espeak", "retrieval_index", "piper"}
"""No weights at all; and two that are not saved by their tiny form, which have tests of their own below."""
KINDS = [pytest.param(kind, marks=pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed"))
         for kind in [*GENERATORS, *PICTURE_TOKENIZERS] if kind not in FOLDERLESS
         for package in [NEEDS.get(kind, "diffusers" if kind in GENERATORS else "torch")]]  # fmt: skip
SAME = {
    "sam": {"config.json"}, "drawer": {"config.json", "tokenizer/config.json"}, "vits": {"generation_config.json"},
    "speecht5": {"generation_config.json"}, "audioldm2": {"language_model/generation_config.json"},
}  # fmt: skip
"""Files that nothing is read of: sizes stand in our config, and these models write no text here."""
MADE_HERE = {"cutter": "sensorium train nano-points", "small_diffusion": "sensorium train nano-diffuses", "drawer": "sensorium train nano-draws",
             "vq": "sensorium tokenizer train"}  # fmt: skip
FETCHED = {
    "sam": "facebook/sam-vit-huge", "stable_diffusion": "stabilityai/stable-diffusion-2-1", "instruct_pix2pix": "timbrooks/instruct-pix2pix",
    "unclip": "stabilityai/stable-diffusion-2-1-unclip", "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "text_to_video": "cerspense/zeroscope_v2_576w", "audioldm": "cvssp/audioldm-l-full", "audioldm2": "cvssp/audioldm2",
    "text_route": "stabilityai/stable-diffusion-2-1", "vits": "facebook/mms-tts-eng", "speecht5": "microsoft/speecht5_tts",
    "chameleon_vq": "facebook/chameleon-7b", "emu3_vq": "BAAI/Emu3-Chat-hf", "seed": "AILab-CVC/seed-tokenizer-2",
    "janus_vq": "deepseek-community/Janus-Pro-1B",
}  # fmt: skip


def tiny(kind: str) -> Any:
    return (GENERATORS if kind in GENERATORS else PICTURE_TOKENIZERS).find(kind).tiny()


def save(kind: str, folder: Path) -> None:
    """A tiny one in its published layout."""
    torch.manual_seed(0)
    made = tiny(kind).build()
    made = made.generator if kind == "text_route" else made
    if kind in ("vits", "speecht5"):
        made.model.save_pretrained(folder)
        made.tokenizer.save_pretrained(folder)
        if kind == "speecht5":
            made.vocoder.save_pretrained(folder / "vocoder")
            np.save(folder / "speaker.npy", made.voice_V.numpy())
    elif hasattr(made, "pipe"):
        made.pipe.save_pretrained(folder)
    elif hasattr(made, "save"):
        made.save(folder)
    else:
        folder.mkdir()
        module = getattr(made, "model", made)
        save_file({name: value.contiguous().clone() for name, value in module.state_dict().items()}, folder / "model.safetensors")


def refused(build: Callable[[Path], Any], folder: Path, lost: str, brings: str) -> None:
    """One line, which names what is lost, the folder, and what brings it."""
    with pytest.raises(SensoriumError) as error:
        build(folder)
    said = str(error.value)
    assert "\n" not in said, said
    assert str(folder) in str(error.value.where), said
    assert lost in error.value.found, said
    assert brings in str(error.value.fix), said


@pytest.mark.parametrize("kind", KINDS)
def test_each_thing_in_turn(kind: str, tmp_path: Path) -> None:
    whole, build = tmp_path / "whole", tiny(kind).build
    save(kind, whole)
    build(whole)
    brings = MADE_HERE.get(kind) or f"hf download {FETCHED[kind]}"
    refused(build, tmp_path / "nowhere", "no such folder", brings)
    (tmp_path / "empty").mkdir()
    refused(build, tmp_path / "empty", "no ", brings)
    tried = 0
    for path in sorted(whole.rglob("*")):
        name = str(path.relative_to(whole))
        copy = Path(shutil.copytree(whole, tmp_path / "copy"))
        (shutil.rmtree if path.is_dir() else Path.unlink)(copy / name)
        if name in SAME.get(kind, ()):
            build(copy)
        else:
            first, _, last = name.rpartition("/")
            # A folder in which nothing is left is named itself; weights are named by their format, which has several files' names.
            lone = bool(first) and not any((copy / first).iterdir())
            lost = Path(first or last).name if lone else "safetensors" if last.endswith("safetensors") else last
            refused(build, copy, lost, "microsoft/speecht5_hifigan" if name.startswith("vocoder") and kind == "speecht5" else
                    "speaker.npy" if last == "speaker.npy" else brings)  # fmt: skip
            tried += 1
        shutil.rmtree(copy)
    assert tried


@pytest.mark.parametrize("kind", ["cutter", "drawer", "vq", "seed", "janus_vq", "chameleon_vq", "emu3_vq"])
def test_a_tensor_that_is_lacking_is_named_in_one_line(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    save(kind, folder)
    file = folder / ("painter.safetensors" if kind == "drawer" else "model.safetensors")
    tensors = load_file(file)
    name = sorted(tensors)[0]
    shape = tuple(tensors.pop(name).shape)
    save_file(tensors, file)
    brings = MADE_HERE.get(kind) or f"hf download {FETCHED[kind]}"
    refused(tiny(kind).build, folder, f"1 lacking ({name})", brings)
    save_file(tensors | {name: torch.zeros(*shape, 2), "stranger": torch.zeros(1)}, file)
    refused(tiny(kind).build, folder, f"1 left over (stranger); 1 of another shape ({name} is {(*shape, 2)} in place of {shape})", brings)


def test_a_damaged_file_of_a_pipeline_is_told_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra `gen`)")
    save("stable_diffusion", tmp_path / "sd")
    (tmp_path / "sd/unet/diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    refused(tiny("stable_diffusion").build, tmp_path / "sd", "cannot load the pipeline", "hf download stabilityai/stable-diffusion-2-1")


def test_words_in_several_files_are_a_tokenizer_too(tmp_path: Path) -> None:
    """Stable Diffusion 1.5 as it is published has no tokenizer.json, but a vocabulary and merges."""
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra `gen`)")
    save("stable_diffusion", tmp_path / "sd")
    folder, build = tmp_path / "sd/tokenizer", tiny("stable_diffusion").build
    told = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(told["vocab"]), encoding="utf-8")
    refused(build, tmp_path / "sd", "tokenizer/ has no merges.txt", "--include 'tokenizer/*'")
    merges = [one if isinstance(one, str) else " ".join(one) for one in told["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    assert len(build(tmp_path / "sd").pipe.tokenizer) == len(told["vocab"])


def test_what_is_published_nowhere_says_what_makes_it_without_a_folder() -> None:
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra `gen`)")
    with pytest.raises(WeightsError, match=r"none is published; sensorium train nano-diffuses makes one.*or set scale: tiny"):
        SmallDiffusionConfig(scale="published").build()


def test_a_voice_of_pipers_in_turn(tmp_path: Path) -> None:
    build = GENERATORS.find("piper").tiny().build
    brings = "hf download rhasspy/piper-voices --include 'en/en_US/joe/medium/*'"
    refused(build, tmp_path / "nowhere", "no such folder", brings)
    refused(build, tmp_path, "no voice", brings)
    assert brings in str(GENERATORS.find("piper").tiny().fetch("weights/joe"))
    (tmp_path / "joe.onnx").write_bytes(b"")
    refused(build, tmp_path, "no joe.onnx.json", brings)
    (tmp_path / "joe.onnx.json").write_text("{}", encoding="utf-8")
    assert piper_module._files(tmp_path) == (tmp_path / "joe.onnx", tmp_path / "joe.onnx.json")
    (tmp_path / "amy.onnx").write_bytes(b"")
    refused(build, tmp_path, "2 voices (amy.onnx, joe.onnx)", "leave one")


def test_an_index_in_turn(tmp_path: Path) -> None:
    config = GENERATORS.find("retrieval_index").tiny()
    (tmp_path / "a.png").write_bytes(b"")
    RetrievalIndex.build(["a.png"], np.ones((1, config.width), np.float32), tmp_path).save(tmp_path / "whole")
    build = partial(type(config).build, config)
    build(tmp_path / "whole")
    for file in sorted((tmp_path / "whole").iterdir()):
        copy = Path(shutil.copytree(tmp_path / "whole", tmp_path / "copy"))
        (copy / file.name).unlink()
        with pytest.raises(SensoriumError, match="sensorium index build MODEL PICTURES") as error:
            build(copy)
        assert error.value.where == str(copy / file.name)
        shutil.rmtree(copy)
    with pytest.raises(SensoriumError, match="sensorium index build MODEL PICTURES"):
        build(None)
