"""Weights that are missing are an error that says what brings them; random ones stay for what is tiny, learns, or is filled in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sensorium.cli.training import _run_training
from sensorium.core.errors import WeightsError
from sensorium.core.weights import FileSource, FolderSource
from sensorium.generators import GENERATORS, PICTURE_TOKENIZERS
from sensorium.generators.sam import SamConfig
from sensorium.interop.assemble import build_pretrained
from sensorium.model.config import ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.recipes import RECIPES, TINY_FORMS

HUBS = {"chameleon_vq": "facebook/chameleon-7b", "emu3_vq": "BAAI/Emu3-Chat-hf", "janus_vq": "deepseek-community/Janus-Pro-1B",
        "seed": "AILab-CVC/seed-tokenizer-2"}  # fmt: skip
BRINGS = {
    "sam": "hf download facebook/sam-vit-huge --include 'model*' --local-dir {}",
    "cutter": "sensorium train nano-points makes one: copy generators/mask of its model to {}",
    "drawer": "sensorium train nano-draws makes one: copy generators/image of its model to {}",
    "vq": "sensorium tokenizer train --out {} makes one",
    "seed": "hf download AILab-CVC/seed-tokenizer-2 seed_quantizer.pt --local-dir {}, and name {{kind: file, format: seed",
    **{kind: f"hf download {HUBS[kind]} --include 'model*' --local-dir {{}}" for kind in ("chameleon_vq", "emu3_vq", "janus_vq")},
}


def tiny(kind: str) -> Any:
    return (GENERATORS if kind in GENERATORS else PICTURE_TOKENIZERS).find(kind).tiny()


@pytest.mark.parametrize("kind", HUBS)
def test_a_published_tokenizer_is_not_built_of_random_weights(kind: str) -> None:
    config = PICTURE_TOKENIZERS.find(kind)()
    with pytest.raises(WeightsError, match=rf"picture tokenizer {kind}: no folder, .* such as {HUBS[kind]}: hf download {HUBS[kind]} "):
        config.build()
    assert tiny(kind).published_as is None
    tiny(kind).build()


@pytest.mark.parametrize(("size", "hub"), [({}, "huge"), ({"width": 1024, "layers": 24}, "large"), ({"width": 768, "layers": 12}, "base")])
def test_a_published_sam_is_not_built_of_random_weights(size: dict[str, int], hub: str) -> None:
    config = SamConfig.from_dict({"kind": "sam", **size})
    with pytest.raises(WeightsError, match=rf"generator sam: no folder, .* hf download facebook/sam-vit-{hub} "):
        config.build()
    with torch.device("meta"):
        assert config.blank().config == config
    SamConfig.tiny().build()


@pytest.mark.parametrize("kind", BRINGS)
def test_a_missing_folder_or_file_is_named_with_what_brings_it(kind: str, tmp_path: Path) -> None:
    for there in (False, True):
        folder = tmp_path / "weights"
        found = "no such folder"
        if there:
            folder.mkdir()
            (folder / "pytorch_model.bin").write_bytes(b"")
            found = "no model.safetensors and no index of shards, only pytorch_model.bin, which is not read"
        with pytest.raises(WeightsError) as error:
            tiny(kind).build(folder)
        assert error.value.found == found
        assert error.value.where == str(folder)
        assert BRINGS[kind].format(folder) in str(error.value.fix)


def test_sam_is_read_of_the_file_that_is_fetched(tmp_path: Path) -> None:
    config = SamConfig.tiny()
    config.build().save(tmp_path)
    for file in tmp_path.iterdir():
        if not file.match("model*"):
            file.unlink()
    config.build(tmp_path)


@pytest.mark.parametrize(("source", "said"), [
    (FolderSource(path="weights/sam"), r"generators\.mask: .*no such folder.*hf download facebook/sam-vit-huge --include 'model\*' --local-dir weights/sam"),
    (FileSource(path="weights/sam_h.pth", format="sam"), r"no such file.*curl -L -o weights/sam_h\.pth https://\S*sam_vit_h_4b8939\.pth"),
])  # fmt: skip
def test_a_hand_without_its_weights_says_what_to_fetch(source: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model: ModelConfig = TINY_FORMS.find("llava-1.5")().model
    hand = HandConfig(generator=SamConfig(weights=(source,)))
    network, _ = build_pretrained(model.model_copy(update={"hands": {"mask": hand}, "boxes": "minigpt_v2"}))
    with pytest.raises(WeightsError, match=said):
        _ = network.generators["mask"]


@pytest.mark.parametrize("kind", [kind for kind in (*GENERATORS, *PICTURE_TOKENIZERS) if kind not in ("espeak", "retrieval_index")])
def test_weights_that_are_nowhere_say_what_brings_them(kind: str) -> None:
    """Of one file after another: test_every_component.py. eSpeak has no weights, and an index is made of one's own pictures."""
    said = str(tiny(kind).fetch("weights/it"))
    assert "weights/it" in said
    assert "hf download " in said or "sensorium " in said


def test_a_tokenizers_file_that_is_missing_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model: ModelConfig = TINY_FORMS.find("seed-llama")().model
    words = model.picture_words
    assert words is not None
    source = FileSource(path="weights/seed_quantizer.pt", format="seed")
    lost = words.model_copy(update={"tokenizer": words.tokenizer.model_copy(update={"weights": (source,)})})
    with pytest.raises(WeightsError, match=r"picture_tokenizer: .*hf download AILab-CVC/seed-tokenizer-2 seed_quantizer\.pt --local-dir weights"):
        build_pretrained(model.model_copy(update={"picture_words": lost}))


def test_a_recipe_is_not_trained_on_codes_of_random_weights(tmp_path: Path) -> None:
    recipe = RECIPES.find("janus")()
    words = recipe.model.picture_words
    assert words is not None
    bare = words.model_copy(update={"tokenizer": words.tokenizer.model_copy(update={"weights": ()})})
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"picture_words": bare})})
    with pytest.raises(WeightsError, match=r"codes of random weights.*deepseek-community/Janus-Pro-1B"):
        _run_training(recipe, tmp_path / "run", None, resume=False, tensorboard=False, plan_only=True, quiet=True)
    assert not (tmp_path / "run").exists()


def test_every_recipe_with_a_published_tokenizer_names_its_weights() -> None:
    told = {name: words.tokenizer for name in RECIPES if (words := RECIPES.find(name)().model.picture_words) is not None}
    assert {"emu3", "chameleon", "janus", "janus-pro", "seed-llama"} <= set(told)
    assert [name for name, tokenizer in told.items() if tokenizer.published_as and not tokenizer.weights] == []
