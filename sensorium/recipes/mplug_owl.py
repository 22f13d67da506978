"""mPLUG-Owl (Ye et al., arXiv:2304.14178): CLIP that learns, a visual abstractor of 64 queries and an
end of picture, LLaMA-7B.

Sources: github.com/X-PLUG/mPLUG-Owl, mPLUG-Owl/scripts/train_it.sh and pipeline/train.py for the
second stage; section 4.1 of the paper for the first, which the repository does not train.
"""

from __future__ import annotations

from sensorium.input_projectors.abstractor import AbstractorConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig, LoraConfig, ModelConfig
from sensorium.model.learning import Learn
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.published_parts import clip_l, llama
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import CaptionConfig, InstructConfig


def mplug_owl() -> Recipe:
    """Captions for tower and abstractor, then instructions for an adapter."""
    changes = {"feature": "cls_patch", "select_layer": None, "norm_eps": 1e-6, "norm_tokens": True}
    lane = LaneConfig(encoder=clip_l(224).model_copy(update=changes), projector=AbstractorConfig(),
                      resolution=FixedResolution(fit="stretch"))  # fmt: skip
    lora = LoraConfig(rank=8, alpha=32.0, dropout=0.05, targets=("q_proj", "v_proj"))
    web: dict[str, float | None] = dict.fromkeys(("laion_400m", "coyo_700m", "cc", "coco"))
    seen = tuple(Learn(part=p, lr=1e-4, weight_decay=0.1) for p in ("encoders.image", "projectors.image"))
    return Recipe(
        name="mplug-owl",
        description="I+T→T: CLIP-L/224 that learns, abstractor of 64 queries, LLaMA-7B with LoRA",
        published=Published(
            paper="2304.14178", second="parts of transformers (test_originals.py)",
            differs=(
                "the paper's batch of 2.1M tokens is taken to be 4,096 rows of 512",
                "how captions follow pictures in the first stage was not published",
                "the second stage trains the adapter alone, as the script; the paper's also the abstractor",
                "pictures are squeezed to a square, not cropped and mirrored at random",
                "no dropout in the abstractor",
            ),
        ),
        model=ModelConfig(lanes={"image": lane}, backbone=llama("7b", "huggyllama/llama-7b"),
                          adapter=lora, template="mplug_owl"),
        stages=(
            StageConfig(name="pretrain", objective=CaptionConfig(layout="document"),
                        data=mixed(web, "webdataset"), learns=seen, steps=50_000, batch_size=4096,
                        max_length=512, schedule=ScheduleConfig(warmup_steps=2000, final_ratio=0.0)),
            StageConfig(name="instruct", objective=InstructConfig(), epochs=3, batch_size=256,
                        data=mixed({"sft_v0.1_train": None}, "samples", suffix=".jsonl"),
                        learns=(Learn(part="adapter", lr=2e-5, weight_decay=1e-4),),
                        max_length=2048, betas=(0.9, 0.999), precision="bf16",
                        schedule=ScheduleConfig(shape="linear", warmup_steps=50, final_ratio=0.0)),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(mplug_owl())
