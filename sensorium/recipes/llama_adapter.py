"""LLaMA-Adapter (Zhang et al., arXiv:2303.16199): a picture added to the prompts of frozen LLaMA.

The multi-modal variant of section 3.3, as trained on ScienceQA (section 5.1). Source of the prompts
and of the training settings: github.com/OpenGVLab/LLaMA-Adapter, alpaca_finetuning_v1 (the variant
keeps the settings of the one for text, says the paper). The repository does not hold the code of
the visual side; what the paper leaves open is named below.
"""

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

BATCH = 32  # Four on each of eight GPUs.
LR = 9e-3 * BATCH / 256


def llama_adapter() -> Recipe:
    """Questions of ScienceQA; prompts, gates and the picture's projection learn."""
    return Recipe(
        name="llama-adapter",
        description="I+T→T: one CLIP-L feature added to the adaption prompts of LLaMA-7B",
        published=Published(
            paper="2303.16199",
            missing=(
                "features of several scales of CLIP, concatenated (which is not published; here "
                "the one of the last layer)",
            ),
            differs=(
                "CLIP's size and the inner width of the projection are ours; the paper gives the "
                "projection's 0.6M parameters alone",
                "the wording of ScienceQA's questions is not published: Alpaca's template",
                "gates do not decay, gradients are clipped at a norm of 1",
            ),
        ),
        model=ModelConfig(
            lanes={
                "image": LaneConfig(
                    encoder=ClipConfig(
                        image_size_px=224,
                        feature="pooled",
                        weights=(HubSource(id="openai/clip-vit-large-patch14"),),
                    ),
                    projector=MlpConfig(depth=2, hidden=120),
                    resolution=FixedResolution(fit="crop"),
                )
            },
            backbone=llama("7b", "huggyllama/llama-7b"),
            fusion=VisualPromptConfig(),
            adapter=AdaptionPromptConfig(layers=30, length=10, gate="heads"),
            template="alpaca",
        ),
        stages=(
            StageConfig(
                name="instruct",
                objective=InstructConfig(),
                data=(FileSource(path="data/scienceqa/train.jsonl", format="samples"),),
                learns=(
                    Learn(part="projectors.image", lr=LR, weight_decay=0.02),
                    Learn(part="adapter", lr=LR, weight_decay=0.02),
                ),
                epochs=5,
                batch_size=BATCH,
                max_length=512,
                # Two of the five epochs.
                schedule=ScheduleConfig(warmup_ratio=0.4, final_ratio=0.0),
                betas=(0.9, 0.95),
            ),
        ),
    )


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(llama_adapter())
