"""LLaMA-Adapter's own checkpoints: names map completely both ways, tensors return bit for bit, and the model that is
imported computes what the authors' code computes from the same tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_layouts import (
    SEVEN_B,
    TINY,
    bias_7b,
    first_version,
    llama_in_pairs,
    meta_logits,
    openai_clip,
    picture_queries,
    tiny_clip,
    tiny_llama,
)
from test_hf_families import batch_of, normalised, pixels
from test_original_export import assert_same, half, there_and_back
from torch import Tensor

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.batch import Example, MediaBatch, TilePlan
from sensorium.core.errors import WeightsError
from sensorium.interop.original import read_original
from sensorium.interop.originals import ORIGINALS
from sensorium.interop.originals.base import Beside, Found
from sensorium.interop.originals.llama_adapter import LlamaAdapter
from sensorium.model.multimodal import MultimodalModel
from sensorium.recipes import RECIPES

CLIP_L_14: dict[str, Any] = {"model_type": "clip", "projection_dim": 768, "text_config": {}, "vision_config": {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 224,
    "patch_size": 14, "projection_dim": 768}}  # fmt: skip
IDS = [1, 5, 9, 200, 7, 8, 31]


@pytest.fixture
def beside(tmp_path: Path) -> Beside:
    torch.manual_seed(3)
    tiny_llama(tmp_path / "llama")
    tiny_clip(tmp_path / "clip")
    return Beside(llm=tmp_path / "llama", tower=tmp_path / "clip")


# Names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_head", [True, False])
def test_first_version_there_and_back(per_head: bool, beside: Beside, tmp_path: Path) -> None:
    """Gates of layers without a prompt, too, whatever they hold."""
    size = replace(TINY, length=10)
    tensors = half(first_version(size, per_head=per_head))
    torch.save(tensors, tmp_path / "release.pth")
    names = there_and_back(tmp_path / "release.pth", Beside(llm=beside.llm), tmp_path)
    assert names == ["config.json", "release.safetensors"]
    assert_same(tmp_path / "back" / "release.safetensors", tensors)


def test_second_version_there_and_back(beside: Beside, tmp_path: Path) -> None:
    tensors = half(bias_7b(TINY))
    content = {"model": tensors, "config": {"w_bias": True, "w_lora": False, "lora_rank": 16}}
    torch.save(content, tmp_path / "BIAS-7B.pth")
    there_and_back(tmp_path / "BIAS-7B.pth", beside, tmp_path)
    assert_same(tmp_path / "back" / "BIAS-7B.safetensors", tensors)


@pytest.mark.parametrize("prefix", ["llama.", "llma.", "module.llama."])
def test_a_whole_model_there_and_back(prefix: str, tmp_path: Path) -> None:
    """As training saves it: with LLaMA, CLIP and what is left of CLIP's half for texts."""
    torch.manual_seed(4)
    llama, clip = tiny_llama(tmp_path / "llama"), tiny_clip(tmp_path / "clip")
    whole = llama_in_pairs(llama, TINY.heads) | bias_7b(TINY) | openai_clip(clip)
    front = prefix.removesuffix("llama.").removesuffix("llma.")
    tensors = {k.replace("llama.", prefix, 1) if k.startswith("llama.") else front + k: v for k, v in half(whole).items()}
    torch.save({"model": tensors}, tmp_path / "checkpoint.pth")
    there_and_back(tmp_path / "checkpoint.pth", Beside(llm=tmp_path / "llama"), tmp_path)
    assert_same(tmp_path / "back" / "checkpoint.safetensors", tensors)


def test_published_names_and_shapes_are_those_of_the_recipe() -> None:
    """BIAS-7B in full size, without numbers: what is mapped is what learns in the recipe, and nothing else."""
    with torch.device("meta"):
        theirs = bias_7b(SEVEN_B)
        model = MultimodalModel(RECIPES.find("llama-adapter-v2")().model)
    assert len(theirs) == 96 + 8 * 32 + 11
    layout = LlamaAdapter()
    found = layout.gather(Found(Path("BIAS-7B.pth"), {}, theirs), Beside())
    assert found.idle == {"llama.layers.0.attention.gate"}
    key_map = layout.key_map(found.tensors)
    ours = key_map.to_ours(found.tensors)
    learns = {n: tuple(p.shape) for n, p in model.named_parameters()
              if n.startswith("projectors.") or n in model.tuned or "adaption_prompt" in n}  # fmt: skip
    assert {n: tuple(v.shape) for n, v in ours.items()} == learns
    assert {n: v.shape for n, v in key_map.to_theirs(ours).items()} == {n: v.shape for n, v in found.tensors.items()}


def test_the_published_file_means_the_recipes_model(tmp_path: Path) -> None:
    """In full size, without numbers, over CLIP ViT-L/14 with the config that its makers publish."""
    recipe = RECIPES.find("llama-adapter-v2")().model
    assert isinstance(recipe.backbone, CausalLMConfig)
    for name, config in (("llama", recipe.backbone.arch), ("clip", CLIP_L_14)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        theirs = bias_7b(SEVEN_B)
    layout, beside = LlamaAdapter(), Beside(llm=tmp_path / "llama", tower=tmp_path / "clip")
    model = layout.model(layout.gather(Found(tmp_path / "BIAS-7B.pth", {}, theirs), beside), beside)
    lane, mine = model.lane("image"), recipe.lane("image")
    assert lane.encoder == mine.encoder.model_copy(update={"weights": ()})
    assert (lane.projector, lane.resolution) == (mine.projector, mine.resolution)
    assert (model.adapter, model.fusion, model.template) == (recipe.adapter, recipe.fusion, recipe.template)
    assert model.backbone == recipe.backbone.model_copy(update={"weights": ()})


def test_published_first_version_is_prompts_of_thirty_layers() -> None:
    with torch.device("meta"):
        theirs = first_version(replace(SEVEN_B, prompts=30))
    layout = LlamaAdapter()
    found = layout.gather(Found(Path("release.pth"), {}, theirs), Beside())
    assert layout.config["adapter_layers"] == 30
    ours = layout.key_map(found.tensors).to_ours(found.tensors)
    assert sum(v.numel() for v in ours.values()) == 300 * 4096 + 30 * 32  # The paper's 1.2M.
    assert min(int(n.split(".")[4]) for n in ours) == 2


# Numbers ----------------------------------------------------------------------------------------


def example(media: dict[str, MediaBatch] | None = None) -> Example:
    places = {"image": []} if media else {}
    return Example(IDS, [False] * len(IDS), places, media or {}, [int(media is not None)] * len(IDS))


@pytest.mark.parametrize("per_head", [True, False])
@torch.no_grad()
def test_first_version_computes_the_same(per_head: bool, tmp_path: Path) -> None:
    torch.manual_seed(5)
    size = replace(TINY, length=10)
    llama = tiny_llama(tmp_path / "llama")
    tensors = first_version(size, per_head=per_head)
    torch.save(tensors, tmp_path / "release.pth")
    ours = read_original(tmp_path / "release.pth", Beside(llm=tmp_path / "llama"))
    assert ours.config.template == "alpaca"
    w = llama_in_pairs(llama, size.heads) | {f"llama.{k}" if k[0] == "l" else k: v for k, v in tensors.items()}
    expected = meta_logits(w, size, torch.tensor(IDS))
    got = ours.logits(ours(batch_of(example())).hidden_BTD[0])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
    closed = w | {k: torch.zeros_like(v) for k, v in w.items() if k.endswith("gate")}
    assert not torch.allclose(meta_logits(closed, size, torch.tensor(IDS)), expected, atol=1e-2)


@pytest.mark.parametrize("inside", [False, True])
@torch.no_grad()
def test_second_version_computes_the_same(inside: bool, tmp_path: Path) -> None:
    torch.manual_seed(6)
    llama, clip = tiny_llama(tmp_path / "llama"), tiny_clip(tmp_path / "clip")
    w = llama_in_pairs(llama, TINY.heads) | bias_7b(TINY)
    torch.save({"model": w | openai_clip(clip) if inside else bias_part(w)}, tmp_path / "bias.pth")
    given = Beside(llm=tmp_path / "llama", tower=None if inside else tmp_path / "clip")
    ours = read_original(tmp_path / "bias.pth", given)
    raw = pixels(1)
    tokens = clip.vision_model(normalised(raw)).last_hidden_state
    tokens = clip.visual_projection(clip.vision_model.post_layernorm(tokens))
    seen = picture_queries(w, TINY, tokens)
    media = MediaBatch(raw, (TilePlan(),))
    torch.testing.assert_close(ours.projected("image", media).values_ND, seen[0], atol=1e-5, rtol=1e-4)
    expected = meta_logits(w, TINY, torch.tensor(IDS), seen[0])
    got = ours.logits(ours(batch_of(example({"image": media}))).hidden_BTD[0])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def bias_part(w: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: w[k] for k in bias_7b(TINY)}


# Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop("llama.layers.2.attention.wo.bias"), r"1 tensors are missing \(llama\.layers\.2\.attention\.wo\.bias\)"),
        (lambda t: t.pop("llama.layers.1.attention.gate"), r"missing \(llama\.layers\.1\.attention\.gate\)"),
        (lambda t: t.pop("visual_blocks.1.attn.qkv.bias"), r"missing \(visual_blocks\.1\.attn\.qkv\.bias"),
        (lambda t: t.update({"visual_blocks.1.ls1.gamma": torch.zeros(1)}), r"no rule for tensor 'visual_blocks\.1\.ls1\.gamma'"),
        (lambda t: t.update({"llama.layers.0.attention.wk.bias": torch.zeros(32)}),
         r"1 tensors are left over \(llama\.layers\.0\.attention\.wk\.bias\)"),
        (lambda t: t.update({"llama.layers.0.attention.lora_wq_l1.weight": torch.zeros(16, 32)}),
         r"no rule for tensor 'llama\.layers\.0\.attention\.lora_wq_l1\.weight'"),
        (lambda t: t.update({"llama.layers.0.attention.new_gate": torch.zeros(1, 1, 1, 1)}), "no rule for tensor 'llama.layers.0.attention.new_gate'"),
        (lambda t: t.update({"adapter_query.weight": torch.zeros(7, 32)}), "adapter_query.weight has 7 rows"),
        (lambda t: t.update({"llama.layers.1.attention.gate": torch.zeros(1, 4, 2, 1)}), r"gate has shape \(1, 4, 2, 1\)"),
        (lambda t: t.update({"clip_proj.weight": torch.zeros(32, 9)}), r"clip_proj\.weight has shape \(32, 9\); expected \(32, 24\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    change: Callable[[dict[str, Tensor]], Any], named: str, beside: Beside, tmp_path: Path
) -> None:
    tensors = bias_7b(TINY)
    change(tensors)
    torch.save({"model": tensors}, tmp_path / "bias.pth")
    with pytest.raises(WeightsError, match=named):
        read_original(tmp_path / "bias.pth", beside)


def test_what_lies_elsewhere_is_asked_for(beside: Beside, tmp_path: Path) -> None:
    torch.save({"model": bias_7b(TINY)}, tmp_path / "bias.pth")
    with pytest.raises(WeightsError, match="--llm"):
        read_original(tmp_path / "bias.pth", Beside())
    with pytest.raises(WeightsError, match="--tower"):
        read_original(tmp_path / "bias.pth", Beside(llm=beside.llm))
    tiny_llama(tmp_path / "other", replace(TINY, layers=4))
    with pytest.raises(WeightsError, match="llama, 4 layers and 4 heads; expected llama, 3 and 4"):
        read_original(tmp_path / "bias.pth", replace(beside, llm=tmp_path / "other"))


def test_the_layout_is_told_by_its_prompts() -> None:
    fitting = [name for name in ORIGINALS if ORIGINALS.find(name)().fits(first_version(TINY))]
    assert fitting == ["llama_adapter"]
