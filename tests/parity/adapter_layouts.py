"""LLaMA-Adapter's tensors by the names and in the shapes of its repository, and what its code computes from them.

Both are spelt out here from github.com/OpenGVLab/LLaMA-Adapter (alpaca_finetuning_v1/extract_adapter_from_checkpoint.py
and llama/model.py; llama_adapter_v2_multimodal7b/util/extract_adapter_from_checkpoint.py and llama/), not taken from our map.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from original_layouts import save_llm, spread
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Sizes:
    """Of LLaMA, the prompts, the visual blocks and CLIP; tiny."""

    width: int = 32
    layers: int = 3
    heads: int = 4
    inner: int = 48
    words: int = 300
    length: int = 4
    prompts: int = 2
    visual: int = 32
    blocks: int = 2
    joint: int = 24


TINY = Sizes()
SEVEN_B = Sizes(width=4096, layers=32, heads=32, inner=11008, words=32000, length=10, prompts=31, visual=768, blocks=8, joint=768)


def first_version(size: Sizes, *, per_head: bool = True) -> dict[str, Tensor]:
    """`llama_adapter_len10_layer30_release.pth`: gates of all layers and the prompts."""
    made = {f"layers.{i}.attention.gate": torch.randn((1, size.heads, 1, 1) if per_head else (1,)) for i in range(size.layers)}
    return made | {"adapter_query.weight": torch.randn(size.length * size.prompts, size.width)}


def bias_7b(size: Sizes) -> dict[str, Tensor]:
    """`BIAS-7B.pth`: visual path, prompts, gates, new biases and norms."""
    shapes: dict[str, tuple[int, ...]] = {}
    w, v, d = size.width, size.visual, size.inner
    for i in range(size.blocks):
        linear = {"attn.qkv": (3 * v, v), "attn.proj": (v, v), "mlp.fc1": (4 * v, v), "mlp.fc2": (v, 4 * v)}
        shapes |= {f"visual_blocks.{i}.{n}.weight": s for n, s in linear.items()}
        shapes |= {f"visual_blocks.{i}.{n}.bias": s[:1] for n, s in linear.items()}
        shapes |= {f"visual_blocks.{i}.{n}.{kind}": (v,) for n in ("norm1", "norm2") for kind in ("weight", "bias")}
    for i in range(size.layers):
        own = {"attention.gate": (1, size.heads, 1, 1), "attention.wq.bias": (w,), "attention.wo.bias": (w,),
               "feed_forward.w1.bias": (d,), "feed_forward.w2.bias": (w,), "feed_forward.w3.bias": (d,),
               "attention_norm.weight": (w,), "ffn_norm.weight": (w,)}  # fmt: skip
        shapes |= {f"llama.layers.{i}.{n}": s for n, s in own.items()}
    shapes |= {
        "clip_proj_norm.weight": (v,), "clip_proj_norm.bias": (v,), "visual_proj_norm.weight": (w,), "visual_proj_norm.bias": (w,),
        "visual_proj.weight": (w, v), "visual_proj.bias": (w,), "clip_proj.weight": (v, size.joint), "clip_proj.bias": (v,),
        "llama.norm.weight": (w,), "visual_query.weight": (size.length, v), "adapter_query.weight": (size.length * size.prompts, w),
    }  # fmt: skip
    return {n: torch.randn(s) * (0.15 if len(s) == 2 else 0.5) for n, s in shapes.items()}


def llama_in_pairs(model: Any, heads: int) -> dict[str, Tensor]:
    """transformers' LLaMA by Meta's names: number 2i + j of a head's rows is there what is j * half + i here."""

    def paired(weight: Tensor) -> Tensor:
        half = len(weight) // heads // 2
        return torch.stack([weight[h * 2 * half + j * half + i] for h in range(heads) for i in range(half) for j in range(2)])

    state: dict[str, Tensor] = model.state_dict()
    made = {"llama.tok_embeddings.weight": state["model.embed_tokens.weight"], "llama.output.weight": state["lm_head.weight"],
            "llama.norm.weight": state["model.norm.weight"]}  # fmt: skip
    names = {"attention.wv": "self_attn.v_proj", "attention.wo": "self_attn.o_proj", "feed_forward.w1": "mlp.gate_proj",
             "feed_forward.w2": "mlp.down_proj", "feed_forward.w3": "mlp.up_proj", "attention_norm": "input_layernorm",
             "ffn_norm": "post_attention_layernorm"}  # fmt: skip
    for i in range(len(model.model.layers)):
        made |= {f"llama.layers.{i}.{a}.weight": state[f"model.layers.{i}.{b}.weight"] for a, b in names.items()}
        made |= {f"llama.layers.{i}.attention.w{p}.weight": paired(state[f"model.layers.{i}.self_attn.{p}_proj.weight"]) for p in "qk"}
    return {k: v.clone() for k, v in made.items()}


def openai_clip(model: Any) -> dict[str, Tensor]:
    """transformers' CLIP by OpenAI's names, with what the authors' model keeps of the half for texts."""
    state = {k.removeprefix("vision_model."): v for k, v in model.state_dict().items()}
    eye = {"class_embedding": state["embeddings.class_embedding"], "conv1.weight": state["embeddings.patch_embedding.weight"],
           "positional_embedding": state["embeddings.position_embedding.weight"], "proj": state["visual_projection.weight"].T}  # fmt: skip
    for kind in ("weight", "bias"):
        eye |= {f"ln_pre.{kind}": state[f"pre_layrnorm.{kind}"], f"ln_post.{kind}": state[f"post_layernorm.{kind}"]}
        for i in range(model.config.vision_config.num_hidden_layers):
            a, b = f"transformer.resblocks.{i}.", f"encoder.layers.{i}."
            rows = [state[f"{b}self_attn.{p}_proj.{kind}"] for p in "qkv"]
            eye |= {f"{a}attn.in_proj_{kind}": torch.cat(rows), f"{a}attn.out_proj.{kind}": state[f"{b}self_attn.out_proj.{kind}"],
                    f"{a}ln_1.{kind}": state[f"{b}layer_norm1.{kind}"], f"{a}ln_2.{kind}": state[f"{b}layer_norm2.{kind}"],
                    f"{a}mlp.c_fc.{kind}": state[f"{b}mlp.fc1.{kind}"], f"{a}mlp.c_proj.{kind}": state[f"{b}mlp.fc2.{kind}"]}  # fmt: skip
    rest = {"positional_embedding": torch.randn(7, 16), "text_projection": torch.randn(16, 24), "logit_scale": torch.tensor(2.0),
            "token_embedding.weight": torch.randn(9, 16), "ln_final.weight": torch.randn(16), "ln_final.bias": torch.randn(16)}  # fmt: skip
    return {f"clip.visual.{k}": v.clone().contiguous() for k, v in eye.items()} | {f"clip.{k}": v for k, v in rest.items()}


def tiny_llama(folder: Path, size: Sizes = TINY) -> Any:
    """A LLaMA of transformers, saved with a tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=size.words, hidden_size=size.width, intermediate_size=size.inner, num_hidden_layers=size.layers,
        num_attention_heads=size.heads, tie_word_embeddings=False, rms_norm_eps=1e-5,
    )  # fmt: skip
    model = spread(LlamaForCausalLM(config))
    save_llm(model, folder)
    return model


def tiny_clip(folder: Path, size: Sizes = TINY) -> Any:
    """A CLIP of transformers, saved; one head of 64, as OpenAI's code counts heads."""
    from transformers import CLIPConfig, CLIPModel

    vision = {"hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 1,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 99}
    model = spread(CLIPModel(CLIPConfig(projection_dim=size.joint, text_config=text, vision_config=vision)))
    model.save_pretrained(folder)
    return model


def picture_queries(w: dict[str, Tensor], size: Sizes, tokens_MLD: Tensor) -> Tensor:
    """What the visual path makes of CLIP's mapped tokens."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    seen = norm(linear(tokens_MLD, "clip_proj"), "clip_proj_norm")
    x = torch.cat([w["visual_query.weight"].expand(len(seen), -1, -1), seen], dim=1)
    for i in range(size.blocks):
        at = f"visual_blocks.{i}."
        qkv = linear(norm(x, f"{at}norm1"), f"{at}attn.qkv").unflatten(-1, (3, 16, -1))
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        mixed = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
        x = x + linear(mixed.transpose(1, 2).flatten(2), f"{at}attn.proj")
        x = x + linear(F.gelu(linear(norm(x, f"{at}norm2"), f"{at}mlp.fc1")), f"{at}mlp.fc2")
    return norm(linear(x[:, : size.length], "visual_proj"), "visual_proj_norm")


def meta_logits(w: dict[str, Tensor], size: Sizes, ids_T: Tensor, seen_KD: Tensor | None = None) -> Tensor:
    """LLaMA in Meta's form over one row: rotary pairs as complex numbers, prompts behind a gate."""
    half = size.width // size.heads // 2
    angles = torch.outer(torch.arange(len(ids_T)).float(), 10000.0 ** (-torch.arange(half).float() / half))
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]
    hidden = torch.full((len(ids_T),) * 2, float("-inf")).triu(1)

    def norm(x: Tensor, name: str) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * w[f"llama.{name}.weight"]

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"llama.{name}.weight"], w.get(f"llama.{name}.bias"))

    def turned(x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.unflatten(-1, (size.heads, half, 2)).contiguous())
        return torch.view_as_real(pairs * turn).flatten(2).transpose(0, 1)

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (size.heads, -1)).transpose(0, 1)

    x = w["llama.tok_embeddings.weight"][ids_T]
    prompts = w["adapter_query.weight"].reshape(size.prompts, size.length, -1)
    for i in range(size.layers):
        at = f"layers.{i}."
        h = norm(x, f"{at}attention_norm")
        q, k, v = turned(linear(h, f"{at}attention.wq")), turned(linear(h, f"{at}attention.wk")), heads(linear(h, f"{at}attention.wv"))
        mixed = (q @ k.mT / (2 * half) ** 0.5 + hidden).softmax(-1) @ v
        if i >= size.layers - size.prompts:
            prompt = prompts[i - size.layers + size.prompts]
            prompt = prompt if seen_KD is None else prompt + seen_KD
            gate = w[f"llama.{at}attention.gate"]
            gate = gate[0].tanh() if gate.ndim == 4 else gate
            share = (q @ heads(linear(prompt, f"{at}attention.wk")).mT / (2 * half) ** 0.5).softmax(-1)
            mixed = mixed + gate * share @ heads(linear(prompt, f"{at}attention.wv"))
        x = x + linear(mixed.transpose(0, 1).flatten(1), f"{at}attention.wo")
        h = norm(x, f"{at}ffn_norm")
        x = x + linear(F.silu(linear(h, f"{at}feed_forward.w1")) * linear(h, f"{at}feed_forward.w3"), f"{at}feed_forward.w2")
    return linear(norm(x, "norm"), "output")
