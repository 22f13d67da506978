"""A large model as its users have it: language model and tower each in a folder of its own, in half precision, and a projector of ours.

What smaller shapes do, to import the whole checkpoint in fp32, would write 27 GB and read them at every start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from sensorium import __version__
from sensorium.core.atomic import write_json
from sensorium.core.weights import FolderSource
from sensorium.interop.families import FAMILIES
from sensorium.interop.saved import FORMAT
from sensorium.model.config import ModelConfig


def write_parts(model: Any, out: Path) -> Path:
    """Write the parts of a `LlavaForConditionalGeneration` beside a folder of ours that names them.

    Returns:
        The folder of the language model, which lacks its tokenizer.
    """
    lm, tower = out.with_name("lm"), out.with_name("tower")
    inner, text = model.model, model.config.text_config
    lm.mkdir(parents=True, exist_ok=True)
    # The scores' matrix is the table of words.
    save_file({f"model.{n}": v for n, v in inner.language_model.state_dict().items()}, lm / "model.safetensors", metadata={"format": "pt"})
    write_json(lm / "config.json", text.to_dict() | {"architectures": ["LlamaForCausalLM"]})
    inner.vision_tower.save_pretrained(tower)

    theirs = model.config.to_dict()
    family = FAMILIES.find("llava")()
    tensors = family.key_map(theirs).to_ours({n: v for n, v in model.state_dict().items() if n.startswith("model.multi_modal_projector.")})
    out.mkdir(parents=True, exist_ok=True)
    save_file({n: v.float().contiguous() for n, v in tensors.items()}, out / "model.safetensors", metadata={"format": "pt"})
    config = sourced(family.to_ours(theirs), lm, tower)
    write_json(out / "config.json", {"sensorium": __version__, "format": FORMAT, "model": config.to_dict(), "tied": {}})
    return lm


def sourced(config: ModelConfig, lm: Path, tower: Path) -> ModelConfig:
    """The model with the folders that its parts come from."""
    lane = config.lanes["image"]
    encoder = lane.encoder.model_copy(update={"weights": (FolderSource(path=str(tower)),)})
    backbone = config.backbone.model_copy(update={"weights": (FolderSource(path=str(lm)),)})
    return config.model_copy(update={"lanes": {"image": lane.model_copy(update={"encoder": encoder})}, "backbone": backbone})

