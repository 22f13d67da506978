"""`merge` and `unmerge`: the same answers with the adapters inside, and the way back bit for bit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from sensorium.cli.main import app
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.core.weights import FolderSource
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.merged import merge, unmerge
from sensorium.interop.saved import load_model, read_model_config, save_model
from sensorium.model.adapter import inject_adapter
from sensorium.model.config import AdaptionPromptConfig, BiasNormConfig, LoraConfig, ModelConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.recipes.tiny import tiny_model

IDS = torch.randint(3, 250, (2, 11), generator=torch.Generator().manual_seed(0))
KINDS = {"lora": LoraConfig(rank=3, alpha=6.0), "dora": LoraConfig(rank=3, alpha=4.0, dora=True, rslora=True)}


def config_of(lora: Any, eye: LoraConfig | None = None, **backbone: Any) -> ModelConfig:
    config = tiny_model()
    lane = config.lanes["image"].model_copy(update={"adapter": eye})
    return config.model_copy(
        update={"adapter": lora, "lanes": {"image": lane}, "backbone": config.backbone.model_copy(update=backbone)}
    )


def adapted(config: ModelConfig, folder: Path) -> MultimodalModel:
    """A model with trained adapters beside its weights, saved."""
    torch.manual_seed(0)
    model, tokenizer = build_pretrained(config)
    inject_adapter(model)
    with torch.no_grad():
        for name, parameter in model.eval().named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    save_model(model, tokenizer, folder, learnt=set())
    return model


@torch.no_grad()
def outputs(model: MultimodalModel) -> tuple[Tensor, Tensor]:
    """Logits of text, and what the encoder sees."""
    backbone: Any = model.backbone
    logits = model.logits(backbone(backbone.embed(IDS), positions_BT=torch.arange(11).expand(2, 11)))
    size = model.config.lanes["image"].encoder.preprocess().size_px
    pixels = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return logits, model.encoders["image"](pixels).values_ND


def run(*words: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert result.exit_code == 0, result.exception
    return json.loads(result.output)


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back(kind: str, tmp_path: Path) -> None:
    eye = LoraConfig(rank=2, targets=("fc1", "v_proj"), dora=kind == "dora")
    model = adapted(config_of(KINDS[kind], eye), tmp_path / "m")
    said = run("merge", tmp_path / "m", tmp_path / "merged")
    assert said["layers"] == sum("lora_A" in n for n, _ in model.named_parameters())
    config = read_model_config(tmp_path / "merged")
    assert not config.low_rank
    assert not any("lora_" in n for n in load_file(tmp_path / "merged" / "model.safetensors"))
    merged = outputs(load_model(tmp_path / "merged")[0])
    for mine, beside in zip(merged, outputs(model), strict=True):
        torch.testing.assert_close(mine, beside, atol=1e-5, rtol=1e-5)
    # Back: config and tensors are those that were merged.
    run("unmerge", tmp_path / "merged", tmp_path / "back")
    one, two = load_file(tmp_path / "m" / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    assert set(one) == set(two)
    assert all(torch.equal(one[n], two[n]) for n in one)
    assert read_model_config(tmp_path / "back") == model.config
    # Without the adapters: the weights that they stood beside.
    run("unmerge", tmp_path / "merged", tmp_path / "base", "--base")
    torch.manual_seed(0)
    plain = build_pretrained(config)[0]
    assert not torch.allclose(outputs(plain)[0], merged[0], atol=1e-2)
    for mine, before in zip(outputs(load_model(tmp_path / "base")[0]), outputs(plain), strict=True):
        assert torch.equal(mine, before)


def test_weights_with_a_source_are_kept_by_their_source(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tiny_model().backbone.build().lm.save_pretrained(tmp_path / "lm")
    config = config_of(KINDS["lora"], weights=(FolderSource(path=str(tmp_path / "lm")),))
    model = adapted(config, tmp_path / "m")
    merge(tmp_path / "m", tmp_path / "merged")
    kept = load_file(tmp_path / "merged" / "unmerge.safetensors")
    assert kept
    assert all("lora_" in name for name in kept)
    torch.testing.assert_close(outputs(load_model(tmp_path / "merged")[0])[0], outputs(model)[0], atol=1e-5, rtol=1e-5)
    unmerge(tmp_path / "merged", tmp_path / "base", base=True)
    names = set(load_file(tmp_path / "base" / "model.safetensors"))
    assert not any(name.startswith("backbone.") for name in names)
    lm = load_file(tmp_path / "lm" / "model.safetensors")
    mine = load_model(tmp_path / "base")[0].backbone.lm.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in lm.items())


def test_what_is_forgotten_cannot_come_back(tmp_path: Path) -> None:
    adapted(config_of(KINDS["lora"]), tmp_path / "m")
    run("merge", tmp_path / "m", tmp_path / "merged", "--forget")
    with pytest.raises(ConfigError, match="does not keep what it was"):
        unmerge(tmp_path / "merged", tmp_path / "back")
    with pytest.raises(ConfigError, match="no adapter, which cannot be merged"):
        merge(tmp_path / "merged", tmp_path / "again")
    assert not (tmp_path / "back").exists()
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("adapter", "why"),
    [(AdaptionPromptConfig(layers=1, length=3), "vectors that layers attend to"), (BiasNormConfig(), "the LLM's own already")],
)
def test_what_cannot_be_merged_says_why(adapter: Any, why: str, tmp_path: Path) -> None:
    model, tokenizer = build_pretrained(config_of(adapter))
    save_model(model, tokenizer, tmp_path / "m", learnt=set())
    with pytest.raises(ConfigError, match=why):
        merge(tmp_path / "m", tmp_path / "merged")


def test_nothing_is_half_written_and_nothing_of_another_model_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted(config_of(KINDS["lora"]), tmp_path / "m")
    merge(tmp_path / "m", tmp_path / "merged")
    before = digests(tmp_path / "merged")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("sensorium.interop.merged.copy_side_files", full)
        for go in (lambda: merge(tmp_path / "m", tmp_path / "merged"), lambda: unmerge(tmp_path / "merged", tmp_path / "x")):
            with pytest.raises(OSError, match="No space"):
                go()
    assert digests(tmp_path / "merged") == before
    assert {p.name for p in tmp_path.iterdir()} == {"m", "merged"}
    tensors = load_file(tmp_path / "merged" / "model.safetensors")
    save_file({n: v for n, v in tensors.items() if "q_proj" not in n}, tmp_path / "merged" / "model.safetensors")
    with pytest.raises(WeightsError, match="of another model"):
        unmerge(tmp_path / "merged", tmp_path / "x")
