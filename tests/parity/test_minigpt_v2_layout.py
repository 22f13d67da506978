"""MiniGPT-v2's own checkpoint: names map completely both ways, tensors return bit for bit, and what is imported is the
tower at 448 pixels, groups of four, and Llama with its low-rank products."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from original_layouts import TEXT, VISION_16, lavis
from test_hf_families import normalised
from test_original_export import assert_same, half, there_and_back
from test_originals import blip2_oracle, llm_of
from torch import Tensor
from torch.nn import functional as F

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.batch import MediaBatch, TilePlan
from sensorium.core.errors import WeightsError
from sensorium.interop.original import import_original, read_original
from sensorium.interop.originals import ORIGINALS
from sensorium.interop.originals.base import Beside, Found
from sensorium.interop.originals.minigpt_v2 import MiniGptV2
from sensorium.interop.saved import load_model
from sensorium.model.config import LoraConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.recipes import RECIPES

RANK = 4


def minigpt_v2(layers: int, width: int, columns: int, rank: int, default: str = "") -> dict[str, Tensor]:
    """What runners/runner_base.py saves: what learns, and buffers; low-rank names as peft 0.2 has them
    (later versions, with `.default`)."""
    made = {"llama_proj.weight": torch.randn(width, columns) * 0.1, "llama_proj.bias": torch.randn(width)}
    for i in range(layers):
        at = f"llama_model.base_model.model.model.layers.{i}.self_attn."
        made[f"{at}rotary_emb.inv_freq"] = torch.ones(4)
        for name, rows in (("q_proj", width), ("v_proj", width)):
            made[f"{at}{name}.lora_A{default}.weight"] = torch.randn(rank, width)
            made[f"{at}{name}.lora_B{default}.weight"] = torch.randn(rows, rank)
    return made


def eva(theirs: Any) -> dict[str, Tensor]:
    """EVA-CLIP-g's file, which goes on behind what is run, and has no `ln_vision`."""
    eye = {k.removeprefix("visual_encoder."): v for k, v in lavis(theirs, "llama_proj").items() if k.startswith("visual_encoder.")}
    return eye | {"blocks.39.norm1.weight": torch.ones(32), "norm.weight": torch.ones(32)}


@pytest.fixture
def theirs() -> Any:
    torch.manual_seed(2)
    return blip2_oracle(TEXT | {"num_key_value_heads": 4})


@pytest.fixture
def beside(theirs: Any, tmp_path: Path) -> Beside:
    torch.save(eva(theirs), tmp_path / "eva_vit_g.pth")
    return Beside(llm=llm_of(theirs, tmp_path / "llama2"), tower=tmp_path / "eva_vit_g.pth")


def saved(folder: Path, tensors: dict[str, Tensor], **model: Any) -> Path:
    """With all that lies beside the tensors."""
    config = {"model": {"arch": "minigpt_v2", "lora_r": RANK} | model, "run": {"task": "image_text_pretrain"}}
    content = {"model": tensors, "optimizer": {"state": {}}, "config": config, "scaler": None, "epoch": 9}
    torch.save(content, folder / "minigptv2_checkpoint.pth")
    return folder / "minigptv2_checkpoint.pth"


@pytest.mark.parametrize("default", ["", ".default"])
def test_there_and_back(default: str, beside: Beside, tmp_path: Path) -> None:
    tensors = half(minigpt_v2(2, 32, 128, RANK, default))
    names = there_and_back(saved(tmp_path, tensors, lora_alpha=8), beside, tmp_path)
    # The config says alpha, which safetensors have no place for.
    assert names == ["config.json", "minigptv2_checkpoint.safetensors"]
    assert_same(tmp_path / "back" / "minigptv2_checkpoint.safetensors", tensors)


@pytest.mark.parametrize(("said", "alpha"), [({}, 16.0), ({"lora_alpha": 8}, 8.0)])
@torch.no_grad()
def test_what_it_means(said: dict[str, Any], alpha: float, theirs: Any, beside: Beside, tmp_path: Path) -> None:
    """Positions stretched as its code does, a norm that was never trained, four neighbours, W + BA * alpha / rank."""
    from transformers import Blip2VisionConfig, Blip2VisionModel

    tensors = minigpt_v2(2, 32, 128, RANK)
    path = saved(tmp_path, tensors, **said)
    ours = read_original(path, beside)
    assert (ours.config.template, ours.config.lane("image").encoder.preprocess().size_px) == ("minigpt_v2", 448)
    assert isinstance(ours.config.adapter, LoraConfig)
    assert (ours.config.adapter.rank, ours.config.adapter.alpha) == (RANK, alpha)
    assert ours.config.adapter.targets == ("q_proj", "v_proj")
    plain = theirs.model.language_model.state_dict() if hasattr(theirs, "model") else theirs.language_model.model.state_dict()
    low = {k.removeprefix("llama_model.base_model.model.model."): v for k, v in tensors.items() if "lora" in k}
    name = "layers.1.self_attn.v_proj"
    product = low[f"{name}.lora_B.weight"] @ low[f"{name}.lora_A.weight"] * alpha / RANK
    own = plain[f"model.{name}.weight"] if f"model.{name}.weight" in plain else plain[f"{name}.weight"]
    torch.testing.assert_close(ours.state_dict()[f"backbone.lm.model.{name}.weight"], own + product, atol=1e-5, rtol=1e-5)

    tower = theirs.model.vision_model if hasattr(theirs, "model") else theirs.vision_model
    state = tower.state_dict()
    table = state["embeddings.position_embedding"]
    places = table[:, 1:].reshape(1, 2, 2, 32).permute(0, 3, 1, 2)
    places = F.interpolate(places, size=(32, 32), mode="bicubic", align_corners=False).permute(0, 2, 3, 1).flatten(1, 2)
    sizes: dict[str, Any] = VISION_16 | {"image_size": 448}
    large = Blip2VisionModel(Blip2VisionConfig(**sizes)).eval()
    large.load_state_dict(state | {
        "embeddings.position_embedding": torch.cat([table[:, :1], places], dim=1),
        "post_layernorm.weight": torch.ones(32), "post_layernorm.bias": torch.zeros(32),
    })  # fmt: skip
    raw = torch.randint(0, 256, (2, 3, 448, 448), dtype=torch.uint8)
    seen = large(normalised(raw)).last_hidden_state[:, 1:].reshape(2, 256, 128)
    expected = F.linear(seen, tensors["llama_proj.weight"], tensors["llama_proj.bias"])
    got = ours.projected("image", MediaBatch(raw, (TilePlan(),) * 2)).values_ND
    torch.testing.assert_close(got, expected.flatten(0, 1), atol=1e-5, rtol=1e-4)


def test_low_rank_matrices_stay_apart_in_our_folder(beside: Beside, tmp_path: Path) -> None:
    path = saved(tmp_path, minigpt_v2(2, 32, 128, RANK))
    merged = import_original(path, tmp_path / "ours", beside).state_dict()
    again, _ = load_model(tmp_path / "ours")
    assert all(torch.equal(v, merged[k]) for k, v in again.state_dict().items())


def test_published_names_and_shapes_are_those_of_the_recipe() -> None:
    """The checkpoint in full size, without numbers: the recipe's projector and adapter, and nothing else."""
    recipe = RECIPES.find("minigpt-v2")().model
    adapter = recipe.adapter
    assert isinstance(adapter, LoraConfig)
    with torch.device("meta"):
        theirs = minigpt_v2(32, 4096, 4 * 1408, adapter.rank)
        model = MultimodalModel(recipe)
    layout = MiniGptV2()
    found = layout.gather(Found(Path("minigptv2.pth"), {}, theirs), Beside())
    assert found.lora == LoraConfig(rank=adapter.rank, alpha=adapter.alpha)
    key_map = layout.key_map(found.tensors)
    ours = key_map.to_ours(found.tensors)
    state = model.state_dict()
    mine = {n: tuple(v.shape) for n, v in state.items() if n.startswith("projectors.")}
    for i in range(32):
        for target in adapter.targets:
            rows, columns = state[f"backbone.lm.model.layers.{i}.self_attn.{target}.weight"].shape
            at = f"backbone.lm.model.layers.{i}.self_attn.{target}.lora_"
            mine |= {f"{at}A.weight": (adapter.rank, columns), f"{at}B.weight": (rows, adapter.rank)}
    assert {n: tuple(v.shape) for n, v in ours.items()} == mine
    assert sum(v.numel() for v in ours.values()) == 23_072_768 + 33_554_432
    assert set(key_map.to_theirs(ours)) == set(found.tensors)


def test_the_published_file_means_the_recipes_model(tmp_path: Path) -> None:
    """In full size, without numbers."""
    recipe = RECIPES.find("minigpt-v2")().model
    assert isinstance(recipe.backbone, CausalLMConfig)
    (tmp_path / "config.json").write_text(json.dumps(recipe.backbone.arch))
    with torch.device("meta"):
        eye = {"patch_embed.proj.weight": torch.empty(1408, 3, 14, 14), "pos_embed": torch.empty(1, 1025, 1408)}
        eye |= {f"blocks.{i}.mlp.fc1.weight": torch.empty(6144, 1408) for i in range(39)}
        theirs = minigpt_v2(32, 4096, 4 * 1408, 64) | {f"visual_encoder.{k}": v for k, v in eye.items()}
    layout = MiniGptV2()
    beside = Beside(llm=tmp_path)
    model = layout.model(layout.gather(Found(tmp_path / "minigptv2.pth", {}, theirs), beside), beside)
    assert (model.lanes, model.template, model.fusion) == (recipe.lanes, recipe.template, recipe.fusion)
    assert model.backbone == recipe.backbone.model_copy(update={"weights": ()})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop("llama_proj.bias"), r"1 tensors are missing \(llama_proj\.bias\)"),
        (lambda t: t.pop("llama_model.base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"),
         r"1 low-rank matrices without a layer or a pair \(backbone\.lm\.model\.layers\.1\.self_attn\.q_proj\)"),
        (lambda t: t.update({"llama_model.base_model.model.model.layers.7.mlp.up_proj.weight": torch.zeros(1)}),
         r"1 tensors are left over \(llama_model\.model\.layers\.7\.mlp\.up_proj\.weight\)"),
        (lambda t: t.update({"image_gate": torch.zeros(1)}), "no rule for tensor 'image_gate'"),
        (lambda t: t.update({"llama_proj.weight": torch.zeros(32, 130)}), "takes 130 numbers; expected a multiple of 32"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    change: Callable[[dict[str, Tensor]], Any], named: str, beside: Beside, tmp_path: Path
) -> None:
    tensors = minigpt_v2(2, 32, 128, RANK)
    change(tensors)
    with pytest.raises(WeightsError, match=named):
        read_original(saved(tmp_path, tensors), beside)


def test_what_lies_elsewhere_is_asked_for(beside: Beside, tmp_path: Path) -> None:
    path = saved(tmp_path, minigpt_v2(2, 32, 128, RANK))
    with pytest.raises(WeightsError, match=r"eva_vit_g\.pth.*--tower"):
        read_original(path, Beside(llm=beside.llm))
    with pytest.raises(WeightsError, match="--llm"):
        read_original(path, Beside(tower=beside.tower))


def test_the_layout_is_told_from_minigpt_4s() -> None:
    names = minigpt_v2(1, 8, 8, 2)
    assert next(n for n in ORIGINALS if ORIGINALS.find(n)().fits(names)) == "minigpt_v2"
    assert next(n for n in ORIGINALS if ORIGINALS.find(n)().fits({"llama_proj.weight"})) == "lavis"
