"""LoRA in all its kinds is peft's: the same logits beside the weights, merged, exported, and brought back;
on the LLM and on an encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from sensorium.cli.main import app
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.interop.adapter_export import export_adapter
from sensorium.interop.adapter_import import import_adapter
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.interop.start import start_from
from sensorium.model.adapter import inject_adapter
from sensorium.model.config import LoraConfig, ModelConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.recipes.tiny import tiny_model

KINDS = {
    "lora": LoraConfig(rank=3, alpha=12.0, targets=("q_proj", "down_proj")),
    "rslora": LoraConfig(rank=4, alpha=4.0, targets=("q_proj", "up_proj"), rslora=True),
    "dora": LoraConfig(rank=3, alpha=6.0, targets=("down_proj", "v_proj"), dora=True),
    "dora_rslora": LoraConfig(rank=4, alpha=3.0, targets=("*",), dora=True, rslora=True),
    "last_layer": LoraConfig(rank=2, alpha=4.0, targets=("layers.[1-].mlp", "layers.0.self_attn.q_proj"), dora=True),
}
IDS = torch.randint(3, 250, (2, 11), generator=torch.Generator().manual_seed(0))


def config_of(lora: LoraConfig | None, eye: LoraConfig | None = None) -> ModelConfig:
    config = tiny_model()
    lane = config.lanes["image"].model_copy(update={"adapter": eye})
    return config.model_copy(update={"adapter": lora, "lanes": {"image": lane}})


def built(config: ModelConfig, *, learnt: bool = True) -> MultimodalModel:
    """A model whose adapters have learnt something."""
    torch.manual_seed(0)
    model = build_pretrained(config)[0].eval()
    inject_adapter(model)
    if learnt:
        stir(model)
    return model


@torch.no_grad()
def stir(model: torch.nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if "lora_magnitude" in name:
            parameter.mul_(torch.rand_like(parameter) + 0.5)
        elif "lora_" in name:
            parameter.normal_(0, 0.2)


@torch.no_grad()
def logits(model: MultimodalModel) -> Tensor:
    backbone: Any = model.backbone
    return model.logits(backbone(backbone.embed(IDS), positions_BT=torch.arange(11).expand(2, 11)))


@torch.no_grad()
def seen(model: MultimodalModel) -> Tensor:
    size = model.config.lanes["image"].encoder.preprocess().size_px
    pixels = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return model.encoders["image"](pixels).values_ND


def saved(model: MultimodalModel, folder: Path) -> Path:
    save_model(model, build_pretrained(model.config)[1], folder, learnt=set())
    return folder


def theirs(model: MultimodalModel) -> LlamaForCausalLM:
    """The same language model in transformers, without an adapter."""
    lm = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in model.config.backbone.arch.items() if k != "model_type"}))
    own = {k.replace(".base_layer.", "."): v for k, v in model.backbone.lm.state_dict().items() if "lora_" not in k}
    lm.load_state_dict(own)
    return lm.eval()


@pytest.mark.parametrize("name", KINDS)
def test_the_same_function_in_every_form(name: str, tmp_path: Path) -> None:
    lora = KINDS[name]
    model = built(config_of(lora))
    expected = logits(model)
    plain = built(config_of(None), learnt=False)
    assert (expected - logits(plain)).abs().max() > 0.05
    # Merged when it is loaded.
    torch.testing.assert_close(logits(load_model(saved(model, tmp_path / "m"))[0]), expected, atol=1e-5, rtol=1e-5)
    # Alone, on transformers' model, by peft.
    export_adapter(tmp_path / "m", tmp_path / "a")
    foreign = peft.PeftModel.from_pretrained(theirs(model), str(tmp_path / "a")).eval()
    assert sum("lora_A" in n for n, _ in foreign.named_parameters()) == sum("lora_A" in n for n, _ in model.named_parameters())
    with torch.no_grad():
        torch.testing.assert_close(foreign(IDS).logits, expected, atol=1e-5, rtol=1e-5)
    # And back, bit for bit.
    saved(plain, tmp_path / "plain")
    back = import_adapter(tmp_path / "a", tmp_path / "plain", tmp_path / "back")
    assert isinstance(back.adapter, LoraConfig)
    assert back.adapter.model_copy(update={"targets": lora.targets}) == lora
    again = built(back, learnt=False)
    assert start_from(again, tmp_path / "back").new == []
    assert torch.equal(logits(again), expected)


@pytest.mark.parametrize("name", KINDS)
def test_what_peft_saved_comes_in(name: str, tmp_path: Path) -> None:
    lora = KINDS[name]
    plain = built(config_of(None), learnt=False)
    saved(plain, tmp_path / "plain")
    targets = list(lora.targets) if "*" not in lora.targets else "all-linear"
    if name == "last_layer":
        targets = r".*layers\.1\.mlp\..*_proj|.*layers\.0\.self_attn\.q_proj"
    config = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, use_dora=lora.dora,  # pyright: ignore
                             use_rslora=lora.rslora, task_type="CAUSAL_LM")  # fmt: skip
    foreign = peft.get_peft_model(theirs(plain), config).eval()
    stir(foreign)
    foreign.save_pretrained(str(tmp_path / "a"))
    result = CliRunner().invoke(
        app, ["import", str(tmp_path / "a"), str(tmp_path / "m"), "--onto", str(tmp_path / "plain"), "--json"])  # fmt: skip
    assert result.exit_code == 0, result.exception
    assert json.loads(result.output)["adapters"] == ["backbone"]
    with torch.no_grad():
        expected = foreign(IDS).logits
    torch.testing.assert_close(logits(load_model(tmp_path / "m")[0]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_before_it_learns_nothing_changes(name: str, tmp_path: Path) -> None:
    plain, model = built(config_of(None), learnt=False), built(config_of(KINDS[name]), learnt=False)
    torch.testing.assert_close(logits(model), logits(plain), atol=1e-6, rtol=1e-6)
    # Also where the weights become others after the adapter was put beside them.
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    saved(plain, tmp_path / "m")
    start_from(model, tmp_path / "m")
    torch.testing.assert_close(logits(model), logits(plain), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dora", [False, True])
def test_on_an_encoder_too(dora: bool, tmp_path: Path) -> None:
    eye = LoraConfig(rank=2, alpha=6.0, targets=("fc1", "o_proj", "q_proj"), dora=dora)
    model = built(config_of(KINDS["dora"], eye))
    plain = built(config_of(None), learnt=False)
    assert (seen(model) - seen(plain)).abs().max() > 0.05
    loaded = load_model(saved(model, tmp_path / "m"))[0]
    torch.testing.assert_close(seen(loaded), seen(model), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-5, rtol=1e-5)
    export_adapter(tmp_path / "m", tmp_path / "a")
    saved(plain, tmp_path / "plain")
    back = import_adapter(tmp_path / "a", tmp_path / "plain", tmp_path / "back")
    assert back.low_rank == model.config.low_rank
    again = built(back, learnt=False)
    assert start_from(again, tmp_path / "back").new == []
    assert torch.equal(seen(again), seen(model))


def test_an_encoders_adapter_is_pefts(tmp_path: Path) -> None:
    config = config_of(None).override(["lanes.image.encoder={kind: clip, width: 32, layers: 2, heads: 4, mlp_width: 48, image_size_px: 28, patch_size_px: 14}"])
    lane = config.lanes["image"].model_copy(update={"adapter": LoraConfig(rank=2, targets=("v_proj", "fc2"), dora=True)})
    model = built(config.model_copy(update={"lanes": {"image": lane}}))
    export_adapter(saved(model, tmp_path / "m"), tmp_path / "a")
    tower: Any = model.encoders["image"].tower
    own = {k.replace(".base_layer.", "."): v for k, v in tower.state_dict().items() if "lora_" not in k}
    base = CLIPVisionModel(CLIPVisionConfig(**tower.config.to_dict())).eval()
    base.load_state_dict(own)
    pixels = torch.randn(2, 3, 28, 28)
    foreign: Any = peft.PeftModel.from_pretrained(base, str(tmp_path / "a" / "encoders.image")).eval()
    with torch.no_grad():
        expected = tower(pixels).last_hidden_state
        torch.testing.assert_close(foreign(pixel_values=pixels).last_hidden_state, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(foreign.get_base_model()(pixels).last_hidden_state, theirs_without(foreign, pixels), atol=1e-3)


@torch.no_grad()
def theirs_without(foreign: Any, pixels: Tensor) -> Tensor:
    with foreign.disable_adapter():
        return foreign(pixel_values=pixels).last_hidden_state


def test_targets_that_mean_nothing_are_named() -> None:
    with pytest.raises(ConfigError, match=r"no linear layer fits 'q_prj'.*did you mean 'q_proj'"):
        built(config_of(LoraConfig(targets=("q_prj", "v_proj"))))
    with pytest.raises(ConfigError, match="numbers go from 0 to 1"):
        built(config_of(LoraConfig(targets=("layers.[4-9].q_proj",))))
    with pytest.raises(ConfigError, match="lm_head, whose matrix is the embedding's too"):
        built(config_of(LoraConfig(targets=("lm_head",))))


def test_adapters_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = built(config_of(KINDS["dora"]))
    export_adapter(saved(model, tmp_path / "m"), tmp_path / "a")
    with pytest.raises(ConfigError, match="has an adapter already"):
        import_adapter(tmp_path / "a", tmp_path / "m", tmp_path / "x")
    small = config_of(None).override(["backbone.arch.num_hidden_layers=1"])
    saved(built(small, learnt=False), tmp_path / "small")
    with pytest.raises(WeightsError, match=r"the model has no layer backbone.lm.model.layers.1"):
        import_adapter(tmp_path / "a", tmp_path / "small", tmp_path / "x")
    file = tmp_path / "a" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_dora": False}))
    with pytest.raises(WeightsError, match="lora_magnitude_vector"):
        import_adapter(tmp_path / "a", tmp_path / "small", tmp_path / "x")
    assert not (tmp_path / "x").exists()
