"""MiniGPT-v2's checkpoint: the map to Llama 2 and low-rank matrices inside it, by the names of peft 0.2.

It lies over Llama-2-chat (`--llm`) and `eva_vit_g.pth` (`--tower`), whose positions are stretched to pictures of 448
pixels. The norm behind the tower is frozen as it was made: it scales by one and adds nothing. Neither the size of
pictures nor the matrices' alpha is in the tensors; alpha is in the config that the file has beside them, if it
says so, the other is the code's.

Source: github.com/Vision-CAIR/MiniGPT-4, minigpt4/models/ (minigpt_v2.py, minigpt_base.py, base_model.py, eva_vit.py),
runners/runner_base.py, environment.yml.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import WeightsError
from sensorium.input_projectors.group_concat import GroupConcatConfig
from sensorium.interop.families.base import text_arch
from sensorium.interop.originals.base import Beside, Found, llm_folder, need, read_json
from sensorium.interop.originals.lavis import EYE, Lavis, of_eva_vit_g, tower_config
from sensorium.interop.torch_file import entry, read_checkpoint
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, LoraConfig, ModelConfig
from sensorium.model.learning import LORA_MARK
from sensorium.nn.positions import refitted
from sensorium.nn.pretrained import HARMLESS

PEFT = "llama_model.base_model.model."
SIZE_PX, ALPHA = 448, 16.0
"""Constants of the code."""


class MiniGptV2(Lavis):
    """EVA-CLIP-g at 448 pixels, neighbours in one token, Llama 2 with low-rank matrices."""

    def fits(self, names: Collection[str]) -> bool:
        return any(name.startswith(PEFT) for name in names)

    def canonical(self, name: str) -> str:
        return name.replace(PEFT, "llama_model.", 1) if name.startswith(PEFT) else name

    def gather(self, found: Found, beside: Beside) -> Found:
        tensors = _eye(beside.tower) if beside.tower is not None else {}
        for part in (*(read_checkpoint(path) for path in beside.more), found.tensors):
            tensors |= {self.canonical(k): v for k, v in part.items() if not k.endswith(HARMLESS)}
        config, rank = _with_alpha(found), _rank(tensors)
        lora = LoraConfig(rank=rank, alpha=config.get("lora_alpha", ALPHA)) if rank else None
        return replace(found, config=config, tensors=tensors, lora=lora)

    def model(self, found: Found, beside: Beside) -> ModelConfig:
        tensors, path = found.tensors, found.path
        need(tensors, f"{EYE}blocks.0.mlp.fc1.weight", path, "name the file of EVA-CLIP-g, eva_vit_g.pth, with --tower")
        encoder = tower_config(tensors).model_copy(update={"feature": "patch"})
        columns = need(tensors, "llama_proj.weight", path, "take a checkpoint with the map to the LLM").shape[1]
        group, left = divmod(columns, encoder.width)
        if left or not group:
            raise WeightsError(f"llama_proj.weight takes {columns} numbers",
                               expected=f"a multiple of {encoder.width}, the tower's width", where=str(path))  # fmt: skip
        arch = text_arch(read_json(llm_folder(beside, path) / "config.json"))
        lane = LaneConfig(encoder=encoder, projector=GroupConcatConfig(group=group), resolution=FixedResolution(fit="stretch"))
        return ModelConfig(lanes={"image": lane}, backbone=CausalLMConfig(arch=arch), template="minigpt_v2")


def _eye(file: Path) -> dict[str, Tensor]:
    """EVA-CLIP-g's tensors for pictures of this size, and the norm that training left alone."""
    eye = {EYE + k: v for k, v in read_checkpoint(file).items() if of_eva_vit_g(k)}
    fix = "name the file of EVA-CLIP-g, eva_vit_g.pth, with --tower"
    table = need(eye, f"{EYE}pos_embed", file, fix)
    side = SIZE_PX // need(eye, f"{EYE}patch_embed.proj.weight", file, fix).shape[-1]
    fitting = refitted(table, side * side + 1)
    if fitting is None:
        raise WeightsError(f"pos_embed has shape {tuple(table.shape)}", expected="a square and CLS", where=str(file))
    eye[f"{EYE}pos_embed"] = fitting
    width = table.shape[-1]
    return eye | {"ln_vision.weight": torch.ones(width), "ln_vision.bias": torch.zeros(width)}


def _with_alpha(found: Found) -> dict[str, Any]:
    """The config, with the alpha that the file's own says."""
    said = entry(found.path, "config") if found.tensors else None
    model = said.get("model") if isinstance(said, Mapping) else None
    alpha = model.get("lora_alpha") if isinstance(model, Mapping) else None
    return found.config if alpha is None else found.config | {"lora_alpha": float(alpha)}


def _rank(tensors: Mapping[str, Tensor]) -> int | None:
    return next((len(v) for k, v in tensors.items() if f"{LORA_MARK}A." in k), None)
