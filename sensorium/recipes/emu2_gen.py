"""Emu2-Gen (Sun et al., arXiv:2312.13286): Emu2 tuned to draw what texts, places and pictures ask for; its decoder is Emu2's own.

Source: the paper's section 2.3.2, appendix D and table 9; github.com/baaivision/Emu, Emu2/emu/diffusion.py and README.md.
"""

from __future__ import annotations

from sensorium.data.laid_out import LaidOutSource
from sensorium.model.learning import Learn
from sensorium.recipes.emu_parts import UNKNOWN_EMU2, both_ways, emu2_model
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.regress import RegressConfig

PARTS = ("projectors.image", "backbone", "hands.image")
GROUNDED = ("capsfusion_grounded", "grit")
WEB = ("capsfusion", "laion_aesthetics", "sa_1b", "laion_high_resolution")


def stage(name: str, lr: float, steps: int, each: tuple[int, int, int], drawn: tuple[str, ...]) -> StageConfig:
    """A stage.

    Args:
        each: rows of a batch: pictures behind their texts, behind things and their places, and edits.
        drawn: sets of the first.
    """
    text, places, edits = each
    plain = tuple(one.model_copy(update={"weight": text / len(drawn)}) for one in both_ways(*drawn, last=1.0))
    rows = mixed(dict.fromkeys(GROUNDED) | {"instruct_pix2pix": edits}, "samples", suffix=".jsonl")
    laid = tuple(LaidOutSource(source=one, weight=places / len(GROUNDED)) for one in rows[:-1])
    return StageConfig(
        name=name, objective=RegressConfig(layout="emu2_document", last_only=True), data=(*plain, *laid, rows[-1]),
        learns=tuple(Learn(part=part, lr=lr, weight_decay=0.05) for part in PARTS), steps=steps, batch_size=sum(each), max_length=2048,
        betas=(0.9, 0.95), epsilon=1e-6, precision="bf16", schedule=ScheduleConfig(warmup_steps=100 if name == "tune" else 0, final_ratio=0.0),
    )  # fmt: skip


def emu2_gen() -> Recipe:
    """Two stages behind Emu2: the last picture of each document is foretold; then those of few, good pictures."""
    return Recipe(
        name="emu2-gen",
        description="I+T→T+I,box: Emu2 tuned to draw what texts, places and pictures ask for",
        published=Published(
            paper="2312.13286", second="second writing (test_emu.py)",
            differs=(*UNKNOWN_EMU2[:-1], "starts from Emu2 with its decoder, by start=FOLDER",
                     "sets of one kind have equal shares, which are not published; whether texts are learned, too, is not said: they are",
                     "things are cut out by their boxes, there by SAM, with other backgrounds and at random edges; a tenth of them is left out, and of their places, "
                     "of which no share is published", "places stand between <object> and </object> with marks around their pictures, as the code asks for "
                     "them, not <coor> without"),
        ),
        model=emu2_model(),
        stages=(stage("tune", 5e-5, 3000, (4096, 3584, 2048), WEB), stage("quality", 1e-5, 900, (2048, 1024, 2048), ("good_pictures_500k",))),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(emu2_gen())
