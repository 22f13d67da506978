"""MM1 (McKinzie et al., arXiv:2403.09611): CLIP ViT-H at 378 pixels, a C-Abstractor of 144 tokens, language
models of its makers' own at 3B, 7B and 30B.

Sources: the paper, sections 3 and 4 and its appendix. No weights and no code were published.
"""

from __future__ import annotations

from sensorium.encoders.clip import ClipConfig
from sensorium.input_projectors.c_abstractor import CAbstractorConfig
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.recipes.mm1_parts import DIFFERS, MM1_LR, Mm1Size, mm1_stage, stand_in
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.next_token import CaptionConfig, InstructConfig

# "A careful mix": captions, pages with pictures among their text, text alone.
MIX = {"captions": 0.45, "interleaved": 0.45, "text": 0.1}
SFT = {"instruct_1450k": 1.0}


def mm1(size: Mm1Size = "3b") -> Recipe:
    """Everything learns in both stages."""
    encoder = ClipConfig(width=1280, layers=32, heads=16, mlp_width=5120, image_size_px=378, norm_tokens=True)
    return Recipe(
        name=f"mm1-{size}",
        description=f"I+T→T: CLIP-H/378, C-Abstractor of 144 tokens, a {size.upper()} language model",
        published=Published(
            paper="2403.09611", second="of parts alone (test_more_projectors.py)",
            missing=(
                "pictures of up to 1,344 pixels in five crops of 672, 720 tokens, in the second stage",
                "the mixtures of experts",
            ),
            differs=DIFFERS,
        ),
        model=ModelConfig(
            lanes={"image": LaneConfig(encoder=encoder, projector=CAbstractorConfig(position_side=27))},
            backbone=stand_in(size),
            template="vicuna",
        ),
        stages=(
            mm1_stage("pretrain", CaptionConfig(layout="document"), MIX, lr=MM1_LR[size], decay=0.1, last=0.1,
                      steps=200_000, batch_size=512, max_length=4096, pack=True, warmup_steps=2000),
            mm1_stage("instruct", InstructConfig(), SFT, lr=1e-5, decay=0.0, last=0.0, optimiser="adafactor",
                      steps=10_000, batch_size=256, max_length=2048),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures."""
    return shrink(mm1())
