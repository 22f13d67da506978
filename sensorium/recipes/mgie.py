"""MGIE (Fu et al., arXiv:2309.17102): LLaVA at 224 pixels says what an edit means, and steers InstructPix2Pix by eight tokens.

Sources: github.com/apple/ml-mgie, mgie_llava.py, mgie_train.py and the command of README.md.
"""

from __future__ import annotations

from sensorium.core.weights import HubSource
from sensorium.data.config import FileSource
from sensorium.generators.instruct_pix2pix import InstructPix2PixConfig
from sensorium.model.hand import HandConfig
from sensorium.model.learning import Learn
from sensorium.output_projectors.mapper import MapperConfig
from sensorium.recipes.lisa import WORDS
from sensorium.recipes.llava_v1 import llava_v1
from sensorium.recipes.published_parts import llama
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.diffuse import DiffuseConfig

LR = 5e-4
SIGNALS = tuple(f"[IMG{i}]" for i in range(8))
TOKENS = ("<im_patch>", "<im_start>", "<im_end>", *SIGNALS)


def mgie() -> Recipe:
    """One stage: words, the mapper and the UNet, on InstructPix2Pix's edits with the instructions that an LLM made of them."""
    # A Stable Diffusion gets four channels more at its entrance, zero at first.
    unet = InstructPix2PixConfig(weights=(HubSource(id="stable-diffusion-v1-5/stable-diffusion-v1-5"),))
    backbone = llama("7b", "lmsys/vicuna-7b-v1.1", vocab_size=32011).model_copy(update={"added_tokens": TOKENS})
    return Recipe(
        name="mgie",
        description="I+T→T+I: LLaVA at 224 pixels, 8 tokens → mapper → UNet of 8 channels",
        published=Published(
            paper="2309.17102", second="second writing (test_mgie.py)",
            differs=(
                "starts from Vicuna v1.1; the original from LLaVA-Lightning-7B-v1-1, released as a difference to LLaMA",
                "pictures are scaled in one go, not by way of squares of 512 pixels",
            ),
        ),
        model=llava_v1().model.model_copy(update={
            "backbone": backbone, "template": "shikra",
            "hands": {"image": HandConfig(signals=SIGNALS, projector=MapperConfig(before=True, guided=True), generator=unet)},
        }),
        stages=(
            StageConfig(name="edit", data=(FileSource(path="data/mgie/ipr2pr_expressive.jsonl", format="samples"),),
                        objective=DiffuseConfig(weight=0.5, gamma=None, unsteered=0.1, unseen=0.1, size_px=256, teach_unet=True),
                        learns=(*(one.model_copy(update={"lr": LR}) for one in WORDS),
                                Learn(part="hands.image", lr=LR), Learn(part="objective", lr=LR)),
                        epochs=40, batch_size=32, max_length=512, betas=(0.9, 0.999), precision="bf16",
                        schedule=ScheduleConfig(warmup_ratio=0.03, final_ratio=0.0)),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on edits of the shipped pictures."""
    return shrink(mgie())
