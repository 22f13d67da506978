"""The decoder of a model that writes pictures embedding by embedding learns to draw them: its UNet alone, steered by the embeddings of the
very picture, as the model reads it (Emu2: an autoencoder, without the LLM), or by those that the LLM foretells behind the text in front (Emu).

Sources: Emu2 (arXiv:2312.13286, 2.2.3), which says of Emu (arXiv:2307.05222) that each step of its decoder needs the LLM to write a picture.
A share of the conditions are zeros, so that guidance has something to lead away from.

Shape legend: B pictures, N embeddings, C their width, T tokens, D LLM width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from sensorium.core.batch import Batch, Wanted
from sensorium.core.errors import ConfigError
from sensorium.data.source import Source
from sensorium.model.fed_back import Row, true_embeddings
from sensorium.model.hand_check import fed_kinds
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.processor import Processor
from sensorium.text.chat import TemplateName
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig
from sensorium.training.objectives.noising import Diffusing, Noising, source_weights
from sensorium.training.objectives.regress import of_wanted


class RedrawConfig(ObjectiveConfig):
    """Teaches the UNet of `hands.image`, which is the part `objective` and is saved with the model, by the pictures of answers."""

    kind: Literal["redraw"] = "redraw"
    layout: TemplateName | None = None
    """The chat template of this stage; None: the model's own."""
    steered_by: Literal["seen", "foretold"] = "seen"
    unsteered: float = Field(default=0.1, ge=0.0, le=1.0)
    """Share of pictures whose condition is zeros."""
    gamma: float | None = Field(default=None, gt=0.0)
    """Of min-SNR; None: plain squared error."""
    size_px: int | None = None
    """Side of the squares that pictures are cut to; None: the generator's own."""

    @property
    def template(self) -> str | None:
        return self.layout

    @property
    def runs_llm(self) -> bool:
        return self.steered_by == "foretold"

    @property
    def from_answers(self) -> tuple[str, ...]:
        return ("image",)

    def build(self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]) -> Objective:
        """The objective.

        Raises:
            ConfigError: the model writes no pictures so, or by something that cannot be taught.
        """
        if "image" not in fed_kinds(model.config):
            raise ConfigError("objective 'redraw' for a model that writes no picture embedding by embedding", where="objective.kind",
                              fix="give hands.image a projector {kind: regression}, or choose objective {kind: diffuse}")  # fmt: skip
        made = model.generators["image"]
        if not hasattr(made, "predict"):
            raise ConfigError(f"objective 'redraw' by a generator of kind {model.config.hands['image'].generator.kind}",
                              where="model.hands.image.generator", expected="stable_diffusion or sdxl")  # fmt: skip
        return Redraw(self, cast(Diffusing, made), processor)


class Redraw:
    """A sum over pictures. It owns the UNet."""

    def __init__(self, config: RedrawConfig, drawing: Diffusing, processor: Processor) -> None:
        self.config = config
        self.drawing = drawing
        self.module = drawing.decoder.requires_grad_(False)
        self.noising = Noising(config.size_px, config.gamma, processor)

    def begin(self, model: MultimodalModel) -> None:
        """Pictures are drawn where the model is."""
        self.drawing.to(model.device)

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        wanted = [one for one in batch.wanted if one.kind == "image"]
        if not wanted:
            return Losses(torch.zeros((), device=model.device), 0, {})
        condition_BNC = (self._seen if self.config.steered_by == "seen" else self._foretold)(model, batch, wanted)
        dropped_B = torch.rand(len(wanted)) < self.config.unsteered
        condition_BNC = condition_BNC * ~dropped_B.to(condition_BNC.device)[:, None, None]
        self.drawing.to(model.device)
        losses_B = self.noising.losses(self.drawing, condition_BNC, wanted)
        weights_B = source_weights(batch.loss_weights_BT, wanted, losses_B.device)
        return Losses((losses_B * weights_B).sum(), len(wanted), {"diffusion": float(losses_B.detach().mean())})

    @torch.no_grad()
    def _seen(self, model: MultimodalModel, batch: Batch, wanted: Sequence[Wanted]) -> Tensor:
        """What the embeddings of the pictures are, (B, N, C)."""
        media = batch.media["image"]
        encoded = model.encode("image", media)
        read = model.project("image", encoded, media)
        true_MC = true_embeddings(model, "image", encoded, read)
        return of_wanted(true_MC, wanted, batch.slots["image"], model.config.ways["image"].reads)

    @torch.no_grad()
    def _foretold(self, model: MultimodalModel, batch: Batch, wanted: Sequence[Wanted]) -> Tensor:
        """What the LLM writes behind the token that begins each picture, having read what stands in front of it, (B, N, C)."""
        media = {kind: replace(one, features=model.encode(kind, one)) for kind, one in batch.media.items()}
        embeds_BTD = model.fusion.enter(model.backbone.embed(batch.input_ids_BT), model.features(media), batch.slots)
        made: list[Tensor] = []
        for one in wanted:
            segments_T = batch.segments_BT[one.row, : one.start + 1]
            place_T = (segments_T == segments_T[-1]).nonzero()[:, 0]
            row = Row(model, embeds_BTD[one.row, place_T][None], batch.positions_BT[one.row, place_T][None])
            made.append(row.picture("image"))
        return torch.cat(made)
