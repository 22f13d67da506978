"""Single rows of a matrix learn, and tokens are added to a model's vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import ConfigError
from sensorium.core.weights import FolderSource
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.model.config import ModelConfig
from sensorium.model.learning import Learn, count_parameters, own_names, set_learning
from sensorium.model.multimodal import MultimodalModel
from sensorium.text.byte_tokenizer import byte_tokenizer
from sensorium.training.optimiser import build_optimiser

BASE = len(byte_tokenizer())
ARCH = {"model_type": "llama", "vocab_size": BASE + 2, "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 1, "num_attention_heads": 2, "tie_word_embeddings": False}  # fmt: skip
EMBEDDING = "lm.model.embed_tokens"
NEW = ("<image>", "<|endofchunk|>")


def text_model(**arch: object) -> MultimodalModel:
    return MultimodalModel(ModelConfig(backbone=CausalLMConfig(arch=ARCH | arch, tokenizer="bytes")))


def learn(rows: tuple[int, ...], **more: float) -> Learn:
    return Learn(part="backbone", module=EMBEDDING, rows=rows, lr=0.1, **more)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("tie", [False, True])
def test_only_the_named_rows_move(tie: bool) -> None:
    model = text_model(tie_word_embeddings=tie)
    groups = set_learning(model, (learn((-2, 5)),))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimiser = build_optimiser(groups, (0.9, 0.98))
    ids_BT = torch.tensor([[5, 6, BASE, BASE + 1]])
    for _ in range(3):
        hidden = model.backbone(model.backbone.embed(ids_BT), positions_BT=torch.arange(4)[None])
        model.logits(hidden).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    moved = {n: p for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert list(moved) == [f"backbone.{EMBEDDING}.weight"]
    (name,) = moved
    changed = (moved[name] != before[name]).any(dim=1).nonzero().flatten().tolist()
    assert changed == [5, BASE]
    assert count_parameters(model)[0][2] == 2 * 16


def test_the_whole_matrix_learns_again_afterwards() -> None:
    model = text_model()
    set_learning(model, (learn((-1,)),))
    set_learning(model, (Learn(part="backbone", module=EMBEDDING, lr=0.1),))
    model.backbone.embed(torch.tensor([[3]])).sum().backward()
    weight = model.get_parameter(f"backbone.{EMBEDDING}.weight")
    assert weight.grad is not None
    assert weight.grad[3].abs().sum() > 0
    assert count_parameters(model)[0][2] == (BASE + 2) * 16


def test_what_has_no_such_rows_is_refused() -> None:
    model = text_model()
    with pytest.raises(ConfigError, match="rows"):
        set_learning(model, (learn((300,)),))
    with pytest.raises(ConfigError, match="rows"):
        set_learning(model, (Learn(part="backbone", module="lm.model.norm", rows=(0,), lr=0.1),))
    with pytest.raises(ConfigError, match="weight decay"):
        set_learning(model, (learn((-1,), weight_decay=0.1),))


def pretrained(folder: Path, rows: int) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig

    values = {k: v for k, v in ARCH.items() if k != "model_type"}
    AutoModelForCausalLM.from_config(LlamaConfig(**values | {"vocab_size": rows})).save_pretrained(folder)
    byte_tokenizer().save(folder)


@pytest.mark.parametrize("rows", [BASE, 300])
def test_added_tokens_get_the_next_rows(rows: int, tmp_path: Path) -> None:
    """Of an embedding as long as the tokenizer, and of one that was padded."""
    pretrained(tmp_path / "lm", rows)
    config = ModelConfig(backbone=CausalLMConfig(
        arch=ARCH, added_tokens=NEW, weights=(FolderSource(path=str(tmp_path / "lm")),)))  # fmt: skip
    model, tokenizer = build_pretrained(config)
    assert [tokenizer.special_id(token) for token in NEW] == [BASE, BASE + 1]
    # As everywhere, text cannot become a control token.
    assert BASE not in tokenizer.encode("<image>")
    stored = MultimodalModel(ModelConfig(backbone=CausalLMConfig(arch=ARCH | {"vocab_size": rows})),
                             {"backbone": tmp_path / "lm"})  # fmt: skip
    for matrix in (EMBEDDING, "lm.lm_head"):
        whole, part = (m.get_parameter(f"backbone.{matrix}.weight") for m in (model, stored))
        assert len(whole) == BASE + 2
        assert torch.equal(whole[:BASE], part[:BASE])
        assert f"backbone.{matrix}.weight" in own_names(model)
    save_model(model, tokenizer, tmp_path / "saved", learnt=set())
    again, words = load_model(tmp_path / "saved")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    assert words.special_id(NEW[1]) == BASE + 1


def test_more_tokens_than_rows_are_refused() -> None:
    config = ModelConfig(backbone=CausalLMConfig(arch=ARCH | {"vocab_size": BASE + 1}, tokenizer="bytes", added_tokens=NEW))
    with pytest.raises(ConfigError, match=f"{BASE + 2} tokens for an embedding of {BASE + 1} rows"):
        build_pretrained(config)
