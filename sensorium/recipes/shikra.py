"""Shikra (Chen et al., arXiv:2306.15195): LLaVA's first graph, boxes and points as plain text.

Source: github.com/shikras/shikra, config/. Coordinates are text, `[0.120,0.304,0.560,0.871]` of
the padded square; rows hold them in pixels, as parts `boxes` and `points2d` (core/sample.py)."""

from __future__ import annotations

from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig
from sensorium.recipes.llava_stages import BACKBONE, PROJECTOR, stage
from sensorium.recipes.llava_v1 import llava_v1
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.next_token import InstructConfig

ROOT, BOTH = "data/shikra", {PROJECTOR: 2e-5, BACKBONE: 2e-5}
# mix_pretrain_concat8.py, those of one task in one file; of GC and Visual Genome's REC the files hold a twentieth.
TASKS: dict[str, float | None] = dict.fromkeys(("grounded_captions", "llava_captions", "vqa", "coco_captions", "rec", "reg",
                       "flickr30k", "vcr", "point_qa"))  # fmt: skip
# mix_pretrain_final55.py: half conversations, half these seven in equal shares.
KEPT = ("flickr30k", "rec", "vqa", "vcr", "point_local", "point_twice_v7w", "captions_reg")
MIXED = {"llava_instruct_and_shikra_rd": 0.5, **dict.fromkeys(KEPT, 0.5 / len(KEPT))}


def shikra() -> Recipe:
    """Two stages, both of projector and LLM."""
    base = llava_v1()
    lane = LaneConfig(
        encoder=base.model.lanes["image"].encoder,
        projector=base.model.lanes["image"].projector,
        # A crop would move the boxes.
        resolution=FixedResolution(fit="letterbox"),
    )
    return Recipe(
        name="shikra",
        description="I+box+T→T,box: LLaVA v1 with coordinates as text",
        published=Published(
            paper="2306.15195",
            oracle="LlavaForConditionalGeneration",
            differs=(
                "no added <im_start> and <im_end> around a picture; rows have at most 2,048 tokens, not 4,096",
                "pictures are scaled and then padded (the original: padded, then scaled): boxes differ by "
                "less than a pixel of the encoder's input",
                "Vicuna v1.3 as in LLaVA; the original's configs do not say which one it started from",
            ),
        ),
        model=base.model.model_copy(update={"lanes": {"image": lane}, "boxes": "shikra"}),
        stages=(
            stage("tasks", InstructConfig(), mixed(TASKS, "samples", root=ROOT, suffix=".jsonl"), BOTH,
                  batch_size=64, epochs=2),
            stage("mixed", InstructConfig(), mixed(MIXED, "samples", root=ROOT, suffix=".jsonl"), BOTH,
                  batch_size=64, epochs=3),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(shikra())
