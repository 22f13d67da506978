"""Output alignment: what a projector makes of signal tokens comes to what the generator is steered by for the same caption.

Sources: GILL (arXiv:2305.17216) and NExT-GPT (arXiv:2309.05519): next-token loss, plus the distance between the mapped
hidden states of the signal tokens and the embedding of the caption by the generator's own text encoder; in NExT-GPT 1.5 what its UNet
foretells of a noised medium besides (`denoise.py`).

Shape legend: B media, K signal tokens, D LLM width, L condition tokens, C condition width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from sensorium.core.batch import Batch, Wanted
from sensorium.core.errors import ConfigError
from sensorium.core.hands import MadeKind, ReadingGenerator
from sensorium.data.source import Source
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.condition_loss import CONDITION_LOSSES, ConditionLossName
from sensorium.processing.processor import Processor
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig
from sensorium.training.objectives.denoise import Denoise, DenoiseConfig, denoisers
from sensorium.training.objectives.next_token import token_losses


class GenerateConfig(ObjectiveConfig):
    """Teaches `hands` by the generators' own text encoders."""

    kind: Literal["generate"] = "generate"
    distance: ConditionLossName = "l2"
    """`l2` is the papers', which is not squared (`nn/condition_loss.py`)."""
    weight: float = Field(default=1.0, ge=0.0)
    """Of the distance, beside the next-token loss."""
    text_weight: float = Field(default=1.0, ge=0.0)
    denoise: DenoiseConfig = DenoiseConfig()
    """The kinds of media whose conditions are heard through the generator, too; every answer's medium of such a kind has to be there."""

    @property
    def weighs_tokens(self) -> bool:
        return True

    @property
    def from_answers(self) -> tuple[str, ...]:
        return tuple(self.denoise.kinds())

    @property
    def sums_over_rows(self) -> bool:
        return True

    def build(self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]) -> Objective:
        if not steered(model):
            raise ConfigError("objective 'generate' for a model that makes nothing of its states", where="objective.kind",
                              fix="give the model hands with a projector, or choose objective {kind: instruct}")  # fmt: skip
        for kind in steered(model):
            if not hasattr(model.generators[kind], "encode_text"):
                raise ConfigError(f"objective 'generate' for {kind} by a generator that reads no text", where=f"model.hands.{kind}.generator")  # fmt: skip
        return Generate(self, denoisers(self.denoise, model, processor))


def steered(model: MultimodalModel) -> list[MadeKind]:
    """The kinds of media that a model makes of its states."""
    return [kind for kind, hand in model.config.hands.items() if hand.projector is not None]


@dataclass(frozen=True, slots=True)
class Generate:
    """Next-token loss and distance, per learned token: a batch without media counts like any other.

    Captions are encoded anew in each step: a condition is a quarter of a megabyte (77 x 768), and sets have millions.
    """

    config: GenerateConfig
    denoisers: Mapping[MadeKind, Denoise]

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        hidden_BTD = model(batch).hidden_BTD
        text = token_losses(model, batch, hidden_BTD)
        total, parts = text.total * self.config.text_weight, dict(text.parts)
        for kind in steered(model):
            wanted = [one for one in batch.wanted if one.kind == kind]
            if not wanted:
                continue
            made_BLC = model.condition(kind, hidden_BTD, batch.input_ids_BT, [(one.row, one.start) for one in wanted])
            generator = cast(ReadingGenerator, model.generators.on(kind, model.device))
            with torch.no_grad():
                target_BLC = generator.encode_text([one.caption for one in wanted]).to(made_BLC.device)
            distance_B = CONDITION_LOSSES[self.config.distance](made_BLC, target_BLC)
            losses_B = self.config.weight * distance_B
            parts[f"condition.{kind}"] = float(distance_B.detach().mean())
            if kind in self.denoisers:
                noise_B = self.denoisers[kind](made_BLC, wanted)
                losses_B = losses_B + self.denoisers[kind].config.weight * noise_B
                parts[f"diffusion.{kind}"] = float(noise_B.detach().mean())
            total = total + (losses_B * self._weights(batch, wanted, kind, model)).sum()
        return Losses(total, text.count, parts)

    def _weights(self, batch: Batch, wanted: Sequence[Wanted], kind: MadeKind, model: MultimodalModel) -> Tensor:
        """Of each medium: as much as the signal tokens that stand for it, where the loop divides by learned tokens; their
        source's weight besides."""
        each = 1.0 if batch.loss_count is not None else float(len(model.config.hands[kind].signals))
        weights_BT = batch.loss_weights_BT
        known = [1.0 if weights_BT is None else float(weights_BT[one.row, one.start]) for one in wanted]
        return torch.tensor(known, device=batch.input_ids_BT.device) * each
