"""nano-finds: nano also finds pictures by their descriptions, as FROMAGe and GILL do.

The signal token is one that SmolLM2 has reserved, so that none of the LLM's matrices grows and nano's adapter stays as
it is. Its row learns to be written where a picture is asked for, and that nothing follows. Then the two maps of the
retrieval head learn alone, on the states that foretell the token and on the tower's features, each of which is computed once.
"""

from __future__ import annotations

from sensorium.data.config import PictureBookSource
from sensorium.data.sought import SoughtSource
from sensorium.generators.found_pictures import RetrievalIndexConfig
from sensorium.model.config import ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.model.learning import Learn
from sensorium.output_projectors.retrieval import RetrievalConfig
from sensorium.recipes.nano import nano_model
from sensorium.training.config import Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.seek import SeekConfig

SIGNAL, ROW = "<filename>", 6
WIDTH = 96
BOOKS = ("full", "drawings")
EMBEDDING = "lm.model.embed_tokens"
SOUGHT = (
    SoughtSource(parts=("full",), weight=3),
    SoughtSource(parts=("drawings",), weight=4),
    SoughtSource(pictures="scenes", count=800, weight=2),
    SoughtSource(pictures="composites", parts=BOOKS, count=1000, weight=2),
)


def nano_finds_model() -> ModelConfig:
    """nano with 0.2 M parameters that compare descriptions with pictures."""
    plain = nano_model()
    head = RetrievalConfig(image_width=plain.backbone.d_model, summary=True, before=True)
    hand = HandConfig(signals=(SIGNAL,), projector=head, generator=RetrievalIndexConfig(width=WIDTH))
    return plain.model_copy(update={"hands": {"image": hand}})


def nano_finds() -> Recipe:
    """From nano's weights, which stay as they are: the signal's row, then the head."""
    return Recipe(
        name="nano-finds",
        description="nano that finds pictures by description, on picture-book, drawing-book, scenes and composites",
        model=nano_finds_model(),
        start="nano",
        stages=(
            StageConfig(
                name="ask",
                objective=SeekConfig(weight=0.0),
                data=(*SOUGHT, PictureBookSource(part="full", task="sheets", variants=8, weight=1.5)),
                learns=(Learn(part="backbone", module=EMBEDDING, rows=(ROW,), lr=0.02),),
                steps=60,
                batch_size=8,
                schedule=ScheduleConfig(warmup_steps=5),
            ),
            finding("hands.image"),
        ),
    )


def finding(part: str) -> StageConfig:
    """The two maps of a retrieval head learn alone."""
    return StageConfig(
        name="find",
        objective=SeekConfig(text_weight=0.0, dropout=0.2),
        data=SOUGHT,
        learns=(Learn(part=part, lr=2e-3, weight_decay=0.05),),
        steps=1000,
        batch_size=256,
        cache_features=True,
        feature_format="half",
        schedule=ScheduleConfig(warmup_steps=30, final_ratio=0.02),
    )
