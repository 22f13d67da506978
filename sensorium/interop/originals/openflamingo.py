"""OpenFlamingo's released checkpoints: resampler, blocks of cross-attention and embeddings, nothing else.

They lie over a CLIP and a language model, which are named beside them. How often a block comes is read from the layers that
have one. Files hold the blocks under the decoder's layers, under a list of their own, or both. An output layer that is not
tied to the embedding is frozen, so that its rows for the new words are those of the checkpoint only if it is in the file.

Source: github.com/mlfoundations/open_flamingo, open_flamingo/src/flamingo_lm.py, factory.py, train/train_utils.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.backbones.mpt_qk_norm import MptQkNormConfig
from sensorium.core.errors import WeightsError
from sensorium.interop.families.base import text_arch
from sensorium.interop.families.openflamingo import OpenFlamingo as Family
from sensorium.interop.key_map import KeyMap
from sensorium.interop.locate import converted
from sensorium.interop.mosaic_gpt import mpt_arch
from sensorium.interop.originals.base import Beside, Found, llm_folder, read_json
from sensorium.model.config import ModelConfig

KIND = "openflamingo"
BLOCK = re.compile(r"lang_encoder\.(?:gated_cross_attn_layers|.+\.(?:layers|blocks))\.(\d+)\.(?:gated_cross_attn_layer\.)?attn_gate$")
EMBEDDINGS = ("transformer.wte", "gpt_neox.embed_in", "model.decoder.embed_tokens", "model.embed_tokens")
TOKENS = ("<|endofchunk|>", "<image>", "<PAD>")
"""In the order in which its factory adds them."""
DROPPED = ("lang_encoder.old_decoder_blocks.",)


class OpenFlamingo:
    """CLIP, Flamingo's resampler and blocks, a language model."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}

    def fits(self, names: Collection[str]) -> bool:
        return any(self.canonical(name).startswith("perceiver.") for name in names)

    def canonical(self, name: str) -> str:
        return self._map().canonical(name.removeprefix("module.")) if self.config else name.removeprefix("module.")

    def gather(self, found: Found, beside: Beside) -> Found:
        """Also the config: what the factory was called with, as `families/openflamingo.py` has it."""
        self.config = found.config if found.config.get("model_type") == KIND else self._config(found, beside)
        tensors: dict[str, Tensor] = {}
        for name, value in found.tensors.items():
            mine = self.canonical(name)
            if mine.startswith(DROPPED):
                continue
            if mine in tensors and not torch.equal(tensors[mine], value):
                raise WeightsError(f"{name} is there twice, and differs", where=str(found.path))
            tensors[mine] = value
        return replace(found, config=self.config, tensors=tensors)

    def model(self, found: Found, beside: Beside) -> ModelConfig:
        model = Family().to_ours(self.config)
        kind = MptQkNormConfig if self.config.get("qk_norm") else CausalLMConfig
        # Padding is added to tokenizers that have none.
        padded = read_json(llm_folder(beside, found.path) / "tokenizer_config.json").get("pad_token")
        tokens = TOKENS[:2] if padded else TOKENS
        backbone = kind(arch=text_arch(self.config["text_config"]), added_tokens=tokens)
        return model.model_copy(update={"backbone": backbone})

    def folders(self, found: Found, beside: Beside) -> dict[str, Path]:
        llm = llm_folder(beside, found.path)
        return {"backbone": converted(llm, "mosaic_gpt") if self.config.get("qk_norm") else llm,
                "encoders.image": _tower(found, beside)}  # fmt: skip

    def key_map(self, names: Collection[str]) -> KeyMap:
        return self._map()

    def _map(self) -> KeyMap:
        return Family().key_map(self.config)

    def _config(self, found: Found, beside: Beside) -> dict[str, Any]:
        plain = {k.removeprefix("module."): v for k, v in found.tensors.items()}
        llm = llm_folder(beside, found.path)
        text = read_json(llm / "config.json")
        mosaic = text.get("model_type") == "mosaic_gpt"
        text = mpt_arch(text, str(llm)) if mosaic else text
        rows = next((len(plain[n]) for e in EMBEDDINGS if (n := f"lang_encoder.{e}.weight") in plain), None)
        vision = read_json(_tower(found, beside) / "config.json")
        vision = vision.get("vision_config", vision)
        kept = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
        config = {
            "model_type": KIND, "cross_attn_every_n_layers": _every(plain, found.path),
            "text_config": text | ({"vocab_size": rows} if rows else {}),
            "vision_config": {k: vision[k] for k in kept if k in vision},
        }  # fmt: skip
        return config | ({"qk_norm": True} if mosaic else {})


def _tower(found: Found, beside: Beside) -> Path:
    if beside.tower is None or not (beside.tower / "config.json").is_file():
        raise WeightsError("the checkpoint holds no tower", where=str(found.path),
                           fix="name the folder of its CLIP (transformers layout) with --tower")  # fmt: skip
    return beside.tower


def _every(names: Collection[str], path: Path) -> int:
    """The distance of layers with a block of cross-attention.

    Raises:
        WeightsError: there are none, or they do not lie evenly, from the last of the first so many on.
    """
    layers = sorted({int(m[1]) for name in names if (m := BLOCK.match(name))})
    if not layers:
        raise WeightsError("no blocks of cross-attention", expected="gated_cross_attn_layer", where=str(path))
    every = layers[0] + 1
    if layers != list(range(every - 1, layers[-1] + 1, every)):
        raise WeightsError(f"blocks of cross-attention at layers {layers[:6]}", expected="one in every so many",
                           where=str(path))  # fmt: skip
    return every
