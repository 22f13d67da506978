"""What FROMAGe and GILL share: a pooled picture in front of OPT, a retrieval head, captions of the web.

Sources: github.com/kohjingyu/fromage and github.com/kohjingyu/gill, main.py of both.
"""

from __future__ import annotations

from typing import Any

from sensorium.generators.found_pictures import RetrievalIndexConfig
from sensorium.input_projectors.linear import LinearConfig
from sensorium.media.resolution import FixedResolution
from sensorium.model.config import LaneConfig
from sensorium.model.hand import OtherConfig
from sensorium.model.learning import Learn
from sensorium.output_projectors.retrieval import RetrievalConfig
from sensorium.recipes.mixtures import mixed
from sensorium.recipes.published_parts import clip_l
from sensorium.training.config import StageConfig
from sensorium.training.objectives.base import ObjectiveConfig

PICTURE = "<|image|>"
"""In both tokenizers, and never written: it is OPT's next token, and theirs come behind it."""
EMBEDDING = "lm.model.decoder.embed_tokens"
DIFFERS = (
    "the loss does not count OPT's </s> in front of a text",
    "contrast is over the batch of one process; the original gathers those of all",
    "the line break that ends an answer does not stop generation",
    "pictures are found in files of a folder; the original fetches CC3M's by their addresses",
)
CC3M = mixed({"cc3m": None}, "webdataset")


def clip_lane(tokens: int) -> LaneConfig:
    """CLIP's pooled feature of the middle of a picture as so many tokens."""
    encoder = clip_l(224).model_copy(update={"feature": "pooled", "select_layer": None})
    return LaneConfig(encoder=encoder, projector=LinearConfig(tokens=tokens), resolution=FixedResolution(fit="crop"))


def finds() -> OtherConfig:
    """The way that both find pictures."""
    return OtherConfig(projector=RetrievalConfig(), generator=RetrievalIndexConfig())


def pairs_stage(objective: ObjectiveConfig, *, signals: int, lr: float, hands: tuple[str, ...] = ("image",), **changes: Any) -> StageConfig:
    """CC3M for ten times 2,000 steps; the rows of signal tokens, which are the last ones, do not decay.

    Args:
        hands: the ways that learn.
        changes: what else the stage sets; `weight_decay` is that of all but the rows.
    """
    decay = changes.pop("weight_decay", 0.0)
    parts = ("projectors.image", *(f"hands.{name}" for name in hands))
    rows = Learn(part="backbone", module=EMBEDDING, rows=tuple(range(-signals, 0)), lr=lr)
    settings: dict[str, Any] = {"name": "pairs", "data": CC3M, "steps": 20_000, "betas": (0.9, 0.95), "clip_norm": 1.0}
    learns = (*(Learn(part=part, lr=lr, weight_decay=decay) for part in parts), rows)
    return StageConfig(objective=objective, learns=learns, **(settings | changes))
