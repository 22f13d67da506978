"""LLaMA-Adapter: no class of transformers computes it, so its parts are counted against several."""

from __future__ import annotations

import pytest
import torch
from oracles import CLIP_L

from sensorium.model.config import AdaptionPromptConfig, ModelConfig
from sensorium.model.learning import count_parameters
from sensorium.recipes import RECIPES
from sensorium.recipes.sizes import on_meta


# peft asks transformers by a name that is going to change.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_parts_are_as_large_as_the_originals() -> None:
    import peft
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

    model = RECIPES.find("llama-adapter")().model
    adapter = model.adapter
    assert isinstance(adapter, AdaptionPromptConfig)
    with torch.device("meta"):
        tower = CLIPVisionModel(CLIPVisionConfig(**CLIP_L, image_size=224))
        lm = LlamaForCausalLM(LlamaConfig())
        backbone = sum(p.numel() for p in lm.parameters())
        peft.get_peft_model(lm, peft.AdaptionPromptConfig(
            adapter_len=adapter.length, adapter_layers=adapter.layers, task_type="CAUSAL_LM"))  # fmt: skip
    prompts = sum(p.numel() for name, p in lm.named_parameters() if name.endswith("adaption_prompt"))
    gates = adapter.layers * lm.config.num_attention_heads
    mine = on_meta(model)
    assert all(p.is_meta for p in mine.parameters()), "memory was taken"
    sizes = {part: size for part, size, _ in count_parameters(mine)}
    projection = sizes.pop("projectors.image")
    assert sizes == {
        "encoders.image": sum(p.numel() for p in tower.parameters()),
        "backbone": backbone,
        "adapter": prompts + gates,
    }
    # The paper: 1.2M parameters, and a projection of 0.6M.
    assert round(sizes["adapter"] / 1e6, 1) == 1.2
    assert round(projection / 1e6, 1) == 0.6


def test_v2_is_as_large_as_the_authors_code() -> None:
    """Counted by hand from llama_adapter.py and llama.py (w_bias) of llama_adapter_v2_multimodal7b."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    model: ModelConfig = RECIPES.find("llama-adapter-v2")().model
    with torch.device("meta"):
        tower = CLIPVisionModelWithProjection(CLIPVisionConfig(**CLIP_L, image_size=224, projection_dim=768))
    width, wide, inner, layers = 768, 4096, 11008, 32
    block = 4 * width + 4 * (width * width + width) + 2 * 4 * width * width + 5 * width
    visual = width * width + 3 * width + 10 * width + 8 * block + width * wide + 3 * wide
    sizes = {part: size for part, size, _ in count_parameters(on_meta(model))}
    lm = {part: size for part, size, _ in count_parameters(on_meta(RECIPES.find("llama-adapter")().model))}["backbone"]
    norms = (2 * layers + 1) * wide
    assert sizes == {
        "encoders.image": sum(p.numel() for p in tower.parameters()),
        "projectors.image": visual,
        "backbone": lm - norms,
        # Theirs has a gate in the first layer too, which has no prompt.
        "adapter": 31 * (10 * wide + 32),
        "tuning": norms + layers * (3 * wide + 2 * inner),
    }
