"""Emu2, Emu2-Chat and Emu2-Gen, as its authors publish them: EVA2-CLIP-E, a map to LLaMA and one back, LLaMA.

By the names of transformers' folder (`BAAI/Emu2`) or of the repository's own classes; those of the first have `model.` in front of tower and
decoder. LLaMA's shape and tokenizer are the repository's `emu/conf/llama_config` (`--llm`). Sides of the pooled map are in the code:
8, of Emu2-Chat 16, but of frames of videos 8. The decoder, a pipeline of diffusers, lies beside (`--with`), or is named later.

Sources: github.com/baaivision/Emu, Emu2/emu/ (emu.py, eva_vit.py, lm.py, chat.py, conf/emu_conf.py) and, for names in the folder,
Emu2/demo/backend/hf_model/emu/chat.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.video import VideoConfig
from sensorium.encoders.eva2 import Eva2Config
from sensorium.generators.sdxl import SdxlConfig
from sensorium.input_projectors.avg_pool import AvgPoolConfig
from sensorium.interop.key_map import KeyMap, Rule, Split
from sensorium.interop.originals.base import Beside, Found, count, need
from sensorium.interop.originals.emu import (
    CHAT,
    EYE,
    LM,
    MARKS,
    PICTURE,
    WORDS,
    decoder_source,
    llama_arch,
    words_behind,
)
from sensorium.interop.output_projectors import PROJECTOR_KEYS
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.nn.pretrained import HARMLESS
from sensorium.output_projectors.regression import RegressionConfig

SIDE, CHAT_SIDE = 8, 16
# A phrase, what it names, where; then 257 places.
TOKENS = (*PICTURE, "[gIMG]", "[/gIMG]", "[EOC]", "[VIDEO]", "<grounding>", "<phrase>", "</phrase>", "<object>", "</object>",
          "</delimiter_of_multi_objects/>", "<REC>", *(f"<patch_index_{i:04d}>" for i in range(257)))  # fmt: skip
BLOCK = (("norm1.*", "norm_1.*"), ("norm2.*", "norm_2.*"), ("attn.proj.*", "attention.out.*"), ("attn.q_bias", "attention.q.bias"),
         ("attn.v_bias", "attention.v.bias"), ("mlp.fc1.*", "mlp.up.*"), ("mlp.fc2.*", "mlp.down.*"))  # fmt: skip
FIX = "take a whole checkpoint of Emu2"


class Emu2:
    """EVA2-CLIP-E without a norm behind, pooled; LLaMA that foretells what the tower sees."""

    def fits(self, names: Collection[str]) -> bool:
        return {"project_up.weight", "project_down.weight"} <= set(names)

    def canonical(self, name: str) -> str:
        return name.removeprefix("model.") if name.startswith((f"model.{EYE}", f"model.{LM}")) else name

    def gather(self, found: Found, beside: Beside) -> Found:
        tensors = {self.canonical(k): v for k, v in found.tensors.items() if not k.endswith(HARMLESS)}
        return replace(found, tensors=tensors, words=words_behind(tensors, (TOKENS, (*TOKENS, *CHAT)), beside, found))

    def model(self, found: Found, beside: Beside) -> ModelConfig:
        chats = CHAT[0] in found.words
        side = CHAT_SIDE if chats else SIDE
        encoder = _tower(found.tensors, found.path)
        decoder = SdxlConfig(length=side * side, width=encoder.width, pooled="mean", weights=decoder_source(beside))
        lane = LaneConfig(encoder=encoder, projector=AvgPoolConfig(side=side, bias=False), resolution=FixedResolution(fit="stretch"))
        return ModelConfig(
            lanes={"image": lane},
            backbone=CausalLMConfig(arch=llama_arch(found, beside, WORDS), added_tokens=tuple(found.words)),
            hands={"image": HandConfig(signals=MARKS, projector=RegressionConfig(space="encoder"), generator=decoder)},
            template="emu2" if chats else "emu2_document",
            boxes="emu2",
            placeholder_token="<image>",
            video=VideoConfig(frames=8, begin=("[VIDEO]",), pool=CHAT_SIDE // SIDE if chats else 1),
        )

    def folders(self, found: Found, beside: Beside) -> dict[str, Path]:
        return {}

    def key_map(self, names: Collection[str]) -> KeyMap:
        tower, block = "encoders.image.tower.", "blocks.#."
        rules = (
            Rule(f"{EYE}cls_token", f"{tower}cls_D", lead=2),
            Rule(f"{EYE}pos_embed", f"{tower}positions_LD", lead=1),
            Rule(f"{EYE}patch_embed.proj.*", f"{tower}patches.*"),
            *(Rule(EYE + block + theirs, tower + block + ours) for theirs, ours in BLOCK),
            Rule("project_up.*", "projectors.image.layers.0.*"),
            *PROJECTOR_KEYS["emu2"].behind("", "hands.image.").rules,
            Rule(f"{LM}model.*", "backbone.lm.model.*"),
            Rule(f"{LM}lm_head.*", "backbone.lm.lm_head.*"),
        )
        qkv = Split(f"{EYE}{block}attn.qkv.weight", tuple(f"{tower}{block}attention.{part}.weight" for part in "qkv"))
        return KeyMap(rules=rules, splits=(qkv,))


def _tower(tensors: Mapping[str, Tensor], path: Path) -> Eva2Config:
    patches, places, up = (need(tensors, EYE + name, path, FIX) for name in ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight"))
    side = round((places.shape[1] - 1) ** 0.5)
    return Eva2Config(width=patches.shape[0], layers=count(tensors, f"{EYE}blocks."), mlp_width=len(up), key_bias=False,
                      image_size_px=side * patches.shape[-1], patch_size_px=patches.shape[-1])  # fmt: skip
