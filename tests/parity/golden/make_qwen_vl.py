"""Writes `qwen_vl.json.gz`: what Qwen-VL's own code computes in a tiny size.

The code is not part of this project. It is what the checkpoints bring along (huggingface.co/Qwen/Qwen-VL-Chat,
`modeling_qwen.py`, `visual.py`, `configuration_qwen.py`, `qwen_generation_utils.py`). Put the four files
in a folder and run, where torch, transformers, einops and requests are installed:

    python make_qwen_vl.py FOLDER

Weights are hashed counters (`noise`), so that the file holds none. Two stand-ins: torchvision's three transforms, and
`get_head_mask`, which later versions of transformers do not have.
"""

from __future__ import annotations

import gzip
import importlib
import json
import math
import os
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).parent
CONFIG = {
    "model_type": "qwen", "vocab_size": 288, "hidden_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "kv_channels": 64, "intermediate_size": 192, "seq_length": 2048,
    "max_position_embeddings": 8192, "layer_norm_epsilon": 1e-6, "rotary_emb_base": 10000,
    "no_bias": True, "use_dynamic_ntk": True, "use_logn_attn": True, "tie_word_embeddings": False,
    "visual": {"heads": 4, "image_size": 80, "image_start_id": 257, "layers": 2, "mlp_ratio": 1.6,
               "output_dim": 256, "patch_size": 4, "width": 40, "n_queries": 16},
}  # fmt: skip
SLOTS = CONFIG["visual"]["n_queries"]
START, END, PAD = 257, 258, 259
# Prompts: numbers are ids, "A" and "B" are pictures.
PROMPTS = [
    ["A", 7, 8, 9],
    [5, 200, "A", 17, 3],
    [1, 2, 3, 4, "B"],
    [30, "A", 31, "B", 32],
    [40, 41, 42],
]
LONG = {"seq_length": 16}
"""So short that prompts of some dozen tokens are long ones."""
LONG_PROMPTS = (12, 20, 40, 70)
"""Tokens; few are answered, so that none grows over a length at which the base changes: it does so anew for each where nothing is cached."""
SHAPES = {"A": (61, 40), "B": (30, 97)}
"""Width and height."""


def noise(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Numbers in [-1, 1) that any program can write down again: hashed counters."""
    x = (torch.arange(math.prod(shape), dtype=torch.int64) + 7919 * seed) * 2654435761 % 2**32
    x = (x ^ (x >> 15)) * 40503 % 2**32
    x = (x ^ (x >> 13)) * 69069 % 2**32
    return (x.double() / 2**31 - 1).reshape(shape).float()


def weights(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Every tensor of a state dict but the fixed positions, from names and shapes alone."""
    out: dict[str, torch.Tensor] = {}
    for index, name in enumerate(sorted(shapes)):
        shape = tuple(shapes[name])
        value = noise(shape, index)
        is_scale = name.endswith("weight") and len(shape) == 1
        gain = 1.7 / math.prod(shape[1:]) ** 0.5 if len(shape) > 1 else 0.3
        out[name] = 1 + 0.1 * value if is_scale else gain * value
    return out


def picture(name: str) -> Image.Image:
    """Stripes and a gradient."""
    width, height = SHAPES[name]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    red, green, blue = (x * 7 + y) % 256, (y * 5) % 256, (x * x // 3 + ord(name) * y) % 256
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def stand_ins() -> None:
    """torchvision's transforms of a PIL picture."""
    class Resize:
        def __init__(self, size: tuple[int, int], interpolation: Any) -> None:
            self.size = size

        def __call__(self, image: Image.Image) -> Image.Image:
            return image.resize((self.size[1], self.size[0]), Image.Resampling.BICUBIC)

    class ToTensor:
        def __call__(self, image: Image.Image) -> torch.Tensor:
            return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255

    class Normalize:
        def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
            self.mean, self.std = (torch.tensor(v)[:, None, None] for v in (mean, std))

        def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
            return (pixels - self.mean) / self.std

    class Compose:
        def __init__(self, steps: list[Any]) -> None:
            self.steps = steps

        def __call__(self, value: Any) -> Any:
            for step in self.steps:
                value = step(value)
            return value

    transforms = types.ModuleType("torchvision.transforms")
    transforms.__dict__.update(
        Resize=Resize, ToTensor=ToTensor, Normalize=Normalize, Compose=Compose,
        InterpolationMode=types.SimpleNamespace(BICUBIC="bicubic"),
    )  # fmt: skip
    outer = types.ModuleType("torchvision")
    outer.transforms = transforms  # type: ignore[attr-defined]
    sys.modules |= {"torchvision": outer, "torchvision.transforms": transforms}


def ids_of(prompt: list[int | str]) -> list[int]:
    """A picture's slots hold the bytes of its file's name, then pads."""
    ids: list[int] = []
    for part in prompt:
        if isinstance(part, int):
            ids.append(part)
        else:
            name = list(f"{part}.png".encode())
            ids += [START, *name, *[PAD] * (SLOTS - len(name)), END]
    return ids


def long_prompt(count: int) -> list[int]:
    return [(37 * i + count) % 250 for i in range(count)]


def long_cases(code: Any, config: Any, shapes: dict[str, list[int]]) -> list[dict[str, Any]]:
    """What is computed of prompts beyond `seq_length`."""
    config.use_cache = False
    model = code.QWenLMHeadModel(config).eval()
    model.load_state_dict(weights(shapes), strict=False)
    cases: list[dict[str, Any]] = []
    with torch.no_grad():
        for count in LONG_PROMPTS:
            ids, answer = long_prompt(count), list[int]()
            logits = model(torch.tensor([ids])).logits[0]
            for _ in range(3):
                answer.append(int(model(torch.tensor([ids + answer])).logits[0, -1].argmax()))
            cases.append({"tokens": count, "answer": answer, "logits": [[round(float(v), 6) for v in row[::29]] for row in logits]})
    return cases


def main(folder: Path) -> None:
    package = types.ModuleType("qwen_vl")
    package.__path__ = [str(folder)]  # type: ignore[attr-defined]
    sys.modules["qwen_vl"] = package
    stand_ins()
    importlib.import_module("qwen_vl.visual")
    # transformers would take it for the whole of torchvision.
    del sys.modules["torchvision"], sys.modules["torchvision.transforms"]
    code: Any = importlib.import_module("qwen_vl.modeling_qwen")
    config = importlib.import_module("qwen_vl.configuration_qwen").QWenConfig(**CONFIG, fp32=True)
    config.use_cache = False
    code.QWenModel.get_head_mask = lambda self, mask, layers: [None] * layers
    model = code.QWenLMHeadModel(config).eval()
    # Not a tensor of the state, and built with the model.
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("attn_pool.pos_embed")}
    shapes = {name: list(value.shape) for name, value in state.items()}
    model.load_state_dict(weights(shapes), strict=False)
    cases: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as place, torch.no_grad():
        os.chdir(place)
        for name in SHAPES:
            picture(name).save(f"{name}.png")
        seen = model.transformer.visual.encode([f"{name}.png" for name in SHAPES])
        for prompt in PROMPTS:
            ids = ids_of(prompt)
            logits = model(torch.tensor([ids])).logits[0]
            answer: list[int] = []
            for _ in range(8):
                nexts = model(torch.tensor([ids + answer])).logits[0, -1]
                answer.append(int(nexts.argmax()))
            cases.append({"prompt": prompt, "answer": answer,
                          "logits": [[round(float(v), 6) for v in row[::29]] for row in logits]})  # fmt: skip
        os.chdir(HERE)
    out = {
        "long": long_cases(code, importlib.import_module("qwen_vl.configuration_qwen").QWenConfig(**CONFIG | LONG, fp32=True), shapes),
        "config": CONFIG, "shapes": shapes, "cases": cases,
        "features": [[round(float(v), 6) for v in row[::17]] for row in seen.flatten(0, 1)],
    }  # fmt: skip
    (HERE / "qwen_vl.json.gz").write_bytes(gzip.compress((json.dumps(out) + "\n").encode(), 9, mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
