"""Flamingo-3B (Alayrac et al., arXiv:2204.14198). Its weights, its tower and its language model were
never published; OpenFlamingo and IDEFICS can be had. Here: its training (B.1.2 there) over stand-ins.
"""

from __future__ import annotations

from sensorium.model.learning import Learn
from sensorium.recipes.flamingo_parts import flamingo_model
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import CaptionConfig

LR = 1e-4
# Pages with pictures, pairs of picture and text; what their losses weigh.
SETS = {"m3w": 1.0, "align": 0.2, "ltip": 0.2}


def flamingo() -> Recipe:
    """Resampler and blocks learn, and two words."""
    return Recipe(
        name="flamingo",
        description="I+T→T, interleaved: SigLIP-2-g for NFNet-F6, resampler of 64, blocks in Pythia-1.4B",
        published=Published(
            paper="2204.14198", second="of parts alone (test_openflamingo.py)",
            missing=(
                "NFNet-F6 and Chinchilla, which are closed; SigLIP 2 giant and Pythia stand in for them",
                "videos (VTP, whose loss weighs 0.03), with embeddings of time",
                "pages whose text sees the next picture instead of the one before, half of the time",
            ),
            differs=(
                "the batch is not known to us, 256 is ours; sets are mixed by their sizes, and weighted losses "
                "averaged over the tokens of all of them, not set by set",
                "blocks have the printed 1.2 billion parameters, the resampler 189 million of a printed 194; its "
                "heads are 128 wide, nearer to that count, where the paper's text has 96 (170 million)",
                "no space in front of half of the captions, no flips and colours; norms and gates do not decay",
                "whether the rows of the two new words learn is not said",
            ),
        ),
        model=flamingo_model(),
        stages=(
            StageConfig(
                name="pretrain", objective=CaptionConfig(layout="flamingo"),
                data=mixed(dict.fromkeys(SETS), "samples", suffix=".jsonl", losses=SETS),
                learns=(
                    Learn(part="projectors.image", lr=LR),
                    Learn(part="fusion", lr=LR, weight_decay=0.1),
                    *(Learn(part="backbone", module=m, rows=(-2, -1), lr=LR)
                      for m in ("lm.gpt_neox.embed_in", "lm.lm_head")),
                ),
                steps=500_000, batch_size=256, max_length=256, betas=(0.9, 0.999), precision="bf16",
                schedule=ScheduleConfig(shape="constant", warmup_steps=5000),
            ),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(flamingo())
