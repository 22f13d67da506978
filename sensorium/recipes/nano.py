"""nano, the default model: EfficientNet-Lite0 + projector + SmolLM2-135M-Instruct.

The vision tower's stride-16 map and its head become some 70 words for the whole picture, best
first, and 4 x 4 tokens, each an average of word embeddings. Vocabulary alignment, alignment by captions,
instruction tuning.
"""

from __future__ import annotations

from sensorium.data.augmenting import AugmentConfig
from sensorium.data.config import PictureBookSource, ScenesSource
from sensorium.input_projectors.avg_pool import AvgPoolConfig
from sensorium.model.config import LaneConfig, LoraConfig, ModelConfig
from sensorium.model.learning import Learn
from sensorium.model.lookup import LookupConfig
from sensorium.recipes.nano_parts import efficientnet_lite0, smollm2_135m
from sensorium.training.config import Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.next_token import CaptionConfig, InstructConfig
from sensorium.training.objectives.vocabulary import VocabularyConfig

# Scenes are never mirrored: they are asked about left and right.
MIRRORED = AugmentConfig(mirror=True)
# With it, training pictures have their true words about as far in front as held-out ones do.
NOISE = 12.0
TWO_VIEWS = AugmentConfig(mirror=True, views=2)
# Scale of the cosines between visual tokens and words: at 50 from the start the loss falls slowly.
GENTLE, SHARP = 20.0, 50.0
# Blends of two pictures: on fixed features the true word is among the first five 2 points more often.
MIX = 0.5
# Tokens of words that the whole picture is told in, best first: of things that a held-out picture
# shows, the fourth weights had 55 % among the first 16 words and 70 % among the first 64; of things that
# it does not, 3 and 8 %.
RANKED = 72
PROJECTOR, WORDS, ADAPTER, TOWER = "projectors.image", "lookups.image", "adapter", "encoders.image"


def nano_model() -> ModelConfig:
    """5 M parameters of eyes, 135 M of language."""
    return ModelConfig(
        lanes={
            "image": LaneConfig(
                encoder=efficientnet_lite0(("stride16", "head")),
                projector=AvgPoolConfig(
                    side=4, depth=2, hidden=384, summary=True, norm_in=True, dropout=0.4
                ),
                lookup=LookupConfig(
                    words=3072, scale=SHARP, ranked=RANKED, whiten=0.3, shift=16
                ),
            )
        },
        backbone=smollm2_135m(),
        adapter=LoraConfig(rank=4, alpha=8.0),
        template="smol",
    )


def nano() -> Recipe:
    """The shipped weights: picture-book, drawing-book and synthetic scenes."""
    return Recipe(
        name="nano",
        description="EfficientNet-Lite0 + projector + SmolLM2-135M on picture-book, drawing-book and scenes",
        model=nano_model(),
        stages=(
            _words(),
            _sharpen(),
            _captions(),
            _instructions(),
        ),
    )


def _words() -> StageConfig:
    """Tower and projector learn which words a picture stands for; the language model does not run."""
    return StageConfig(
        name="vocabulary",
        objective=VocabularyConfig(scale=GENTLE),
        data=(
            PictureBookSource(part="full", task="words", augment=MIRRORED, weight=3),
            PictureBookSource(part="drawings", task="words", augment=MIRRORED, weight=4),
            ScenesSource(task="captions", count=6000, weight=2),
        ),
        learns=(
            Learn(part=PROJECTOR, lr=1e-3, weight_decay=0.01),
            Learn(part=TOWER, lr=1e-4, weight_decay=0.05, last_blocks=4),
        ),
        steps=1300,
        batch_size=32,
        schedule=ScheduleConfig(warmup_steps=30, final_ratio=0.02),
    )


def _sharpen() -> StageConfig:
    """The projector goes on alone, on features kept from the first epoch, as sharp as the lookup."""
    return StageConfig(
        name="sharpen",
        objective=VocabularyConfig(scale=SHARP, norm_weight=0.0, mix=MIX),
        data=(
            PictureBookSource(part="full", task="words", augment=TWO_VIEWS, weight=3),
            PictureBookSource(part="drawings", task="words", augment=TWO_VIEWS, weight=4),
            ScenesSource(task="captions", count=3000, weight=2),
        ),
        learns=(
            Learn(part=PROJECTOR, lr=2e-3, weight_decay=0.01),
            Learn(part=WORDS, lr=2e-3, weight_decay=0.01),
        ),
        steps=1500,
        batch_size=64,
        cache_features=True,
        schedule=ScheduleConfig(warmup_steps=30, final_ratio=0.02),
    )


def _captions() -> StageConfig:
    """The projector learns to make the language model write captions."""
    return StageConfig(
        name="align",
        objective=CaptionConfig(),
        data=(
            PictureBookSource(part="full", task="captions", augment=MIRRORED, weight=3),
            PictureBookSource(part="drawings", task="captions", augment=MIRRORED, weight=3),
            ScenesSource(task="captions", count=6000, weight=2),
        ),
        learns=(Learn(part=PROJECTOR, lr=3e-4, weight_decay=0.01),),
        steps=16,
        batch_size=4,
        max_length=256,
        pack=True,
        schedule=ScheduleConfig(warmup_steps=5),
    )


def _instructions() -> StageConfig:
    """Questions and answers, mostly eight about a picture, each asked afresh behind the same visual
    tokens; the language model learns through its adapter."""
    return StageConfig(
        name="instruct",
        objective=InstructConfig(word_noise=NOISE),
        data=(
            PictureBookSource(part="full", task="sheets", variants=8, augment=MIRRORED, weight=4),
            PictureBookSource(part="drawings", task="sheets", variants=8, augment=MIRRORED, weight=3.5),
            PictureBookSource(part="full", variants=8, augment=MIRRORED, weight=0.5),
            ScenesSource(task="sheets", count=20000, weight=2),
        ),
        learns=(
            Learn(part=PROJECTOR, lr=3e-4, weight_decay=0.01),
            Learn(part=ADAPTER, lr=1e-3, weight_decay=0.01),
        ),
        steps=900,
        batch_size=3,
        max_length=576,
        pack=True,
        schedule=ScheduleConfig(warmup_steps=20, final_ratio=0.02),
        checkpoint_every=50,
    )


def demo() -> Recipe:
    """nano's three objectives in a few minutes on two cores, on the pictures that ship here."""
    return Recipe(
        name="demo",
        description="nano from an untrained projector, on the shipped pictures, in minutes",
        model=nano_model(),
        stages=(
            StageConfig(
                name="vocabulary",
                objective=VocabularyConfig(scale=SHARP, mix=MIX),
                data=(PictureBookSource(part="shipped", task="words"),),
                learns=(
                    Learn(part=PROJECTOR, lr=2e-3, weight_decay=0.01),
                    Learn(part=WORDS, lr=2e-3, weight_decay=0.01),
                ),
                epochs=10,
                batch_size=32,
                cache_features=True,
                schedule=ScheduleConfig(warmup_steps=20),
            ),
            StageConfig(
                name="align",
                objective=CaptionConfig(),
                data=(PictureBookSource(part="shipped", task="captions"),),
                learns=(Learn(part=PROJECTOR, lr=3e-4, weight_decay=0.01),),
                steps=8,
                batch_size=4,
                max_length=256,
                pack=True,
                cache_features=True,
                schedule=ScheduleConfig(warmup_steps=4),
            ),
            StageConfig(
                name="instruct",
                objective=InstructConfig(word_noise=NOISE),
                data=(PictureBookSource(part="shipped", task="sheets"),),
                learns=(
                    Learn(part=PROJECTOR, lr=3e-4, weight_decay=0.01),
                    Learn(part=ADAPTER, lr=1e-3, weight_decay=0.01),
                ),
                steps=50,
                batch_size=2,
                max_length=576,
                pack=True,
                cache_features=True,
                schedule=ScheduleConfig(warmup_steps=10, final_ratio=0.05),
            ),
        ),
    )
