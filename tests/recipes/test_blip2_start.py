"""Do recipes that go on from BLIP-2 take its tower and Q-Former from a checkpoint of transformers?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from sensorium.cli.main import app
from sensorium.core.errors import WeightsError
from sensorium.core.weights import FolderSource
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.start import start_from
from sensorium.interop.text_half import fill_from_bert
from sensorium.model.multimodal import MultimodalModel
from sensorium.recipes import TINY_FORMS
from sensorium.text.byte_tokenizer import byte_tokenizer
from sensorium.training.config import Recipe

# The sizes of the recipes' tiny forms.
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
          "num_attention_heads": 4, "image_size": 32, "patch_size": 8}  # fmt: skip
QFORMER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
           "intermediate_size": 48, "encoder_hidden_size": 32}  # fmt: skip
OPT = {"model_type": "opt", "vocab_size": 512, "ffn_dim": 96, "num_hidden_layers": 2,
       "num_attention_heads": 4, "max_position_embeddings": 2048}  # fmt: skip


def imported(folder: Path, llm_width: int) -> tuple[Path, Any]:
    """A random BLIP-2 around an OPT, saved by transformers and imported from the command line."""
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    config = Blip2Config(
        vision_config=VISION, qformer_config=QFORMER, num_query_tokens=4,
        text_config={**OPT, "hidden_size": llm_width, "word_embed_proj_dim": llm_width},
    )  # fmt: skip
    theirs = Blip2ForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.1)
    theirs.save_pretrained(folder / "hf")
    byte_tokenizer().save(folder / "hf")
    done = CliRunner().invoke(app, ["import", str(folder / "hf"), str(folder / "ours")])
    assert done.exit_code == 0, done.output
    return folder / "ours", theirs


CASES = {
    "blip2-opt, the same LLM": ("blip2-opt", 48, []),
    "minigpt4, an LLM of the same width": ("minigpt4", 48, ["backbone"]),
    "minigpt4, an LLM of another width": ("minigpt4", 40, ["backbone", "projectors.image.out"]),
    "instructblip, whose Q-Former reads": ("instructblip", 48, ["backbone", "projectors.image.text"]),
}


def is_text(key: str) -> bool:
    """Whether a tensor is of a Q-Former's text half."""
    return key.startswith("projectors.image.") and any(part in key.split(".") for part in ("words", "places", "text"))


@pytest.mark.parametrize("case", CASES)
def test_tower_and_qformer_are_taken_and_a_different_llm_is_not(case: str, tmp_path: Path) -> None:
    name, llm_width, new = CASES[case]
    folder, theirs = imported(tmp_path, llm_width)
    recipe: Recipe = TINY_FORMS.find(name)()
    model, _ = build_pretrained(recipe.model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert start_from(model, folder).new == new
    after = model.state_dict()
    for key, value in theirs.vision_model.state_dict().items():
        assert torch.equal(after[f"encoders.image.tower.{key}"], value), key
    assert torch.equal(after["projectors.image.queries_QD"], theirs.query_tokens[0])
    last = theirs.qformer.encoder.layer[1].output_query.dense.weight
    assert torch.equal(after["projectors.image.layers.1.down.weight"], last)
    fits = llm_width == recipe.model.backbone.d_model
    mapped = torch.equal(after["projectors.image.out.weight"], theirs.language_projection.weight)
    assert mapped == fits
    for key in after:
        text = "projectors.image.text" in new and is_text(key)
        if text or key.startswith(tuple(f"{part}." for part in new)):
            assert torch.equal(after[key], before[key]), f"{key} was to stay new"


@pytest.mark.parametrize("old", [False, True])
def test_the_text_half_begins_as_the_readers_bert(old: bool, tmp_path: Path) -> None:
    """As LAVIS begins a Q-Former: words, positions and their feed-forward layers; a word that BERT lacks is drawn."""
    from transformers import BertConfig, BertForMaskedLM

    folder, theirs = imported(tmp_path, 48)
    recipe: Recipe = TINY_FORMS.find("instructblip")()
    former: Any = recipe.model.lanes["image"].projector
    bert: Any = BertForMaskedLM(BertConfig(
        vocab_size=former.words - 1, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=former.max_words,
    ))  # fmt: skip
    state = {k: v.clone() for k, v in bert.state_dict().items() if k.startswith("bert.")}
    if old:
        state = {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
                 for k, v in state.items()}  # fmt: skip
    (tmp_path / "bert").mkdir()
    save_file(state, tmp_path / "bert" / "model.safetensors")
    byte_tokenizer().save(tmp_path / "bert")
    reader = {"reader": (FolderSource(path=str(tmp_path / "bert")),)}
    lane = recipe.model.lanes["image"].model_copy(update={"projector": former.model_copy(update=reader)})
    model = MultimodalModel(recipe.model.model_copy(update={"lanes": {"image": lane}}))
    drawn = model.state_dict()["projectors.image.words.weight"][-1].clone()
    started = start_from(model, folder)
    assert started.new == ["backbone"]
    after, layer = model.state_dict(), bert.bert.encoder.layer[1]
    assert {k for k in after if is_text(k)} <= started.names
    words = after["projectors.image.words.weight"]
    assert torch.equal(words[:-1], bert.bert.embeddings.word_embeddings.weight)
    assert torch.equal(words[-1], drawn)
    assert torch.equal(after["projectors.image.places.weight"], bert.bert.embeddings.position_embeddings.weight)
    assert torch.equal(after["projectors.image.layers.1.text.up.weight"], layer.intermediate.dense.weight)
    assert torch.equal(after["projectors.image.layers.1.text.norm.weight"], layer.output.LayerNorm.weight)
    assert torch.equal(after["projectors.image.queries_QD"], theirs.query_tokens[0])


def test_a_bert_of_another_width_is_refused(tmp_path: Path) -> None:
    recipe: Recipe = TINY_FORMS.find("instructblip")()
    model = MultimodalModel(recipe.model)
    (tmp_path / "bert").mkdir()
    save_file({"bert.embeddings.word_embeddings.weight": torch.zeros(9, 7)}, tmp_path / "bert" / "model.safetensors")
    with pytest.raises(WeightsError, match=r"embeddings\.word_embeddings\.weight has shape \(9, 7\)"):
        fill_from_bert(model.state_dict(), "projectors.image", tmp_path / "bert")
