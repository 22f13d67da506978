"""LLaMA-Adapter V2's parts: CLIP's mapped tokens, and prompts with visual queries beside biases of the LLM. Its
own code (llama_adapter_v2_multimodal7b) needs CUDA and OpenAI's package; transformers' parts stand in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sensorium.core.errors import ConfigError
from sensorium.core.sample import parse_sample
from sensorium.encoders.clip import ClipConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.recipes import TINY_FORMS
from sensorium.text.byte_tokenizer import byte_tokenizer

SHAPE: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
                         "image_size": 32, "patch_size": 8}  # fmt: skip


@torch.no_grad()
def test_tokens_are_clips_own_mapped_into_its_joint_space(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 99}
    torch.manual_seed(0)
    theirs = CLIPModel(CLIPConfig(projection_dim=12, text_config=text, vision_config=SHAPE)).eval()
    theirs.save_pretrained(tmp_path)
    config = ClipConfig(width=32, layers=2, heads=4, mlp_width=48, image_size_px=32, patch_size_px=8,
                        feature="cls_patch", norm_tokens=True, token_projection=12)  # fmt: skip
    ours = config.build(tmp_path).eval()
    pixels = torch.randn(3, 3, 32, 32)
    tokens = theirs.vision_model(pixels).last_hidden_state
    expected = theirs.visual_projection(theirs.vision_model.post_layernorm(tokens))
    got = ours.features(pixels)
    assert config.out_dim == got.dim == 12
    torch.testing.assert_close(got.values_ND, expected.flatten(0, 1), atol=1e-5, rtol=1e-5)
    # CLS is CLIP's own embedding of the picture.
    embeds: Any = theirs.get_image_features(pixels)
    embeds = getattr(embeds, "pooler_output", embeds)
    torch.testing.assert_close(got.values_ND.reshape(3, 17, 12)[:, 0], embeds, atol=1e-5, rtol=1e-5)


def test_tokens_without_the_norm_are_not_mapped() -> None:
    with pytest.raises(ConfigError, match="without the final norm"):
        ClipConfig.tiny().model_copy(update={"token_projection": 8}).build()


def reference(model: MultimodalModel, x: Tensor, added_KD: Tensor) -> Tensor:
    """llama.py, one sample: the prompt's own softmax, gated head by head, summed in front of wo and its bias."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    inner: Any = model.backbone.lm.model
    positions = torch.arange(x.shape[1])[None]
    cos, sin = inner.rotary_emb(x, positions)
    causal = torch.full((x.shape[1],) * 2, float("-inf")).triu(1)
    for layer in inner.layers:
        attention, h = layer.self_attn, layer.input_layernorm(x)
        width = attention.head_dim

        def heads(value: Tensor, width: int = width) -> Tensor:
            return value.unflatten(-1, (-1, width)).transpose(1, 2)

        q, k, v = (heads(part(h)) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        mixed = (q @ k.mT / width**0.5 + causal).softmax(-1) @ v
        if hasattr(attention, "adaption_prompt"):
            prompt = (attention.adaption_prompt.vectors + added_KD)[None]
            share = (q @ heads(attention.k_proj(prompt)).mT / width**0.5).softmax(-1)
            gate = attention.adaption_prompt.gate.tanh()[:, None, None]
            mixed = mixed + (gate * share) @ heads(attention.v_proj(prompt))
        x = x + F.linear(mixed.transpose(1, 2).flatten(2), attention.o_proj.weight, attention.o_proj.bias)
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return inner.norm(x)


@torch.no_grad()
def test_prompts_and_biases_together_are_the_authors_layers() -> None:
    recipe = TINY_FORMS.find("llama-adapter-v2")()
    torch.manual_seed(0)
    model = MultimodalModel(recipe.model).eval()
    for name, parameter in model.named_parameters():
        if name in model.tuned or name.endswith("adaption_prompt.gate"):
            parameter.normal_()
    assert any(name.endswith("o_proj.bias") for name in model.tuned)
    picture = torch.randint(0, 255, (20, 30, 3), dtype=torch.uint8).numpy()
    user = [{"type": "image", "image": Image.fromarray(picture)}, {"type": "text", "text": "What?"}]
    sample = parse_sample({"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": "A cat."}]})
    batch = collate([[Processor(model.config, byte_tokenizer()).encode(sample)]], 0)
    added_KD = model.features(batch.media)["image"].values_ND
    assert added_KD.shape == (3, 48)
    assert bool((batch.media_index_BT > 0).all()), "every token sees the picture, also those in front of it"
    expected = reference(model, model.backbone.embed(batch.input_ids_BT), added_KD)
    torch.testing.assert_close(model(batch).hidden_BTD, expected, atol=1e-5, rtol=1e-5)
    without = reference(model, model.backbone.embed(batch.input_ids_BT), torch.zeros_like(added_KD))
    assert not torch.allclose(expected, without, atol=1e-3)
