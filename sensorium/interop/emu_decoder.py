"""A pipeline of diffusers -> one that Emu's or Emu2's decoder begins with: what sees the condition is made anew at the embeddings' width.

Source: Emu2 (arXiv:2312.13286, 2.2.3): SDXL's layers that look at the condition are brought to the width of visual embeddings, and the UNet learns
as a whole; Emu (arXiv:2307.05222) does so with Stable Diffusion 1.5. New layers begin as torch's do, from a fixed seed; all others keep their weights. Text
encoders are left out. The UNet is written in the number format that it came in.

Emu2's and Emu2-Gen's own decoder, which is one (github.com/baaivision/Emu, issue 55), comes in a pipeline whose code is not run: huggingface.co/BAAI/
Emu2-Gen, model_index.json. Its parts are those of SDXL's pipeline, some with the number format in the names of their files.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from sensorium.core.atomic import atomic_folder, write_json
from sensorium.core.errors import WeightsError
from sensorium.generators.pipeline_folder import INDEX, need_diffusers, pipeline_class, quiet

EMU_WIDTH, EMU2_WIDTH = 5120, 1792
KEPT = ("unet", "vae", "scheduler")
EMU2_GEN, SDXL = "EmuVisualGenerationPipeline", "StableDiffusionXLPipeline"
WITHOUT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "image_encoder", "feature_extractor")
"""What SDXL's pipeline has beside them, and does without."""
VARIANT = ".bf16.safetensors"
SEED = 0


def convert_emu_decoder(source: Path, folder: Path) -> None:
    """Write what Stable Diffusion 1.5 is to Emu.

    Raises:
        WeightsError: the folder holds another pipeline, or one without a UNet.
    """
    rewire(source, folder, "StableDiffusionPipeline", EMU_WIDTH)


def convert_emu2_decoder(source: Path, folder: Path) -> None:
    """Write what SDXL is to Emu2, whose pooled condition is as wide as the others.

    Raises:
        WeightsError: the folder holds another pipeline, or one without a UNet.
    """
    rewire(source, folder, SDXL, EMU2_WIDTH)


def convert_emu2_gen(source: Path, folder: Path) -> None:
    """Write the decoder of a folder of Emu2-Gen as a pipeline of diffusers' own, atomically.

    Raises:
        WeightsError: the folder holds another pipeline, or lacks what is kept.
    """
    index = _index(source, EMU2_GEN)
    with atomic_folder(folder) as target:
        for name in KEPT:
            shutil.copytree(source / name, target / name)
        for file in target.rglob(f"*{VARIANT}"):
            file.rename(file.with_name(file.name.replace(VARIANT, ".safetensors")))
        version = index.get("_diffusers_version", "")
        write_json(target / INDEX, {"_class_name": SDXL, "_diffusers_version": version} | {name: index[name] for name in KEPT}
                   | {name: [None, None] for name in WITHOUT})  # fmt: skip


def rewire(source: Path, folder: Path, pipeline: str, width: int) -> None:
    """Write `folder`, atomically.

    Args:
        pipeline: the class that `source` is to hold.
        width: of the condition.

    Raises:
        WeightsError: it holds another one, or lacks what is kept.
    """
    index = _index(source, pipeline)
    kept = {name: value if name in KEPT or not isinstance(value, list) else [None, None] for name, value in index.items()}
    with quiet():
        unet = _rewired(need_diffusers("emu"), source / "unet", width)
    with atomic_folder(folder) as target:
        unet.save_pretrained(target / "unet", safe_serialization=True)
        for name in KEPT[1:]:
            shutil.copytree(source / name, target / name)
        write_json(target / INDEX, kept | ({"requires_safety_checker": False} if "safety_checker" in index else {}))


def _index(source: Path, pipeline: str) -> dict[str, Any]:
    """What a folder says of a pipeline's components.

    Raises:
        WeightsError: it holds another pipeline, or lacks what is kept.
    """
    found = pipeline_class(source)
    if found != pipeline:
        raise WeightsError(f"the folder holds {found!r}", expected=pipeline, where=str(source))
    index: dict[str, Any] = json.loads((source / INDEX).read_text(encoding="utf-8"))
    lost = [name for name in KEPT if name not in index or not (source / name).is_dir()]
    if lost:
        raise WeightsError(f"no {', '.join(lost)}", expected=", ".join(KEPT), where=str(source))
    return index


def _rewired(diffusers: Any, folder: Path, width: int) -> Any:
    """The UNet with layers of another width where it sees the condition."""
    try:
        old = diffusers.UNet2DConditionModel.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot load the UNet: {error}", where=str(folder)) from None
    config = dict(old.config) | {"cross_attention_dim": width}
    if config.get("addition_embed_type") == "text_time":
        config["projection_class_embeddings_input_dim"] = 6 * config["addition_time_embed_dim"] + width
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        new = diffusers.UNet2DConditionModel.from_config(config).to(old.dtype)
    shapes = {name: value.shape for name, value in new.state_dict().items()}
    same = {name: value for name, value in old.state_dict().items() if shapes.get(name) == value.shape}
    new.load_state_dict(same, strict=False)
    return new
