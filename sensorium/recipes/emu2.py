"""Emu2 (Sun et al., arXiv:2312.13286): EVA2-CLIP-E at 448 pixels, pooled to 64 tokens, LLaMA-33B, SDXL's decoder.

Source: github.com/baaivision/Emu, Emu2/emu/conf/emu_conf.py, emu.py, lm.py and diffusion.py for the graph; the paper's section 2.2 and
appendix B for the training. Tuned behind it: recipes `emu2-chat` and `emu2-gen`.
"""

from __future__ import annotations

from sensorium.model.learning import Learn
from sensorium.recipes.emu_parts import UNKNOWN_EMU2, both_ways, draws, emu2_model, pairs
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import CaptionConfig
from sensorium.training.objectives.regress import RegressConfig


def stage(name: str, rates: dict[str, float], steps: int, batch_size: int, *, px: int = 448) -> StageConfig:
    """A stage: of captions, or the last one, of documents; those of grounded sets hold boxes."""
    reads = name.startswith("caption")
    rows = mixed(dict.fromkeys(("mmc4", "yt_storyboard_1b", "pile", "grit", "capsfusion_grounded")), "samples", suffix=".jsonl")
    sets = ("laion_2b", "capsfusion", "webvid_10m")
    return StageConfig(
        name=name, objective=CaptionConfig(layout="emu2_document") if reads else RegressConfig(layout="emu2_document"),
        data=pairs(*sets) if reads else (*rows, *both_ways(*sets)),
        learns=tuple(Learn(part=part, lr=lr, weight_decay=0.05) for part, lr in rates.items()),
        steps=steps, batch_size=batch_size, max_length=2048, picture_px=px, betas=(0.9, 0.95), epsilon=1e-6, clip_norm=5.0, precision="bf16",
        schedule=ScheduleConfig(warmup_ratio=0.02 if reads else 0.1, final_ratio=0.0),
    )  # fmt: skip


def emu2() -> Recipe:
    """All learns to describe, at 224 and 448 pixels; all but the tower to foretell words and embeddings; the UNet to draw."""
    rates = {"projectors.image": 1e-4, "backbone": 3e-5, "encoders.image": 5e-5}
    return Recipe(
        name="emu2",
        description="I+T→T+I,box: EVA2-CLIP-E/448, 64 pooled tokens, LLaMA-33B with a regression head, SDXL's UNet",
        published=Published(
            paper="2312.13286", second="second writing (test_emu.py)",
            missing=("the decoder of videos, Stable Diffusion 2.1 with layers over time, of which no code, weights or rates are published",),
            differs=(*UNKNOWN_EMU2, "rates, batch and warm-up of the captions are printed once for both sizes of pictures, and taken for both",
                     "batches are of pictures' rows; sets are mixed by their sizes, where the original adds so many rows of videos, documents and text",
                     "frames of a video are eight evenly, not at random; a phrase stands in front of its place, there at times behind; where the token "
                     "that asks for places stands in such rows is not published: in front", "the decoder's rate rises in a line, not in logarithms, for 2,000 "
                     "steps (the appendix: 2,500), and its noise has no offset"),
        ),
        model=emu2_model(),
        stages=(
            stage("caption-224", rates, 35_200, 6144, px=224),
            stage("caption-448", rates, 4000, 6144),
            stage("pretrain", dict.fromkeys(("projectors.image", "backbone", "hands.image"), 1e-5), 20_350, 12_800),
            draws("seen", 8000, 2048, 2048, ScheduleConfig(shape="linear", warmup_steps=2000, final_ratio=0.0)),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(emu2())
