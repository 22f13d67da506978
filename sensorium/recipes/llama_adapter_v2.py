"""LLaMA-Adapter V2 (Gao et al., arXiv:2304.15010): ten queries see the picture and are added to the prompts of 31
layers; then norms and new biases learn to follow instructions.

Source: github.com/OpenGVLab/LLaMA-Adapter, llama_adapter_v2_multimodal7b (its model and exps/*.sh)."""

from __future__ import annotations

from typing import Any

from sensorium.core.weights import HubSource
from sensorium.encoders.clip import ClipConfig
from sensorium.input_projectors.query_vit import QueryVitConfig
from sensorium.model.config import AdaptionPromptConfig, BiasNormConfig
from sensorium.model.learning import Learn
from sensorium.recipes.llama_adapter import BATCH, llama_adapter
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig

SCALE = BATCH / 256
PAIRS = ("cc3m", "coco")
TALK = ("alpaca_gpt4", "alpaca_gpt4_zh", "llava_instruct_150k", "alpaca_zh_51k")


def llama_adapter_v2() -> Recipe:
    """Visual path, prompts and gates on captions; then norms and biases on instructions."""
    base = llama_adapter()
    (one,) = base.stages
    clip = ClipConfig(image_size_px=224, feature="cls_patch", norm_tokens=True, token_projection=768,
                      weights=(HubSource(id="openai/clip-vit-large-patch14"),))  # fmt: skip
    lane = base.model.lanes["image"].model_copy(update={"encoder": clip, "projector": QueryVitConfig()})
    adapter = AdaptionPromptConfig(layers=31, length=10, gate="heads", tuning=BiasNormConfig())
    model = base.model.model_copy(update={"lanes": {"image": lane}, "adapter": adapter})
    return Recipe(
        name="llama-adapter-v2", model=model,
        description="I+T→T: CLIP-L's tokens read by ten queries, prompts of LLaMA-7B, its norms and new biases",
        published=Published(paper="2304.15010", second="parts of transformers (test_llama_adapter_v2.py)", differs=(
            "an epoch of the first stage's script is a 50th of the pairs: 150 of them are three passes",
            "the sets of pairs are examples in its documentation; rows hold its prompt, `Generate caption of this image`",
            "rows without a picture meet the prompts alone (the original: with a picture of zeros)",
            "63.1M parameters learn, as in the authors' code for pictures; the paper's abstract says 14M",
            "pictures are cropped in the middle, not at random; gates do not decay, gradients are clipped at a norm of 1")),
        stages=(
            _stage(one, "pretrain", PAIRS, ("projectors.image", "adapter"), 1e-4 * SCALE, epochs=3, max_length=96,
                   schedule=ScheduleConfig(warmup_ratio=1 / 30, final_ratio=0.0)),
            _stage(one, "instruct", TALK, ("tuning",), 1e-3 * SCALE, epochs=4,
                   schedule=ScheduleConfig(warmup_ratio=0.25, final_ratio=0.0)),
        ),
    )  # fmt: skip


def _stage(one: StageConfig, name: str, sets: tuple[str, ...], parts: tuple[str, ...], lr: float, **more: Any) -> StageConfig:
    learns = tuple(Learn(part=part, lr=lr, weight_decay=0.05 if name == "pretrain" else 0.02) for part in parts)
    data = mixed(dict.fromkeys(sets), "samples", root="data/llama_adapter_v2", suffix=".jsonl")
    return one.model_copy(update={"name": name, "data": data, "learns": learns} | more)


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(llama_adapter_v2())
