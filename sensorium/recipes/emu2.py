"""Emu2 (Sun et al., arXiv:2312.13286): EVA2-CLIP-E at 448 pixels, pooled to 64 tokens, LLaMA-33B, SDXL's decoder.

Source: github.com/baaivision/Emu, Emu2/emu/conf/emu_conf.py, emu.py, lm.py and diffusion.py for the graph; the repository has no
training file. Here: pretraining. Emu2-Chat reads 256 tokens of a picture, Emu2-Gen is tuned to draw.
"""

from __future__ import annotations

from sensorium.model.learning import Learn
from sensorium.recipes.emu_parts import UNKNOWN_LOSS, both_ways, draws, emu2_model, pairs
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import CaptionConfig
from sensorium.training.objectives.regress import RegressConfig


def stage(name: str, rates: dict[str, float], steps: int, batch_size: int, *, px: int = 448) -> StageConfig:
    """A stage: of captions, or the last one, of documents."""
    reads = name.startswith("caption")
    documents = mixed(dict.fromkeys(("mmc4", "yt_storyboard_1b", "pile")), "samples", suffix=".jsonl")
    return StageConfig(
        name=name, objective=CaptionConfig(layout="emu_document") if reads else RegressConfig(layout="emu_document"),
        data=pairs("laion_2b", "capsfusion", "webvid_10m") if reads else (*documents, *both_ways("grit", "capsfusion_grounded", "webvid_10m")),
        learns=tuple(Learn(part=part, lr=lr, weight_decay=0.05) for part, lr in rates.items()),
        steps=steps, batch_size=batch_size, max_length=2048, picture_px=px, betas=(0.9, 0.95), epsilon=1e-6, precision="bf16",
        schedule=ScheduleConfig(final_ratio=0.0),
    )  # fmt: skip


def emu2() -> Recipe:
    """All learns to describe, at 224 and 448 pixels; all but the tower to foretell words and embeddings; the UNet to draw."""
    rates = {"projectors.image": 1e-4, "backbone": 3e-5, "encoders.image": 5e-5}
    return Recipe(
        name="emu2",
        description="I+T→T+I: EVA2-CLIP-E/448, 64 pooled tokens, LLaMA-33B with a regression head, SDXL's UNet",
        published=Published(
            paper="2312.13286",
            missing=("Emu2-Chat and Emu2-Gen, which are tuned behind it, and boxes as tokens of places",),
            differs=(*UNKNOWN_LOSS, "decay, warm-up and falling of the rates are not published, but of the decoder's",
                     "batches are of pictures' rows; sets are mixed by their sizes, where the original adds so many rows of videos, documents and text",
                     "how many frames of a video are looked at is not published: eight", "the decoder's rate rises in a line, not in logarithms"),
        ),
        model=emu2_model(),
        stages=(
            stage("caption-224", rates, 35_200, 6144, px=224),
            stage("caption-448", dict.fromkeys(rates, 1e-5), 4000, 3072),
            stage("pretrain", dict.fromkeys(("projectors.image", "backbone", "hands.image"), 1e-5), 20_350, 12_800),
            draws("seen", 8000, 2048, 2048, ScheduleConfig(shape="linear", warmup_steps=2000, final_ratio=0.0)),
        ),
    )


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(emu2())
