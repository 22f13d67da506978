"""nano-writes: pictures as tokens that SmolLM2 itself writes, at 64 pixels, from a description.

Tokenizer and descriptions are nano-draws', where a small decoder draws the same codes behind the LLM. Codes have an embedding and a
head of their own, as Janus' have: of SmolLM2's vocabulary some fifteen words are free and codes are 512, and more words would make all
of its 57 MB matrix part of the model. The LLM learns through a low-rank adapter, and sees nothing: nano's eyes are not here.

Of 240 descriptions a judge knew 32 % again (`sensorium eval drawing`; 26.5 to 38.2), of nano-draws' drawings 50 %; so it is nano-draws that ships. Behind three
minutes of a GPU that other trainings shared: 554 steps of what stands below.
"""

from __future__ import annotations

from sensorium.core.hands import Drawing
from sensorium.core.weights import ShippedSource
from sensorium.model.config import LoraConfig, ModelConfig
from sensorium.model.learning import Learn
from sensorium.model.picture_words import CodeTablesConfig, PictureWordsConfig
from sensorium.recipes.nano_draws import CODES, SCENES, SIGNALS
from sensorium.recipes.nano_parts import smollm2_135m
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import InstructConfig

TRAINED = ShippedSource(path="nano-draws/generators/image/tokenizer")
# A tenth asks for words, so that the LLM goes on answering in words.
ASKED = SCENES.model_copy(update={"words": 0.1})


def nano_writes_model() -> ModelConfig:
    """4.9 M parameters of adapter, 1.0 M of codes; the tokenizer is nano-draws'."""
    words = PictureWordsConfig(
        tokenizer=CODES.model_copy(update={"weights": (TRAINED,)}), tables=CodeTablesConfig(width=64), begin=SIGNALS[:1], end=SIGNALS[-1:],
        drawing=Drawing(guidance=2.0, temperature=0.7, top_p=0.9),
    )  # fmt: skip
    return ModelConfig(backbone=smollm2_135m(), picture_words=words, adapter=LoraConfig(rank=16, alpha=32.0), template="smol")


def nano_writes() -> Recipe:
    """One stage, meant for a GPU: on two cores it takes a day."""
    # Rows are of like length: packed they would be no fuller.
    return Recipe(
        name="nano-writes",
        description="SmolLM2-135M that writes coloured shapes at 64 pixels as tokens, for a GPU; its weights are not shipped",
        model=nano_writes_model(),
        stages=(
            StageConfig(
                name="write", objective=InstructConfig(unsteered=0.1), data=(ASKED,), steps=560, batch_size=192, max_length=192,
                learns=(Learn(part="adapter", lr=1e-3), Learn(part="code_tables", lr=2e-3, weight_decay=0.01)), checkpoint_every=200,
                precision="bf16", workers=8, schedule=ScheduleConfig(warmup_steps=50, final_ratio=0.02),
            ),
        ),
    )  # fmt: skip


def tiny() -> Recipe:
    """Seconds; its descriptions are nano-draws', because it reads no pictures."""
    small = shrink(nano_writes())
    (write,) = small.stages
    few = ASKED.model_copy(update={"count": 64})
    return small.model_copy(update={"stages": (write.model_copy(update={"data": (few,)}),)})
