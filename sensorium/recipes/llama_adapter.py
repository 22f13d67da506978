"""LLaMA-Adapter (Zhang et al., arXiv:2303.16199): a picture added to the prompts of frozen LLaMA.

The variant of section 3.3, trained on ScienceQA with the settings of the one for text (section 5.1).
Source: github.com/OpenGVLab/LLaMA-Adapter, alpaca_finetuning_v1; the visual side is not in it."""

from __future__ import annotations

from sensorium.core.weights import HubSource
from sensorium.data.config import FileSource
from sensorium.encoders.clip import ClipConfig
from sensorium.fusion.visual_prompt import VisualPromptConfig
from sensorium.input_projectors.mlp import MlpConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import AdaptionPromptConfig, LaneConfig, ModelConfig
from sensorium.model.learning import Learn
from sensorium.recipes.published_parts import llama
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import InstructConfig

BATCH, LR = 32, 9e-3 * 32 / 256  # Four on each of eight GPUs.


def llama_adapter() -> Recipe:
    """Questions of ScienceQA; prompts, gates and the picture's projection learn."""
    clip = ClipConfig(image_size_px=224, feature="pooled",
                      weights=(HubSource(id="openai/clip-vit-large-patch14"),))  # fmt: skip
    lane = LaneConfig(encoder=clip, projector=MlpConfig(depth=2, hidden=120),
                      resolution=FixedResolution(fit="crop"))  # fmt: skip
    data = FileSource(path="data/scienceqa/train.jsonl", format="samples")
    learns = tuple(Learn(part=p, lr=LR, weight_decay=0.02) for p in ("projectors.image", "adapter"))
    return Recipe(
        name="llama-adapter",
        description="I+T→T: one CLIP-L feature added to the adaption prompts of LLaMA-7B",
        published=Published(
            paper="2303.16199", second="second writing (test_adapter_layouts.py)",
            missing=("features of several scales of CLIP (not published which), concatenated",), differs=(
                "CLIP's size and the projection's inner width are ours; the paper says 0.6M parameters",
                "the wording of ScienceQA's questions is not published: Alpaca's template",
                "gates do not decay, gradients are clipped at a norm of 1",
            ),
        ),
        model=ModelConfig(
            lanes={"image": lane}, backbone=llama("7b", "huggyllama/llama-7b"), template="alpaca",
            fusion=VisualPromptConfig(),
            adapter=AdaptionPromptConfig(layers=30, length=10, gate="heads"),
        ),
        stages=(
            StageConfig(
                name="instruct", objective=InstructConfig(), data=(data,), learns=learns,
                epochs=5, batch_size=BATCH, max_length=512, betas=(0.9, 0.95),
                schedule=ScheduleConfig(warmup_ratio=0.4, final_ratio=0.0),  # Two epochs of five.
            ),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(llama_adapter())
