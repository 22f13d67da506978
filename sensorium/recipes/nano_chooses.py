"""nano-chooses: nano both draws pictures and finds them, by the same signal tokens, and chooses which; or it writes, and makes none.

As GILL does: six signal tokens, two ways, and a linear map of the state at the first token that decides between them. Everything is nano-draws', whose
painter and tokenizer are weights of this one by name. The first signal learns to be written for requests to find something, too, and not for questions
(`when`), by a row apart from the one that is read (`model/written.py`): all states, and so all drawings, stay nano-draws', bit for bit. Where the row
of the vocabulary itself was moved, by half its length, 4 of 60 drawings were right in the place of 31 (a script that was not kept; `docs/log.md`). The head that finds reads the state that foretells the
signals, as nano-finds' does, and is nano-finds' in the shipped weights.
"""

from __future__ import annotations

from sensorium.core.weights import ShippedSource
from sensorium.data.drawn import REQUESTS, DrawnScenesSource
from sensorium.data.sought import SoughtSource
from sensorium.data.wishes import WishesSource
from sensorium.encoders.clip import ClipConfig
from sensorium.generators.found_pictures import RetrievalIndexConfig
from sensorium.model.choice import ChoiceConfig
from sensorium.model.config import ModelConfig
from sensorium.model.hand import HandConfig, OtherConfig
from sensorium.model.learning import Learn
from sensorium.output_projectors.retrieval import RetrievalConfig
from sensorium.recipes.nano import nano_model
from sensorium.recipes.nano_draws import ROW, SIGNALS, drawing_hand
from sensorium.recipes.nano_finds import WIDTH, finding
from sensorium.recipes.shrink import shrink
from sensorium.training.config import Recipe, ScheduleConfig, StageConfig
from sensorium.training.objectives.decide import DecideConfig
from sensorium.training.objectives.when import WhenConfig

PAINTER = ShippedSource(path="nano-draws/generators/image")
WISHES = WishesSource(parts=("full",), count=1800)


def choosing_hand() -> HandConfig:
    """0.1 M parameters that draw before a painter that is there, as many that find, and a thousand that decide."""
    drawing = drawing_hand()
    head = RetrievalConfig(image_width=nano_model().backbone.d_model, summary=True, before=True)
    return HandConfig(
        signals=drawing.signals,
        projector=drawing.projector,
        generator=drawing.generator.model_copy(update={"weights": (PAINTER,)}),
        other=OtherConfig(projector=head, generator=RetrievalIndexConfig(width=WIDTH)),
        choice=ChoiceConfig(falls_back=False),
    )


def nano_chooses_model() -> ModelConfig:
    """nano with both hands."""
    return nano_model().model_copy(update={"hands": {"image": choosing_hand()}, "written": (ROW,)})


def nano_chooses() -> Recipe:
    """From nano-draws' weights: what finds, when a picture is wanted, what draws, and which of both."""
    return Recipe(
        name="nano-chooses",
        description="nano that draws a picture or finds one, as it is asked to",
        model=nano_chooses_model(),
        start="nano-draws",
        # The state that finds stands in front of all signals, which do not change it.
        stages=(finding("hands.image_other"), _when(), _which()),
    )


def _when() -> StageConfig:
    """The signals are written for requests of both kinds, and for no question."""
    return StageConfig(
        name="when",
        objective=WhenConfig(),
        data=(
            WISHES.model_copy(update={"words": 0.5, "weight": 3}),
            DrawnScenesSource(count=500, seed=42, requests=len(REQUESTS), words=0.3, weight=1),
        ),
        learns=(Learn(part="written", lr=2e-3),),
        steps=500,
        batch_size=64,
        schedule=ScheduleConfig(warmup_steps=5, final_ratio=0.02),
    )


def _which() -> StageConfig:
    """A linear map of the state at the first signal, which stands behind the whole request."""
    return StageConfig(
        name="which",
        objective=DecideConfig(),
        data=(WISHES,),
        learns=(Learn(part="hands.image_choice", lr=1e-3, weight_decay=0.01),),
        steps=600,
        batch_size=64,
        schedule=ScheduleConfig(warmup_steps=20, final_ratio=0.02),
    )


def tiny() -> Recipe:
    """Seconds: another tower, which has a tiny form, tokens of bytes and of the signals, a painter at random."""
    model = nano_chooses_model()
    lane = model.lane("image").model_copy(update={"encoder": ClipConfig.tiny(), "lookup": None})
    backbone = model.backbone.model_copy(update={"added_tokens": SIGNALS})
    full = nano_chooses().model_copy(update={"start": None, "model": model.model_copy(update={"lanes": {"image": lane}, "backbone": backbone})})
    small, few = shrink(full), {"parts": ("shipped",), "take": 4}
    small = small.model_copy(update={"model": small.model.model_copy(update={"written": (-len(SIGNALS),)})})
    find, when, which = small.stages
    stages = (
        find.model_copy(update={"data": (SoughtSource.from_dict(few),)}),
        when.model_copy(update={"data": (WishesSource.from_dict(few | {"words": 0.5}),)}),
        which.model_copy(update={"data": (WishesSource.from_dict(few),)}),
    )
    return small.model_copy(update={"stages": stages})
