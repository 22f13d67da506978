"""MiniGPT-5 (Zheng et al., arXiv:2310.02239): MiniGPT-4 with eight generative vokens that steer Stable Diffusion 2.1.

Source: github.com/eric-ai-lab/MiniGPT-5, model.py, train_eval.py, dataloader.py, constants.py. What sees is an imported MiniGPT-4
(`start=FOLDER`) and stays as it is.
"""

from __future__ import annotations

from sensorium.core.weights import HubSource
from sensorium.generators.stable_diffusion import StableDiffusionConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LoraConfig, ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.model.learning import Learn
from sensorium.output_projectors.encoder_decoder import EncoderDecoderConfig
from sensorium.recipes.blip2_parts import blip2_lane
from sensorium.recipes.minigpt5_parts import ADDED, DIFFERS, IMG, rows, voken_stage
from sensorium.recipes.published_parts import llama
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.diffuse import DiffuseConfig

SEEN = blip2_lane()
LANE = SEEN.model_copy(update={"encoder": SEEN.encoder.model_copy(update={"interpolation": "bilinear"}), "resolution": FixedResolution(fit="middle")})
SD_21 = StableDiffusionConfig(width=1024, weights=(HubSource(id="stabilityai/stable-diffusion-2-1-base"),))
# 0.01 words, 1 picture, 0.1 caption; one condition in ten is that of zeros.
ALIGN = DiffuseConfig(text_weight=0.01, caption_weight=0.1, unsteered=0.1, gamma=5.0, size_px=512)
STORIES = ALIGN.model_copy(update={"caption_weight": 0.0})


def minigpt5() -> Recipe:
    """Vokens and what reads them learn from captions; then an adapter learns to tell stories with pictures."""
    vicuna = llama("7b", "Vision-CAIR/vicuna-7b", vocab_size=32000 + len(ADDED))
    return Recipe(
        name="minigpt-5",
        description="I+T→T+I: MiniGPT-4's frozen path, Vicuna-7B, eight vokens to Stable Diffusion 2.1",
        published=Published(paper="2310.02239", second="second writing (test_minigpt5_loss.py)", differs=DIFFERS),
        model=ModelConfig(
            lanes={"image": LANE},
            backbone=vicuna.model_copy(update={"added_tokens": ADDED}),
            hands={"image": HandConfig(signals=IMG, projector=EncoderDecoderConfig(), generator=SD_21)},
            adapter=LoraConfig(rank=8, alpha=16.0, dropout=0.05, targets=("q_proj", "v_proj")),
            template="minigpt4",
        ),
        stages=(
            voken_stage("align", ALIGN, "cc3m", (Learn(part="hands.image", lr=2e-4, weight_decay=0.01), *rows(2e-5))),
            voken_stage("stories", STORIES, "vist", (Learn(part="hands.image", module="mapping", lr=2e-5, weight_decay=0.01),
                                                     Learn(part="adapter", lr=2e-5, weight_decay=0.01), *rows(2e-5))),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(minigpt5(), steps=4)
