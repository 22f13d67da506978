"""The sizes of nanoVLM's two recipes, data that both trainers read as the same tokens, and the map between their weights.

Pictures have the tower's size, so that nobody resizes them; each sample begins with a word that nanoVLM needs in front of a picture.
"""

from __future__ import annotations

import io
import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from shapes import VOCABULARY, words
from torch import Tensor

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.encoders.siglip import SiglipConfig
from sensorium.input_projectors.pixel_shuffle import PixelShuffleConfig
from sensorium.model.config import LaneConfig, ModelConfig

FRONT = "w49151"
"""Of each picture: nanoVLM's `global_image_token`, which must not begin another word."""
PICTURES, OURS = 256, 1024
"""Different pictures, and samples of our epoch."""


@dataclass(frozen=True, slots=True)
class NanoShape:
    """One of nanoVLM's recipes."""

    name: str
    picture_px: int
    factor: int
    vision: tuple[int, int, int]
    """Width, layers, heads."""
    text: tuple[int, int, int, int, int]
    """Width, inner width, layers, heads, key heads."""
    row_tokens: int = 4096
    samples: int = 16_000
    mean_answer: int = 160
    """Words: nanoVLM reckons with 198 tokens a sample beside the picture's."""

    @property
    def picture_tokens(self) -> int:
        return (self.picture_px // 16 // self.factor) ** 2


NANO = {shape.name: shape for shape in (
    NanoShape("nanovlm-222M", 224, 2, (768, 12, 12), (576, 1536, 30, 9, 3)),
    NanoShape("nanovlm-460M", 512, 4, (768, 12, 12), (960, 2560, 32, 15, 5)),
    NanoShape("nanovlm-tiny", 64, 2, (32, 2, 2), (48, 96, 3, 3, 1), row_tokens=512, samples=600, mean_answer=40),
)}  # fmt: skip


def model_config(shape: NanoShape) -> ModelConfig:
    """Ours of the same sizes."""
    width, layers, heads = shape.vision
    hidden, inner, blocks, queries, keys = shape.text
    encoder = SiglipConfig(width=width, layers=layers, heads=heads, mlp_width=4 * width, patch_size_px=16, image_size_px=shape.picture_px, pooling_head=False,
                           mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # fmt: skip
    arch: dict[str, Any] = {
        "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": blocks,
        "num_attention_heads": queries, "num_key_value_heads": keys, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0}, "tie_word_embeddings": True,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    lane = LaneConfig(encoder=encoder, projector=PixelShuffleConfig(factor=shape.factor))
    return ModelConfig(lanes={"image": lane}, backbone=CausalLMConfig(arch=arch, tokenizer="pretrained"), template="caption")


def our_weights(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """nanoVLM's tensors by our names; its projector has no bias, ours begins at zero."""
    found: dict[str, Tensor] = {}
    names = {
        "attn.out_proj": "self_attn.out_proj", "ln1": "layer_norm1", "ln2": "layer_norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
        "attn.q_proj": "self_attn.q_proj", "attn.k_proj": "self_attn.k_proj", "attn.v_proj": "self_attn.v_proj",
        "mlp.gate_proj": "mlp.gate_proj", "mlp.up_proj": "mlp.up_proj", "mlp.down_proj": "mlp.down_proj",
        "norm1": "input_layernorm", "norm2": "post_attention_layernorm",
    }  # fmt: skip
    for name, value in theirs.items():
        part, _, rest = name.partition(".")
        if part == "MP":
            found["projectors.image.layers.0.weight"] = value
            found["projectors.image.layers.0.bias"] = value.new_zeros(len(value))
        elif part == "decoder" and rest.startswith("blocks."):
            _, number, inner, *tail = rest.split(".", 3)
            inner = ".".join([inner, *tail]).removesuffix(".weight")
            inner = "self_attn.o_proj" if inner == "attn.out_proj" else names[inner]
            found[f"backbone.lm.model.layers.{number}.{inner}.weight"] = value
        elif part == "decoder" and not rest.startswith("rotary"):
            place = {"token_embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight", "head.weight": "lm_head.weight"}[rest]
            found[f"backbone.lm.{place}"] = value
        elif part == "vision_encoder":
            found |= _tower(rest, value, names)
    return found


def _tower(name: str, value: Tensor, names: dict[str, str]) -> dict[str, Tensor]:
    top = "encoders.image.tower."
    if name.startswith("blocks."):
        _, number, rest = name.split(".", 2)
        inner, _, kind = rest.rpartition(".")
        here = f"{top}encoder.layers.{number}."
        if inner == "attn.qkv_proj":
            return {f"{here}self_attn.{x}_proj.{kind}": part for x, part in zip("qkv", value.chunk(3), strict=True)}
        return {f"{here}{names[inner]}.{kind}": value}
    if name == "patch_embedding.position_embedding":
        return {f"{top}embeddings.position_embedding.weight": value[0]}
    return {name.replace("patch_embedding.conv", f"{top}embeddings.patch_embedding").replace("layer_norm", f"{top}post_layernorm"): value}


def write_data(shape: NanoShape, folder: Path) -> None:
    """Our samples (`samples.jsonl` and pictures), and nanoVLM's (`theirs/train.parquet`, where ours come first)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw, pixels = random.Random(1), np.random.default_rng(1)
    (folder / "theirs").mkdir(parents=True, exist_ok=True)
    pictures: list[bytes] = []
    for i in range(PICTURES):
        small = Image.fromarray(pixels.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        file = io.BytesIO()
        small.resize((shape.picture_px, shape.picture_px)).save(file, "JPEG", quality=90)
        pictures.append(file.getvalue())
        (folder / f"{i}.jpg").write_bytes(pictures[-1])
    texts = [(words(draw, draw.randint(4, 24)),
              words(draw, min(4 * shape.mean_answer, max(2, round(math.exp(draw.gauss(math.log(shape.mean_answer) - 0.32, 0.8)))))))
             for _ in range(shape.samples)]  # fmt: skip
    lines = [json.dumps({"id": str(i), "messages": [
        {"role": "user", "content": [{"type": "text", "text": FRONT}, {"type": "image", "image": f"{i % PICTURES}.jpg"}, {"type": "text", "text": q}]},
        {"role": "assistant", "content": a}]}) for i, (q, a) in enumerate(texts[:OURS])]  # fmt: skip
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({
        "images": pa.array([[{"bytes": pictures[i % PICTURES], "path": None}] for i in range(shape.samples)], pa.list_(image)),
        "texts": pa.array([[{"user": q, "assistant": a}] for q, a in texts]),
    })  # fmt: skip
    told = {"info": {"features": {
        "images": {"feature": {"_type": "Image"}, "_type": "List"},
        "texts": {"feature": {"user": {"dtype": "string", "_type": "Value"}, "assistant": {"dtype": "string", "_type": "Value"}}, "_type": "List"}}}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(told)}), folder / "theirs" / "train.parquet")
