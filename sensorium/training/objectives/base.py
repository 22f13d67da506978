"""What every objective answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from sensorium.core.batch import Batch
from sensorium.core.config import Config
from sensorium.data.source import Source
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.processor import Processor


@dataclass(slots=True)
class Losses:
    """A sum of losses, and over how many targets; the loop divides, so that accumulated
    batches weigh every target alike."""

    total: Tensor
    count: int
    parts: dict[str, float]


def means_added(words: Losses, media: Losses) -> Losses:
    """The mean of the words and the mean of the media, added; every batch then weighs alike, as in LISA and MiniGPT-5."""
    total = words.total / max(1, words.count) + media.total / max(1, media.count)
    return Losses(total, 1, words.parts | media.parts)


class Objective(Protocol):
    """A callable from model and batch to losses.

    One that has an attribute `module` (an `nn.Module`) owns it: the module learns where `learns`
    names the part `objective`, is in every checkpoint, and is not saved with the model
    (`objectives/owned.py`). Beside it, it may have `begin(model)`, called when its stage begins, and `stepped(model)`,
    called behind each step of the optimiser: for what follows the model without learning.
    """

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses: ...


class ObjectiveConfig(Config):
    """Builds an objective and says what it needs."""

    kind: str

    @property
    def template(self) -> str | None:
        """Chat template it asks for; None: the model's own."""
        return None

    @property
    def runs_llm(self) -> bool:
        """Whether the LLM's layers run at all."""
        return True

    @property
    def reads_pixels(self) -> bool:
        """Whether it looks at the pictures' pixels, which are not there where features were kept."""
        return False

    @property
    def from_answers(self) -> tuple[str, ...]:
        """The kinds of media in answers without which it teaches nothing; a stage whose data has none is refused."""
        return ()

    @property
    def weighs_tokens(self) -> bool:
        """Whether it multiplies each token's loss by the `loss_weight` of its source."""
        return False

    @property
    def prompts_left_out(self) -> float:
        """Share of rows answered with a picture, written as tokens, whose prompt is left out (`processing/unsteered.py`)."""
        return 0.0

    @property
    def sums_over_rows(self) -> bool:
        """Whether its loss of a batch is the sum of its rows' losses, each taken alone."""
        return False

    def build(
        self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]
    ) -> Objective:
        """The objective for this model and data."""
        raise TypeError(f"{type(self).__name__} does not define build()")
