"""SEED-LLaMA-14B (Ge et al., arXiv:2310.01218): the 8B's codes and stages, with Llama 2's chat model of 13B and its turns in brackets.

Source: github.com/AILab-CVC/SEED, README.md, scripts/seed_llama_inference_14B.py and gradio_demo/conversation.py; the training files are the 8B's.
"""

from __future__ import annotations

from sensorium.recipes.emu_parts import with_tokens
from sensorium.recipes.published_parts import llama
from sensorium.recipes.seed_llama import CODES, MARKS, seed_llama
from sensorium.training.config import Recipe


def seed_llama_14b() -> Recipe:
    """The 8B's stages."""
    small = seed_llama()
    assert small.published is not None
    llm = llama("13b", "meta-llama/Llama-2-13b-chat-hf", vocab_size=32000 + CODES.codes, max_position_embeddings=4096, rms_norm_eps=1e-5)
    differs = (*small.published.differs, "rates, steps and sets are those of the 8B's files; the 14B's are not published")
    return small.model_copy(
        update={
            "name": "seed-llama-14b",
            "description": "I+T→T+I: EVA-CLIP-g, causal Q-Former and 8,192 codes, Llama-2-13B-chat that writes 32 of them, unCLIP",
            "published": small.published.model_copy(update={"differs": differs}),
            "model": small.model.model_copy(update={"backbone": with_tokens(llm, *MARKS), "template": "seed_llama_14b"}),
        }
    )
