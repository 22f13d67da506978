"""When to make a medium: the next-token loss as the row of a signal token alone sees it.

A row of the vocabulary is two things, a word to be written and one that is read. Here it learns as the first alone; better still, a row for writing
does that is none of the vocabulary's (`model/written.py`), for then what is read stays as it was. States in front of all places of an answer that are free
are read without gradients, so that nothing need be kept of the LLM's layers; signals behind the first one are forced, and do not pull at it. A row that is read, too,
changes the states behind it: it learns of those in front alone. Of the cross-entropy what other words share among themselves is left out, which the row
does not change. So all that is needed of a row of text is known from when it is first read.

Shape legend: B rows, T tokens, N learned places, D width, V vocabulary, J kinds of media.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.core.batch import Batch, Example
from sensorium.core.errors import ConfigError
from sensorium.data.source import Source
from sensorium.model.device import to_device
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig
from sensorium.training.objectives.next_token import learned

ROWS_GPU = 16
"""That are read at a time there, where nothing of them is known yet; on a processor each is read alone, so that no neighbour changes a bit of it, and a
run that goes on gets the same."""
MOST_KEPT = 20000
"""Rows of which it is remembered, at most: some 50 kB each."""
Key = tuple[tuple[int, ...], tuple[bool, ...]]


class WhenConfig(ObjectiveConfig):
    """Teaches rows of first signals, those for writing (part `written`) or those of the LLM's matrix (`rows` of it); nothing else of the model may learn beside."""

    kind: Literal["when"] = "when"

    @property
    def sums_over_rows(self) -> bool:
        return True

    def build(self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]) -> Objective:
        """The objective.

        Raises:
            ConfigError: the model has no signals, or a head that is more than a matrix.
        """
        if not processor.signals:
            raise ConfigError("objective 'when' for a model without signal tokens", where="objective.kind", expected="hands with signals")
        if getattr(model.backbone, "head", None) is None:
            raise ConfigError("objective 'when' for an LLM whose head is more than a matrix", where="objective.kind", fix="use objective: {kind: instruct}")
        return When(tuple(processor.signals.values()), processor.tokenizer.pad_id)


@dataclass(frozen=True, slots=True)
class Places:
    """What is known of learned places: the states in front of them, and of the words that are no first signals their scores taken together
    (log of the sum of their exponentials) and the best of them; which signal belongs there, J: none."""

    hidden_ND: Tensor
    rest_N: Tensor
    best_N: Tensor
    classes_N: Tensor


class When:
    """Cross-entropy between each first signal and all other words together."""

    def __init__(self, runs: Sequence[Sequence[int]], pad_id: int) -> None:
        """Take the signals of each kind of media, in order."""
        self.runs, self.pad_id = runs, pad_id
        self.firsts = tuple(run[0] for run in runs)
        self._known: dict[Key, Places] = {}

    def begin(self, model: MultimodalModel) -> None:
        """What was read when this stage was tried on a batch is of an LLM that had yet to learn."""
        self._known.clear()

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        self._check(model)
        plain = not batch.packed and not any(batch.media.values())
        places = _joined(self._of_rows(model, batch)) if plain else self._read(model, batch)[0]
        scores_NJ = first_scores(model, places.hidden_ND, self.firsts).float()
        scores_NK = torch.cat([scores_NJ, places.rest_N[:, None]], dim=1)
        total = F.cross_entropy(scores_NK, places.classes_N, reduction="sum")
        return Losses(total, len(scores_NK), _shares(scores_NJ.detach(), places))

    def _check(self, model: MultimodalModel) -> None:
        """What may learn: what is kept of places would else not be true in the next step."""
        (weight_VD, _), own = head_of(model), model.written
        taught = {id(weight_VD)} | ({id(own.weight)} if own is not None and set(own.tokens) <= set(self.firsts) else set[int]())
        if any(one.requires_grad and id(one) not in taught for one in model.parameters()):
            raise ConfigError("objective 'when' beside a part that it does not teach", where="learns",
                              expected="rows of first signals alone: part written, or rows of the LLM's embedding")  # fmt: skip

    def _of_rows(self, model: MultimodalModel, batch: Batch) -> list[Places]:
        """What is known of each row of text."""
        lengths = (batch.segments_BT > 0).sum(dim=1).tolist()
        keys = [(tuple(ids[:n]), tuple(learn[:n])) for ids, learn, n in zip(batch.input_ids_BT.tolist(), batch.learn_BT.tolist(), lengths, strict=True)]
        fresh = [key for key in dict.fromkeys(keys) if key not in self._known]
        each, known = 1 if model.device.type == "cpu" else ROWS_GPU, dict[Key, Places]()
        for start in range(0, len(fresh), each):
            some = fresh[start : start + each]
            rows = [[Example(list(ids), list(learn), media_index=[0] * len(ids))] for ids, learn in some]
            read, counts = self._read(model, to_device(collate(rows, self.pad_id), model.device))
            parts = zip(*(values.split(counts) for values in (read.hidden_ND, read.rest_N, read.best_N, read.classes_N)), strict=True)
            known |= {key: Places(*(one.clone() for one in part)) for key, part in zip(some, parts, strict=True)}
        found = [known.get(key) or self._known[key] for key in keys]
        self._known |= dict(list(known.items())[: max(0, MOST_KEPT - len(self._known))])
        return found

    @torch.no_grad()
    def _read(self, model: MultimodalModel, batch: Batch) -> tuple[Places, list[int]]:
        """The learned places of a batch, and how many there are in each row."""
        firsts_J = torch.tensor(self.firsts, device=batch.input_ids_BT.device)
        read_too = model.backbone.embedding.weight.requires_grad
        left_out_BT = behind_a_signal(batch, firsts_J) if read_too else forced(batch, self.runs)
        told = replace(batch, learn_BT=batch.learn_BT & ~left_out_BT)
        hidden_ND, targets_N = learned(model(replace(told, answers_only=True)).hidden_BTD, told)
        others_NV = model.logits(hidden_ND).float().index_fill(1, firsts_J, -torch.inf)
        same_NJ = targets_N[:, None] == firsts_J
        classes_N = torch.where(same_NJ.any(dim=1), same_NJ.float().argmax(dim=1), len(firsts_J))
        counts = told.learn_BT[:, 1:].sum(dim=1).tolist()
        return Places(hidden_ND, torch.logsumexp(others_NV, dim=1), others_NV.amax(dim=1), classes_N), counts


def head_of(model: MultimodalModel) -> tuple[Tensor, float]:
    """The LLM's own head, without rows for writing, and the scale of its scores."""
    return cast("tuple[Tensor, float]", getattr(model.backbone, "head", None))


def first_scores(model: MultimodalModel, hidden_ND: Tensor, firsts: Sequence[int]) -> Tensor:
    """Scores of first signals alone, (N, J)."""
    weight_VD, scale = head_of(model)
    rows_JD = weight_VD[list(firsts)] * scale
    return hidden_ND @ (rows_JD if model.written is None else rows_JD + model.written.of(firsts)).T


def forced(batch: Batch, runs: Sequence[Sequence[int]]) -> Tensor:
    """Places of signals behind the first one of their run, (B, T)."""
    found_BT = torch.zeros_like(batch.learn_BT)
    for first, *more in runs:
        begins_BT = batch.input_ids_BT == first
        for back in range(1, len(more) + 1):
            found_BT[:, back:] |= begins_BT[:, :-back]
    return found_BT


def behind_a_signal(batch: Batch, firsts_J: Tensor) -> Tensor:
    """Places in front of which, in their own sample, a first signal stands; (B, T)."""
    signals_BT = torch.isin(batch.input_ids_BT, firsts_J).long()
    seen_BT = signals_BT.cumsum(dim=1) - signals_BT
    segments_BT = batch.segments_BT.long()
    before_BS = seen_BT.new_zeros(len(seen_BT), int(segments_BT.max()) + 1)
    before_BS = before_BS.scatter_reduce(1, segments_BT, seen_BT, "amin", include_self=False)
    return seen_BT > before_BS.gather(1, segments_BT)


def _joined(rows: Sequence[Places]) -> Places:
    hidden, rest, best, classes = zip(*((one.hidden_ND, one.rest_N, one.best_N, one.classes_N) for one in rows), strict=True)
    return Places(torch.cat(hidden), torch.cat(rest), torch.cat(best), torch.cat(classes))


def _shares(scores_NJ: Tensor, places: Places) -> dict[str, float]:
    """Of places where a signal belongs, how many it would be written at; and of the others."""
    kinds = scores_NJ.shape[1]
    written_N = torch.where(scores_NJ.amax(dim=1) > places.best_N, scores_NJ.argmax(dim=1), kinds)
    wanted_N = places.classes_N < kinds
    shares = {"written": (written_N == places.classes_N)[wanted_N], "unasked": (written_N < kinds)[~wanted_N]}
    return {name: float(marks_N.float().mean()) for name, marks_N in shares.items() if len(marks_N)}
