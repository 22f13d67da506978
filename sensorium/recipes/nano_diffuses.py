"""nano-diffuses: nano-draws by diffusion, on a small pipeline of our own.

Descriptions, signal tokens and the row that says when to draw are nano-draws'. A VAE learns latents of pictures; then a UNet learns to draw
them out of noise, steered by what the projector makes of all signal tokens' states. They are read with as much noise as they have
deviation, since texts are few.
"""

from __future__ import annotations

from sensorium.data.drawn import REQUESTS, DrawnScenesSource
from sensorium.generators.small_diffusion import SmallDiffusionConfig
from sensorium.model.config import ModelConfig
from sensorium.model.hand import HandConfig
from sensorium.model.learning import Learn
from sensorium.output_projectors.mapper import MapperConfig
from sensorium.recipes.nano import nano_model
from sensorium.recipes.nano_draws import SIGNALS
from sensorium.training.config import Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.diffuse import DiffuseConfig
from sensorium.training.objectives.picture_latents import PictureLatentsConfig

SCENES = DrawnScenesSource(seed=61, count=1_000_000, pairs=3000, single=0.5, requests=len(REQUESTS))


def nano_diffuses_model() -> ModelConfig:
    """nano with a hand that diffuses: 0.2 M parameters of VAE, 1.0 M of UNet."""
    hand = HandConfig(
        signals=SIGNALS, projector=MapperConfig(mode="linear", guided=True, standard=True, noise=1.0), generator=SmallDiffusionConfig(length=len(SIGNALS)),
    )  # fmt: skip
    return nano_model().model_copy(update={"hands": {"image": hand}})


def nano_diffuses() -> Recipe:
    """From nano-draws' weights: latents, then what to draw."""
    latents = StageConfig(
        name="latents", objective=PictureLatentsConfig(kl=1e-3), data=(SCENES,), steps=2000, batch_size=32,
        learns=(Learn(part="objective", module="vae", lr=2e-3),), schedule=ScheduleConfig(warmup_steps=50, final_ratio=0.05),
    )  # fmt: skip
    what = StageConfig(
        name="what", objective=DiffuseConfig(text_weight=0.0, gamma=None, unsteered=0.1, teach_unet=True), data=(SCENES,), steps=2200, batch_size=256,
        learns=(Learn(part="hands.image", lr=2e-3, weight_decay=0.01), Learn(part="objective", module="unet", lr=2e-3, weight_decay=0.01)),
        schedule=ScheduleConfig(warmup_steps=200, final_ratio=0.02),
    )  # fmt: skip
    return Recipe(
        name="nano-diffuses",
        description="nano that draws coloured shapes at 64 pixels by diffusion",
        model=nano_diffuses_model(),
        start="nano-draws",
        stages=(latents, what),
    )
