"""LLaVA's own repository: a LLaMA whose tensors have those of projector and tower among them.

Also what its training leaves behind (a bare `mm_projector.bin`; a folder with `adapter_model.*` and
`non_lora_trainables.bin`) and Shikra, whose repository grew out of it.

Sources: github.com/haotian-liu/LLaVA, llava/model/builder.py, llava_arch.py,
multimodal_projector/builder.py; github.com/shikras/shikra, mllm/models/shikra/shikra.py.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sensorium.core.errors import ConfigError, WeightsError
from sensorium.core.parts import InputProjectorConfig
from sensorium.input_projectors.linear import LinearConfig
from sensorium.input_projectors.mlp import MlpConfig
from sensorium.interop.families import FAMILIES
from sensorium.interop.families.base import text_arch
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.interop.originals.base import Beside, Found, count, llm_folder, read_json
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.nn.pretrained import HARMLESS
from sensorium.text.chat import TemplateName

PROJECTOR, TOWER = "model.mm_projector.", "model.vision_tower.vision_tower.vision_model."
LLM_TYPES = {
    "llava": "llama", "llava_llama": "llama", "shikra": "llama", "llava_mistral": "mistral",
    "llava_qwen": "qwen2",
}  # fmt: skip
TEMPLATES: dict[str, TemplateName] = {"llama": "vicuna", "mistral": "mistral", "qwen2": "qwen"}
OWN_KEYS = ("mm_", "tune_mm", "freeze_mm", "use_mm", "image_", "tokenizer_", "unfreeze_", "vision_")
CLIP_L = {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
          "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14}  # fmt: skip
TOWERS: dict[str, dict[str, Any]] = {
    "openai/clip-vit-large-patch14": CLIP_L | {"image_size": 224},
    "openai/clip-vit-large-patch14-336": CLIP_L | {"image_size": 336},
}
"""Towers that need no folder where their tensors are in the checkpoint."""


class LlavaRepository:
    """CLIP or SigLIP, a linear map or MLP, a LLaMA, Mistral or Qwen2."""

    def fits(self, names: Collection[str]) -> bool:
        return any("mm_projector." in name for name in names)

    def canonical(self, name: str) -> str:
        while name.startswith(("base_model.model.", "module.")):
            name = name.removeprefix("base_model.model.").removeprefix("module.")
        if name.startswith("mm_projector."):
            name = f"model.{name}"
        # Saved by name of the inner model, as `non_lora_trainables.bin` has it.
        return name.replace("model.model.", "model.", 1) if name.startswith("model.model.") else name

    def gather(self, found: Found, beside: Beside) -> Found:
        tensors = {self.canonical(k): v for k, v in found.tensors.items() if not k.endswith(HARMLESS)}
        return replace(found, tensors=tensors)

    def model(self, found: Found, beside: Beside) -> ModelConfig:
        config = found.config
        text = self._text(found, beside)
        vision = _vision(found, beside)
        if config.get("mm_vision_select_feature", "patch") not in ("patch", "cls_patch"):
            raise ConfigError(f"mm_vision_select_feature {config['mm_vision_select_feature']!r}",
                              expected="patch or cls_patch", where=str(found.path))  # fmt: skip
        whole = config.get("mm_vision_select_feature", "patch") == "cls_patch"
        siglip = vision.get("model_type", "").startswith("siglip")
        aspect = config.get("image_aspect_ratio") or "square"
        layer = config.get("mm_vision_select_layer", -2)
        if siglip:
            # The repository drops the tower's last layer and its head, and takes what is left.
            layers = vision["num_hidden_layers"] - 1
            vision = vision | {"num_hidden_layers": layers, "vision_use_head": False}
            layer = -1
        family = "llava"
        if aspect.startswith("anyres"):
            family = "llava_onevision" if siglip else "llava_next"
        theirs = {
            "model_type": family, "vision_config": vision, "text_config": text,
            "vision_feature_layer": layer,
            "vision_feature_select_strategy": "full" if whole or siglip else "default",
            "image_grid_pinpoints": config.get("image_grid_pinpoints"),
            "vision_aspect_ratio": aspect,
        }  # fmt: skip
        model = FAMILIES.find(family)().to_ours(theirs)
        changes: dict[str, Any] = {"projector": projector(found)}
        if family == "llava":
            changes["resolution"] = FixedResolution(fit="letterbox" if aspect == "pad" else "crop")
        lane = LaneConfig(**(model.lane("image").__dict__ | changes))
        chat: dict[str, Any] = {"template": self._template(config, text["model_type"])}
        if config.get("model_type") == "shikra":
            chat["boxes"] = "shikra"
        return model.model_copy(update={"lanes": {"image": lane}, **chat})

    def _text(self, found: Found, beside: Beside) -> dict[str, Any]:
        if not any(name.startswith("model.layers.") for name in found.tensors if "lora_" not in name):
            arch = read_json(llm_folder(beside, found.path) / "config.json")
        else:
            arch = found.config
        if not arch:
            raise WeightsError("no config.json", where=str(found.path))
        kind = str(arch.get("model_type"))
        kept = {k: v for k, v in text_arch(arch).items() if not k.startswith(OWN_KEYS)}
        known = LLM_TYPES | {kind: kind for kind in TEMPLATES}
        if kind not in known:
            raise ConfigError(f"a LLaVA around {kind!r}", expected=", ".join(known), where=str(found.path))
        return kept | {"model_type": known[kind]}

    def _template(self, config: dict[str, Any], text: str) -> TemplateName:
        if config.get("mm_use_im_start_end"):
            return "shikra" if config.get("model_type") == "shikra" else "vicuna_markers"
        return TEMPLATES[text]

    def folders(self, found: Found, beside: Beside) -> dict[str, Path]:
        parts = {"backbone": ("model.layers.", beside.llm), "encoders.image": (TOWER, _tower_folder(found, beside))}
        whole = [name for name in found.tensors if ".lora_" not in name]
        return {part: folder for part, (prefix, folder) in parts.items()
                if folder and not any(name.startswith(prefix) for name in whole)}  # fmt: skip

    def key_map(self, names: Collection[str]) -> KeyMap:
        lm = "backbone.lm."
        return KeyMap(
            rules=(
                Rule(f"{PROJECTOR}#.*", "projectors.image.layers.#.*"),
                Rule(f"{PROJECTOR}*", "projectors.image.linear.*"),
                Rule("model.image_newline", "newlines.image"),
                Rule(f"{TOWER}*", "encoders.image.tower.*"),
                Rule("model.embed_tokens.*", f"{lm}model.embed_tokens.*"),
                Rule("model.layers.#.*", f"{lm}model.layers.#.*"),
                Rule("model.norm.*", f"{lm}model.norm.*"),
                Rule("lm_head.*", f"{lm}lm_head.*"),
            ),
        )


def projector(found: Found) -> InputProjectorConfig:
    """The projector that the tensors are of."""
    if f"{PROJECTOR}weight" in found.tensors:
        return LinearConfig(bias=f"{PROJECTOR}bias" in found.tensors)
    # Linear layers are numbered 0, 2, 4; activations lie between them.
    return MlpConfig(depth=max(1, (count(found.tensors, PROJECTOR) + 1) // 2))


def _tower_folder(found: Found, beside: Beside) -> Path | None:
    """The folder that was named, or that config.json names, if it is on this machine."""
    named = found.config.get("mm_vision_tower")
    if beside.tower is None and isinstance(named, str) and (Path(named) / "config.json").is_file():
        return Path(named)
    return beside.tower


def _vision(found: Found, beside: Beside) -> dict[str, Any]:
    """The tower's config.

    Raises:
        WeightsError: nothing says how large it is, or it is nowhere.
    """
    inside = any(name.startswith(TOWER) for name in found.tensors)
    folder = _tower_folder(found, beside)
    if folder is not None:
        config = read_json(folder / "config.json")
        config = config.get("vision_config", config)
        if not config:
            raise WeightsError("no config.json of a vision tower", where=str(folder))
        return config
    named = found.config.get("mm_vision_tower")
    if inside and named in TOWERS:
        return TOWERS[named] | _size(found.tensors)
    raise WeightsError(
        f"the tower {named!r} is not in the checkpoint" if not inside
        else f"the checkpoint holds a tower {named!r} and not its config",
        where=str(found.path), fix="name its folder (transformers layout) with --tower",
    )  # fmt: skip


def _size(tensors: dict[str, Tensor]) -> dict[str, int]:
    """What the tensors themselves say of a tower's size."""
    patches = tensors[f"{TOWER}embeddings.patch_embedding.weight"]
    side = round((len(tensors[f"{TOWER}embeddings.position_embedding.weight"]) - 1) ** 0.5)
    return {
        "hidden_size": patches.shape[0], "patch_size": patches.shape[-1],
        "image_size": side * patches.shape[-1],
        "num_hidden_layers": count(tensors, f"{TOWER}encoder.layers."),
        "intermediate_size": len(tensors[f"{TOWER}encoder.layers.0.mlp.fc1.weight"]),
    }  # fmt: skip
