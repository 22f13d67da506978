"""CogVLM's published figures, and that its recipes are the graph of its authors' config."""

from __future__ import annotations

from typing import Any

from part_sizes import BY_PARTS, cross_module
from test_prompts import written

from sensorium.interop.families.cogvlm import CogVlm
from sensorium.recipes import RECIPES

# configuration_cogvlm.py of THUDM/cogvlm-chat-hf.
CHAT: dict[str, Any] = {
    "architectures": ["CogVLMForCausalLM"], "vocab_size": 32000, "hidden_size": 4096,
    "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "hidden_act": "silu",
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 0, "tie_word_embeddings": False,
    "vision_config": {"hidden_size": 1792, "num_hidden_layers": 63, "num_heads": 16, "image_size": 490,
                      "intermediate_size": 15360, "patch_size": 14, "layer_norm_eps": 1e-6},
}  # fmt: skip


def test_the_graph_is_that_of_the_authors_config() -> None:
    recipe = RECIPES.find("cogvlm")().model
    theirs = CogVlm().to_ours(CHAT)
    assert (recipe.lanes, recipe.fusion, recipe.boxes) == (theirs.lanes, theirs.fusion, theirs.boxes)
    mine, other = recipe.backbone.to_dict()["arch"], theirs.backbone.to_dict()["arch"]
    # What one of them leaves out is the class's default: silu, and as many key heads as heads.
    assert {k: v for k, v in mine.items() if k != "num_key_value_heads"} == {
        k: v for k, v in other.items() if k != "hidden_act"}  # fmt: skip


def test_published_figures() -> None:
    """The paper's 6.5B of the expert; the repository's 17B in all, 10B for pictures (both cut, not
    rounded) and 7B for language."""
    sizes = BY_PARTS["cogvlm"].sizes()
    assert round(sizes["fusion"] / 1e9, 1) == 6.5
    assert sum(sizes.values()) // 10**9 == 17
    backbone = sizes.pop("backbone")
    assert (sum(sizes.values()) // 10**9, round(backbone / 1e9)) == (10, 7)


def test_tokens_of_a_picture() -> None:
    """256 and 1,225, and the two around them."""
    for name, count in (("cogvlm-224", 258), ("cogvlm", 1227)):
        assert RECIPES.find(name)().model.lanes["image"].tile_grid().tokens == count


def test_prompts() -> None:
    """utils/utils/language.py, its chat and vqa; there no end of text stands between two turns."""
    assert written("cogvlm") == "IMG [INST] What? [/INST] A cat.{eos} [INST] Big? [/INST] Yes.{eos}"
    assert written("cogvlm_vqa").startswith("IMGQuestion: What? Short answer:A cat.{eos}")
    assert written("cogvlm_base").startswith("IMGWhat?A cat.{eos}")


def test_cogagents_figures() -> None:
    """18B in all, and 3.5 % of them in what learns first."""
    sizes = BY_PARTS["cogagent"].sizes()
    total = sum(sizes.values())
    assert round(total / 1e9) == 18
    assert round(100 * (sizes["encoders.image_detail"] + cross_module(4096, 1024, 32)) / total, 1) == 3.5
    assert RECIPES.find("cogagent")().model.lanes["image"].tile_grid().tokens == 258
