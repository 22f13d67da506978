"""Which way to go: a medium that is better found, or better made.

Source: GILL (arXiv:2305.17216), section 3.4; github.com/kohjingyu/gill, TrainDecisionClassifier.ipynb: cross-entropy over
prompts of which people said which picture they liked better; what they disagreed on is left out.

An answer's medium says which way was right: `{"type": "image", "image": {"way": "other"}}`, or `"first"`.

Shape legend: N media of a batch, D LLM width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.core.batch import Batch, Wanted
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.hands import MadeKind
from sensorium.core.naming import of_choice
from sensorium.data.source import Source
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.processor import Processor
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig
from sensorium.training.objectives.known_states import KnownStates, llm_learns

WAYS = ("first", "other")


class DecideConfig(ObjectiveConfig):
    """Teaches `hands.KIND_choice`."""

    kind: Literal["decide"] = "decide"

    @property
    def sums_over_rows(self) -> bool:
        return True

    def build(self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]) -> Objective:
        """The objective.

        Raises:
            ConfigError: the model has nothing to decide.
        """
        if not any(hand.choice for hand in model.config.hands.values()):
            raise ConfigError("objective 'decide' for a model that chooses between no two ways", where="objective.kind",
                              fix="give one of its hands other and choice")  # fmt: skip
        return Decide(processor.tokenizer.pad_id)


class Decide:
    """Cross-entropy of the right way of each medium. Of an LLM that does not learn, the states of a request without media are computed once."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id
        self._known: dict[MadeKind, KnownStates] = {}

    def begin(self, model: MultimodalModel) -> None:
        """States from before, when this stage was tried on a batch, are those of an LLM that had yet to learn."""
        self._known.clear()

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        if llm_learns(model) or any(batch.media.values()):
            hidden_BTD = model(batch).hidden_BTD
            return decide(model, batch, lambda kind, wanted: [hidden_BTD[one.row, one.start] for one in wanted])
        return decide(model, batch, lambda kind, wanted: self._states(kind)(model, batch, wanted))

    def _states(self, kind: MadeKind) -> KnownStates:
        return self._known.setdefault(kind, KnownStates(self.pad_id, kind, _first_state))


def _first_state(model: MultimodalModel, hidden_BTD: Tensor, batch: Batch, place: tuple[int, int]) -> Tensor:
    return hidden_BTD[place]


def decide(model: MultimodalModel, batch: Batch, states: Callable[[MadeKind, Sequence[Wanted]], Sequence[Tensor]]) -> Losses:
    """Cross-entropy of the right way of each medium.

    Args:
        states: those (D,) at the first signal token of media of a kind.
    """
    total, right, count = torch.zeros((), device=model.device), 0, 0
    for kind, hand in model.config.hands.items():
        wanted = [one for one in batch.wanted if one.kind == kind] if hand.choice else []
        if not wanted:
            continue
        hidden_N1D = torch.stack(list(states(kind, wanted)))[:, None]
        scores_N2 = model.hands[of_choice(kind)](hidden_N1D).float()
        ways_N = torch.tensor([way_of(one.medium) for one in wanted], device=scores_N2.device)
        total = total + F.cross_entropy(scores_N2, ways_N, reduction="sum")
        right += int((scores_N2.argmax(dim=-1) == ways_N).sum())
        count += len(wanted)
    if not count and bool(batch.learn_BT.any()):
        raise DataError("a batch without a medium of which the way is known", expected="answers with one")
    return Losses(total, count, {"right": right / count} if count else {})


def way_of(medium: Any) -> int:
    """0: the first way was right, 1: the other.

    Raises:
        DataError: it does not say.
    """
    said = cast(Mapping[str, Any], medium).get("way") if isinstance(medium, Mapping) else None
    if said not in WAYS:
        raise DataError(f"a medium in an answer whose way is {said!r}", expected='{"way": "first"} or {"way": "other"}',
                        fix="leave the row out")  # fmt: skip
    return WAYS.index(said)
