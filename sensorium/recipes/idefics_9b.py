"""IDEFICS-9B (Laurençon et al., arXiv:2306.16527), the open Flamingo (arXiv:2204.14198).

CLIP ViT-H, a perceiver resampler, gated cross-attention before every fourth layer of LLaMA-7B.
Sizes: config.json of huggingface.co/HuggingFaceM4/idefics-9b.
"""

from __future__ import annotations

from sensorium.data.config import FileSource
from sensorium.encoders.idefics_vit import IdeficsVitConfig
from sensorium.fusion.gated_cross_attention import GatedCrossAttentionConfig
from sensorium.input_projectors.perceiver import PerceiverConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.learning import Learn
from sensorium.recipes.published_parts import LLAMA, llama
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import CaptionConfig

AROUND, IMAGE = "<fake_token_around_image>", "<image>"
# Shares of the tokens that the model saw.
SHARES = {"obelics": 0.7385, "wikipedia": 0.0615, "laion": 0.1718, "pmd": 0.0282}


def idefics_model() -> ModelConfig:
    """The published sizes; the two markers are the last rows of the vocabulary."""
    shape = LLAMA["7b"]
    return ModelConfig(
        lanes={
            "image": LaneConfig(
                encoder=IdeficsVitConfig(),
                projector=PerceiverConfig(
                    heads=16, head_dim=96, norm_heads=True, activation="relu", project=False
                ),
                resolution=FixedResolution(fit="stretch"),
            )
        },
        backbone=llama("7b", None, vocab_size=32002),
        fusion=GatedCrossAttentionConfig(
            every=4,
            heads=shape["num_attention_heads"],
            head_dim=shape["hidden_size"] // shape["num_attention_heads"],
            mlp_width=shape["intermediate_size"],
            feed_forward="swiglu",
            norm="rms",
            norm_eps=1e-6,
            norm_heads=True,
        ),
        image_markers=(AROUND, IMAGE, AROUND),
        template="document",
    )


def idefics_9b() -> Recipe:
    """Web pages with their pictures; resampler and cross-attention learn, the rest is frozen."""
    lr, decay = 1e-5, 0.1
    return Recipe(
        name="idefics-9b",
        description="I+T→T, interleaved: CLIP-H/224, resampler of 64, cross-attention in LLaMA-7B",
        published=Published(
            paper="2306.16527",
            oracle="IdeficsForVisionText2Text",
            missing=(
                "two words added to LLaMA's vocabulary, whose rows alone learn",
                "starting from CLIP-H in its own layout",
            ),
            differs=("rates, steps, batch and shares are quoted from memory of the model card",),
        ),
        model=idefics_model(),
        stages=(
            StageConfig(
                name="pretrain",
                objective=CaptionConfig(layout="document"),
                data=tuple(
                    FileSource(path=f"data/{name}.jsonl", format="samples", weight=share)
                    for name, share in SHARES.items()
                ),
                learns=(
                    Learn(part="projectors.image", lr=lr, weight_decay=decay),
                    Learn(part="fusion", lr=lr, weight_decay=decay),
                ),
                steps=200_000,
                batch_size=1280,  # Packed rows: 1.31M tokens.
                max_length=1024,
                pack=True,
                schedule=ScheduleConfig(shape="linear", warmup_steps=2000, final_ratio=0.6),
                betas=(0.9, 0.999),
                precision="bf16",
            ),
        ),
    )


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(idefics_9b())
