"""CogVLM: the visual expert against layers put together from transformers' Llama, and its authors'
checkpoint layout there and back. Their own code is remote and is not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm, apply_rotary_pos_emb

from sensorium.core.sample import parse_sample
from sensorium.encoders.eva2 import Eva2Config
from sensorium.fusion.visual_expert_detail import VisualExpertDetailConfig
from sensorium.interop.families.cogvlm import CogVlm
from sensorium.interop.hf import name_of, read_hf, same_tensors, write_hf
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.text.byte_tokenizer import byte_tokenizer

WIDTH, HEADS, INNER, LAYERS, EVA, PATCHES = 32, 4, 40, 2, 24, 9
CONFIG: dict[str, Any] = {
    "architectures": ["CogVLMForCausalLM"],
    "auto_map": {"AutoConfig": "configuration_cogvlm.CogVLMConfig",
                 "AutoModelForCausalLM": "modeling_cogvlm.CogVLMForCausalLM"},
    "vocab_size": 512, "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "hidden_act": "silu", "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    "tie_word_embeddings": False, "initializer_range": 0.02, "template_version": "chat",
    "vision_config": {"hidden_size": EVA, "num_hidden_layers": 2, "num_heads": 2, "intermediate_size": 48,
                      "image_size": 12, "patch_size": 4, "layer_norm_eps": 1e-6, "in_channels": 3,
                      "hidden_act": "gelu", "dropout_prob": 0.0, "num_positions": 1 + PATCHES},
}  # fmt: skip


def foreign() -> dict[str, Tensor]:
    """Random tensors by the names of modeling_cogvlm.py and visual.py."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (512, WIDTH),
                                          "model.norm.weight": (WIDTH,), "lm_head.weight": (512, WIDTH)}  # fmt: skip
    for n in range(LAYERS):
        for kind in ("vision", "language"):
            shapes[f"model.layers.{n}.self_attn.{kind}_expert_query_key_value.weight"] = (3 * WIDTH, WIDTH)
            shapes[f"model.layers.{n}.self_attn.{kind}_expert_dense.weight"] = (WIDTH, WIDTH)
            for part in ("gate_proj", "up_proj"):
                shapes[f"model.layers.{n}.mlp.{kind}_mlp.{part}.weight"] = (INNER, WIDTH)
            shapes[f"model.layers.{n}.mlp.{kind}_mlp.down_proj.weight"] = (WIDTH, INNER)
        shapes[f"model.layers.{n}.input_layernorm.weight"] = (WIDTH,)
        shapes[f"model.layers.{n}.post_attention_layernorm.weight"] = (WIDTH,)
    vision = "model.vision."
    shapes |= {f"{vision}boi": (1, 1, WIDTH), f"{vision}eoi": (1, 1, WIDTH)}
    shapes |= {f"{vision}patch_embedding.cls_embedding": (1, EVA),
               f"{vision}patch_embedding.position_embedding.weight": (1 + PATCHES, EVA),
               f"{vision}patch_embedding.proj.weight": (EVA, 3, 4, 4),
               f"{vision}patch_embedding.proj.bias": (EVA,)}  # fmt: skip
    for n in range(2):
        block = f"{vision}transformer.layers.{n}."
        for name, (rows, columns) in {"attention.query_key_value": (3 * EVA, EVA), "attention.dense": (EVA, EVA),
                                      "mlp.fc1": (48, EVA), "mlp.fc2": (EVA, 48)}.items():  # fmt: skip
            shapes |= {f"{block}{name}.weight": (rows, columns), f"{block}{name}.bias": (rows,)}
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes |= {f"{block}{name}.weight": (EVA,), f"{block}{name}.bias": (EVA,)}
    glu = f"{vision}linear_proj."
    shapes |= {f"{glu}linear_proj.weight": (WIDTH, EVA), f"{glu}norm1.weight": (WIDTH,),
               f"{glu}norm1.bias": (WIDTH,), f"{glu}gate_proj.weight": (INNER, WIDTH),
               f"{glu}dense_h_to_4h.weight": (INNER, WIDTH), f"{glu}dense_4h_to_h.weight": (WIDTH, INNER)}  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "cogvlm"
    home.mkdir()
    (home / "config.json").write_text(json.dumps(CONFIG))
    save_file(foreign(), home / "model.safetensors")
    return home


def eva(weights: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """visual.py: norms behind attention and feed-forward, CLS dropped, adapter, two ends."""
    def at(name: str) -> Tensor:
        return weights[f"model.vision.{name}"]

    x = F.conv2d(pixels, at("patch_embedding.proj.weight"), at("patch_embedding.proj.bias"), stride=4)
    x = torch.cat([at("patch_embedding.cls_embedding").expand(len(x), 1, -1), x.flatten(2).mT], 1)
    x = x + at("patch_embedding.position_embedding.weight")
    for n in range(2):
        def lin(name: str, value: Tensor, n: int = n) -> Tensor:
            return F.linear(value, at(f"transformer.layers.{n}.{name}.weight"), at(f"transformer.layers.{n}.{name}.bias"))

        def norm(name: str, value: Tensor, n: int = n) -> Tensor:
            return F.layer_norm(value, (EVA,), at(f"transformer.layers.{n}.{name}.weight"),
                                at(f"transformer.layers.{n}.{name}.bias"), 1e-6)  # fmt: skip

        q, k, v = lin("attention.query_key_value", x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.mT / (EVA // 2) ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + norm("input_layernorm", lin("attention.dense", mixed))
        x = x + norm("post_attention_layernorm", lin("mlp.fc2", F.gelu(lin("mlp.fc1", x))))
    x = F.linear(x[:, 1:], at("linear_proj.linear_proj.weight"))
    x = F.gelu(F.layer_norm(x, (WIDTH,), at("linear_proj.norm1.weight"), at("linear_proj.norm1.bias")))
    x = F.silu(F.linear(x, at("linear_proj.gate_proj.weight"))) * F.linear(x, at("linear_proj.dense_h_to_4h.weight"))
    x = F.linear(x, at("linear_proj.dense_4h_to_h.weight"))
    return torch.cat([at("boi").expand(len(x), 1, -1), x, at("eoi").expand(len(x), 1, -1)], 1)


def decode(weights: dict[str, Tensor], embeds: Tensor, image: list[bool], cross: Any = None) -> Tensor:
    """modeling_cogvlm.py on one sample, in transformers' own Llama parts: rotary positions, norms and
    feed-forward. `image` is True at boi, picture and eoi, as token_type_ids are. `cross` is what CogAgent
    adds behind the attention of each layer."""
    llama = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in CONFIG.items() if isinstance(v, int | float | str)})).eval()
    inner = llama.model
    expert = torch.tensor([a and b for a, b in zip(image, [*image[1:], False], strict=True)])
    # boi and eoi count as text; of what is left of a picture only the first token moves on.
    ends = [a and (i == 0 or not image[i - 1] or i + 1 == len(image) or not image[i + 1]) for i, a in enumerate(image)]
    inside = [a and not b for a, b in zip(image, ends, strict=True)]
    moves = [not a or not inside[i - 1] for i, a in enumerate(inside)]
    positions = torch.tensor(moves).cumsum(0) - 1
    cos, sin = inner.rotary_emb(embeds, positions[None])
    x = embeds
    causal = torch.full((len(image), len(image)), float("-inf")).triu(1)

    def by_type(n: int, name: str, value: Tensor) -> Tensor:
        at = f"model.layers.{n}.self_attn."
        whole = F.linear(value, weights[f"{at}language_expert_{name}.weight"])
        whole[:, expert] = F.linear(value[:, expert], weights[f"{at}vision_expert_{name}.weight"])
        return whole

    for n, layer in enumerate(inner.layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            getattr(layer, norm).weight.copy_(weights[f"model.layers.{n}.{norm}.weight"])
        split = by_type(n, "query_key_value", layer.input_layernorm(x)).split(WIDTH, -1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in split)
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        scores = q @ k.mT / (WIDTH // HEADS) ** 0.5 + causal
        x = x + by_type(n, "dense", (scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        x = x if cross is None else x + cross(n, x)
        h = layer.post_attention_layernorm(x)
        out = torch.empty_like(h)
        for kind, mask in (("vision", expert), ("language", ~expert)):
            mlp = LlamaMLP(llama.config)
            mlp.load_state_dict({f"{p}.weight": weights[f"model.layers.{n}.mlp.{kind}_mlp.{p}.weight"]
                                 for p in ("gate_proj", "up_proj", "down_proj")})  # fmt: skip
            out[:, mask] = mlp(h[:, mask])
        x = x + out
    inner.norm.weight.copy_(weights["model.norm.weight"])
    return F.linear(inner.norm(x), weights["lm_head.weight"])


def conversations() -> list[Any]:
    rng = np.random.default_rng(0)
    made: list[Any] = []
    for number, size in enumerate([(12, 12), (40, 9), (7, 30)]):
        picture = Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8))
        user = [{"type": "text", "text": f"what is {number}"}, {"type": "image", "image": picture}]
        made.append(parse_sample({"messages": [{"role": "user", "content": user},
                                               {"role": "assistant", "content": "a cat " * (1 + number)}]}))  # fmt: skip
    made.append(parse_sample({"messages": [{"role": "user", "content": "no picture"},
                                           {"role": "assistant", "content": "so"}]}))  # fmt: skip
    return made


@torch.no_grad()
def test_logits_are_those_of_the_layers_put_together(folder: Path) -> None:
    model, weights = read_hf(folder), foreign()
    processor = Processor(model.config, byte_tokenizer())
    examples = [processor.encode(sample) for sample in conversations()]
    packed = model.logits(model(collate([examples[:2], examples[2:]], 0)).hidden_BTD)
    places = [(0, 0), (0, len(examples[0])), (1, 0), (1, len(examples[2]))]
    for example, (row, start) in zip(examples, places, strict=True):
        alone = collate([[example]], 0)
        image = [False] * len(example)
        embeds = F.embedding(alone.input_ids_BT, weights["model.embed_tokens.weight"]).clone()
        if example.media:
            slots = example.slots["image"]
            # boi, the picture's own tokens, eoi, text; the tokenizer of bytes has no begin of text.
            assert slots == list(range(PATCHES + 2))
            assert alone.positions_BT[0, : PATCHES + 4].tolist() == [0, *[1] * PATCHES, 2, 3, 4]
            pixels = model.encoders["image"].normalise(example.media["image"].pixels_NCHW)
            embeds[0, slots] = eva(weights, pixels)[0]
            image = [place in slots for place in range(len(example))]
        expected = decode(weights, embeds, image)
        got = model.logits(model(alone).hidden_BTD)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(packed[row, start : start + len(example)], got[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_copies_of_the_llms_weights_change_nothing_but_positions(folder: Path) -> None:
    """A model is born with experts equal to the LLM's: plain Llama at the same positions."""
    torch.manual_seed(1)
    model = MultimodalModel(CogVlm().to_ours(CONFIG)).eval()
    processor = Processor(model.config, byte_tokenizer())
    batch = collate([[processor.encode(conversations()[0])]], 0)
    embeds = model.fusion.enter(model.backbone.embed(batch.input_ids_BT), model.features(batch.media), batch.slots)
    theirs: Any = model.backbone.lm
    expected = theirs(inputs_embeds=embeds, position_ids=batch.positions_BT,
                      attention_mask=torch.ones_like(batch.positions_BT)).logits  # fmt: skip
    torch.testing.assert_close(model.logits(model(batch).hidden_BTD), expected, atol=1e-5, rtol=1e-5)
    for expert in model.fusion.parameters():
        expert.mul_(1.5)
    assert not torch.allclose(model.logits(model(batch).hidden_BTD), expected, atol=1e-3)


@torch.no_grad()
def test_cogagents_finer_look(folder: Path) -> None:
    """modeling_cogagent.py, CrossAttention: norm, query, key_value and dense, through narrow heads."""
    weights, small = foreign(), read_hf(folder)
    detail = Eva2Config.large(16, width=16, layers=1, heads=2, mlp_width=24, patch_size_px=4, rotary_side=2,
                              positions_behind=True)  # fmt: skip
    lane = small.config.lanes["image"].model_copy(update={"detail": detail})
    fusion = VisualExpertDetailConfig(heads=2, head_dim=6)
    model = MultimodalModel(small.config.model_copy(update={"lanes": {"image": lane}, "fusion": fusion})).eval()
    model.load_state_dict(small.state_dict(), strict=False)
    model.encoders["image_detail"].tower.behind_LD.normal_()
    example = Processor(model.config, byte_tokenizer()).encode(conversations()[1])
    batch = collate([[example]], 0)
    features = model.features(batch.media)
    seen = features["image_detail"].values_ND[None]
    assert seen.shape == (1, 16, 16)

    def cross(n: int, x: Tensor) -> Tensor:
        block: Any = model.fusion.cross[n]
        norm = LlamaRMSNorm(WIDTH, eps=1e-5)
        norm.weight.copy_(block.norm.weight.uniform_(0.5, 1.5))
        key_value = torch.cat([block.attention.k.weight, block.attention.v.weight])
        q = F.linear(norm(x), block.attention.q.weight).unflatten(-1, (2, -1)).transpose(1, 2)
        k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in F.linear(seen, key_value).split(12, -1))
        return F.linear(((q @ k.mT / 6**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2), block.attention.out.weight)

    embeds = model.fusion.enter(model.backbone.embed(batch.input_ids_BT), features, batch.slots)
    image = [place in example.slots["image"] for place in range(len(example))]
    expected = decode(weights, embeds, image, cross)
    torch.testing.assert_close(model.logits(model(batch).hidden_BTD), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(expected, decode(weights, embeds, image), atol=1e-2)


def test_every_tensor_goes_there_and_back(folder: Path, tmp_path: Path) -> None:
    assert name_of(CONFIG) == "cogvlm"
    model, out = read_hf(folder), tmp_path / "back"
    out.mkdir()
    written = CogVlm().to_theirs(model.config)
    assert written == CONFIG
    write_hf(model, written, CogVlm(), out)
    assert same_tensors(folder, out)


def test_older_files_hold_speeds_of_rotation_too(folder: Path) -> None:
    """They follow from the config."""
    more = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(4) for n in range(LAYERS)}
    save_file(foreign() | more, folder / "model.safetensors")
    assert read_hf(folder).config == CogVlm().to_ours(CONFIG)
