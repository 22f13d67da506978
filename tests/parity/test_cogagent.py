"""CogAgent's checkpoint layout there and back; what its layers compute is compared in test_cogvlm.py. Its
authors' code is remote and is not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_cogvlm import CONFIG as COGVLM
from test_cogvlm import EVA, HEADS, LAYERS, PATCHES, WIDTH
from test_cogvlm import foreign as cogvlm_tensors
from torch import Tensor

from sensorium.core.errors import ConfigError
from sensorium.interop.families.cogagent import NAMES, CogAgent
from sensorium.interop.hf import name_of, read_hf, write_hf
from sensorium.recipes import RECIPES

CROSS, INNER, FINE = 64, 170, 4
CONFIG: dict[str, Any] = COGVLM | NAMES | {
    "cross_hidden_size": CROSS, "cross_compute_hidden_size": 24, "cross_image_size": 28,
}  # fmt: skip
UNUSED = ("model.cross_vision.vit.model.blocks.23.", "model.cross_vision.vit.model.norm.",
          "model.cross_vision.vit.model.head.", "model.cross_vision.vit.model.rope.")  # fmt: skip


def foreign() -> dict[str, Tensor]:
    """Random tensors by the names of modeling_cogagent.py, visual.py and cross_visual.py."""
    shapes: dict[str, tuple[int, ...]] = {"model.vision.pos_embed": (PATCHES, EVA),
                                          "model.cross_vision.pos_embed": (FINE, CROSS)}  # fmt: skip
    tower = "model.cross_vision.vit.model."
    shapes |= {f"{tower}cls_token": (1, 1, CROSS), f"{tower}pos_embed": (1, 1 + FINE, CROSS),
               f"{tower}patch_embed.proj.weight": (CROSS, 3, 14, 14), f"{tower}patch_embed.proj.bias": (CROSS,),
               f"{tower}norm.weight": (CROSS,), f"{tower}norm.bias": (CROSS,),
               f"{tower}head.weight": (7, CROSS), f"{tower}head.bias": (7,), f"{tower}rope.freqs_cos": (FINE, 64),
               f"{tower}rope.freqs_sin": (FINE, 64)}  # fmt: skip
    for n in range(24):
        block = f"{tower}blocks.{n}."
        shapes |= {f"{block}attn.{x}_proj.weight": (CROSS, CROSS) for x in "qkv"}
        shapes |= {f"{block}attn.{x}_bias": (CROSS,) for x in "qv"}
        for name in ("norm1", "norm2", "attn.inner_attn_ln"):
            shapes |= {f"{block}{name}.weight": (CROSS,), f"{block}{name}.bias": (CROSS,)}
        for name, rows, columns in (("attn.proj", CROSS, CROSS), ("mlp.w1", INNER, CROSS), ("mlp.w2", INNER, CROSS),
                                    ("mlp.w3", CROSS, INNER)):  # fmt: skip
            shapes |= {f"{block}{name}.weight": (rows, columns), f"{block}{name}.bias": (rows,)}
        shapes |= {f"{block}mlp.ffn_ln.weight": (INNER,), f"{block}mlp.ffn_ln.bias": (INNER,)}
    for n in range(LAYERS):
        layer = f"model.layers.{n}."
        shapes |= {f"{layer}post_cross_attention_layernorm.weight": (WIDTH,),
                   f"{layer}cross_attn.query.weight": (24, WIDTH), f"{layer}cross_attn.dense.weight": (WIDTH, 24),
                   f"{layer}cross_attn.key_value.weight": (48, CROSS)}  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    return cogvlm_tensors() | {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "cogagent"
    home.mkdir()
    (home / "config.json").write_text(json.dumps(CONFIG))
    save_file(foreign(), home / "model.safetensors")
    return home


@torch.no_grad()
def test_every_tensor_that_is_used_goes_there_and_back(folder: Path, tmp_path: Path) -> None:
    assert name_of(CONFIG) == "cogagent"
    model, out = read_hf(folder), tmp_path / "back"
    out.mkdir()
    written = CogAgent().to_theirs(model.config)
    assert written == CONFIG
    write_hf(model, written, CogAgent(), out)
    wanted = {k: v for k, v in foreign().items() if not k.startswith(UNUSED)}
    back = load_file(out / "model.safetensors")
    assert set(back) == set(wanted)
    assert all(torch.equal(back[name], wanted[name]) for name in wanted)


@torch.no_grad()
def test_tensors_lie_where_the_layers_expect_them(folder: Path) -> None:
    model, theirs = read_hf(folder), foreign()
    state = model.state_dict()
    key_value = theirs["model.layers.1.cross_attn.key_value.weight"]
    assert torch.equal(state["fusion.cross.1.attention.k.weight"], key_value[:24])
    assert torch.equal(state["fusion.cross.1.attention.v.weight"], key_value[24:])
    gate = theirs["model.cross_vision.vit.model.blocks.22.mlp.w1.weight"]
    assert torch.equal(state["encoders.image_detail.tower.blocks.22.mlp.gate.weight"], gate)
    assert model.config.fusion.to_dict()["heads"] == HEADS
    detail = model.config.lanes["image"].detail
    assert detail is not None
    pixels = torch.randint(0, 255, (1, 3, 28, 28), dtype=torch.uint8)
    assert model.encoders["image_detail"](pixels).values_ND.isfinite().all()


def test_the_recipe_is_the_graph_of_the_published_sizes() -> None:
    recipe = RECIPES.find("cogagent")().model
    again = CogAgent().to_ours(CogAgent().to_theirs(recipe))
    assert again.lanes["image"].to_dict() == recipe.lanes["image"].to_dict()
    assert again.fusion == recipe.fusion


def test_another_finer_tower_is_refused() -> None:
    recipe = RECIPES.find("cogagent")().model
    lane = recipe.lanes["image"]
    detail = lane.detail.model_copy(update={"layers": 12})  # pyright: ignore[reportOptionalMemberAccess]
    other = recipe.model_copy(update={"lanes": {"image": lane.model_copy(update={"detail": detail})}})
    with pytest.raises(ConfigError, match="not EVA2-CLIP-L"):
        CogAgent().to_theirs(other)
