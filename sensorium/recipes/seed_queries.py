"""The first stage of SEED's tokenizer (Ge et al., arXiv:2307.08041): queries that look back only learn to see what captions say.

Source: github.com/AILab-CVC/SEED, SEED_Tokenizer/lavis/projects/blip2/train/pretrain_qformer.yaml, models/blip2_models/blip2_qformer_casual.py.
It begins with BLIP-2's first stage: `start=FOLDER` of `Salesforce/blip2-itm-vit-g`, imported. What it becomes is the tokenizer's second
stage's beginning, `sensorium tokenizer train 'tokenizer={kind: seed}' --queries FOLDER`, and that is recipe `seed-llama`'s eye.
"""

from __future__ import annotations

from sensorium.backbones.query_tower import QueryTowerConfig
from sensorium.fusion.query_match import QueryMatchConfig
from sensorium.input_projectors.linear import LinearConfig
from sensorium.model.config import ModelConfig
from sensorium.model.learning import Learn
from sensorium.recipes.blip2_parts import BERT, EVA_VIT_G, blip2_lane, lavis_stage
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Published, Recipe
from sensorium.training.objectives.contrastive import ContrastiveConfig

LR = 3e-5
# Not the head that tells pairs: contrast is all that is taught.
TAUGHT = ("lm.former", "lm.vision_projection", "lm.text_projection")


def seed_queries() -> Recipe:
    """Contrast of the last query and a caption; the tower stays but for its last norm."""
    learns = (
        *(Learn(part="backbone", module=name, lr=LR, weight_decay=0.05) for name in TAUGHT),
        Learn(part="encoders.image", module="tower.post_layernorm", lr=LR), Learn(part="objective", lr=LR),
    )  # fmt: skip
    return Recipe(
        name="seed-queries",
        description="I,T→score: EVA-CLIP-g/224, causal Q-Former of 32 queries, the last of which meets captions",
        published=Published(
            paper="2307.08041", second="second writing (test_seed_queries.py)",
            differs=(
                "begins at random unless it starts from BLIP-2's first stage, as the original does",
                "no dropout in the Q-Former; gradients are clipped at a norm of 1",
                "pictures are squeezed to a square, not cropped at random; captions keep their punctuation",
                "the second stage begins with the last of ten epochs; the original's file names the first",
            ),
        ),
        model=ModelConfig(
            lanes={"image": blip2_lane(EVA_VIT_G).model_copy(update={"projector": LinearConfig(project=False)})},
            backbone=QueryTowerConfig(looks_back=True, tokenizer_from=BERT), fusion=QueryMatchConfig(), template="pair",
        ),
        stages=(
            lavis_stage("contrast", ContrastiveConfig(temperature=0.07, smoothing=0.1, max_scale=None), mixed({"cc3m": None}, "webdataset"),
                        learns, epochs=10, batch_size=64, max_length=32, warmup_steps=2000, final_ratio=0.1),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds on the shipped pictures; a larger rate would lead the temperature through zero."""
    return shrink(seed_queries(), lr=1e-3)
