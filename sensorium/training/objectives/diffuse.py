"""Latent diffusion: what a projector makes of signal tokens learns to steer a frozen UNet to the picture that stands in the answer.

Sources: MiniGPT-5 (arXiv:2310.02239; 0.01 words + picture + 0.1 caption, min-SNR 5, one condition in ten that of zeros); MGIE
(arXiv:2309.17102; github.com/apple/ml-mgie, mgie_llava.py: words + 0.5 picture, plain squared error, and conditions and
looked-at pictures left out as InstructPix2Pix does, arXiv:2211.09800). The picture becomes latents by the frozen VAE; noise
of a random step is added; the UNet says what the noise was (`noising.py`). Gradients go through it to the projector and to the LLM.

Shape legend: B media, L condition tokens, C condition width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from sensorium.core.batch import Batch, Example
from sensorium.core.errors import ConfigError, DataError
from sensorium.data.source import Source
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.condition_loss import CONDITION_LOSSES, ConditionLossName
from sensorium.processing.processor import Processor
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig, means_added
from sensorium.training.objectives.known_states import KnownStates, llm_learns
from sensorium.training.objectives.next_token import token_losses
from sensorium.training.objectives.noising import Diffusing, Noising, source_weights


class DiffuseConfig(ObjectiveConfig):
    """Teaches `hands.image` through its generator, a pipeline of latent diffusion."""

    kind: Literal["diffuse"] = "diffuse"
    weight: float = Field(default=1.0, ge=0.0)
    """Of the diffusion loss."""
    text_weight: float = Field(default=1.0, ge=0.0)
    """Of the next-token loss."""
    caption_weight: float = Field(default=0.0, ge=0.0)
    """Of the distance between the condition and what the generator's own text encoder makes of the caption."""
    distance: ConditionLossName = "mse"
    gamma: float | None = Field(default=5.0, gt=0.0)
    """Of min-SNR; None: plain squared error."""
    unsteered: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of media that are steered by what the projector makes of zeros, so that guidance has something to lead away from."""
    unseen: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of media whose generator does not see the picture that is edited; half of those unsteered are among them."""
    size_px: int | None = None
    """Side of the squares that pictures are cut to; None: the generator's own."""
    teach_unet: bool = False
    """The UNet is then the part `objective`, which learns where `learns` names it, and is saved with the model. Of a small pipeline
    of our own that part is VAE and UNet, of which `learns` names a module."""

    @property
    def weighs_tokens(self) -> bool:
        return True

    def build(self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]) -> Objective:
        """The objective.

        Raises:
            ConfigError: the model draws no pictures, by something that cannot be trained through, or what this config asks
                for is not there: a negative of the projector, a text encoder, a generator that looks at pictures.
        """
        hand = model.config.hands.get("image")
        if hand is None:
            raise ConfigError("objective 'diffuse' for a model that draws no pictures", where="objective.kind",
                              fix="give the model hands.image, or choose objective {kind: instruct}")  # fmt: skip
        where = "model.hands.image.generator"
        made = model.generators["image"]
        if not hasattr(made, "predict"):
            raise ConfigError(f"objective 'diffuse' by a generator of kind {hand.generator.kind}", where=where,
                              expected="stable_diffusion, small_diffusion or instruct_pix2pix")  # fmt: skip
        drawing = cast(Diffusing, made)
        if self.unsteered and not hand.reader.has_negative:
            raise ConfigError("unsteered for a projector that makes nothing of zeros", where="objective.unsteered",
                              expected="a projector with a negative, or 0")  # fmt: skip
        if self.unseen and not drawing.looks:
            raise ConfigError("unseen for a generator that looks at no picture", where="objective.unseen", expected="0")
        if drawing.looks:
            processor.require(_picture_in_front)
        drawing.decoder.requires_grad_(False)
        if not self.teach_unet:
            return Diffuse(self, drawing, processor)
        return TeachingDiffuse(self, drawing, processor)


class Diffuse:
    """Next-token loss and diffusion loss: means over tokens and over pictures, added."""

    def __init__(self, config: DiffuseConfig, drawing: Diffusing, processor: Processor) -> None:
        self.config = config
        self.drawing = drawing
        self.noising = Noising(config.size_px, config.gamma, processor)
        self.signals: tuple[int, ...] = processor.signals["image"]
        self.known = KnownStates(processor.tokenizer.pad_id)

    def begin(self, model: MultimodalModel) -> None:
        """Pictures are drawn where the model is; what was kept may be of an LLM that had yet to learn."""
        self.drawing.to(model.device)
        self.known.clear()

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        wanted = [one for one in batch.wanted if one.kind == "image"]
        if self._reads(model, batch):
            hidden_BTD = model(batch).hidden_BTD
            words = token_losses(model, batch, hidden_BTD)
            words = Losses(words.total * self.config.text_weight, words.count, words.parts)
            if not wanted:
                return means_added(words, Losses(hidden_BTD.sum() * 0.0, 0, {}))
            condition_BLC = model.condition("image", hidden_BTD, batch.input_ids_BT, [(one.row, one.start) for one in wanted])
        else:
            words = Losses(torch.zeros((), device=model.device), 0, {})
            if not wanted:
                return words
            states_NKD = torch.stack(self.known(model, batch, wanted))
            condition_BLC = cast(Tensor, model.hands["image"](states_NKD))
        self.drawing.to(model.device)
        chance_B = torch.rand(len(wanted)).to(condition_BLC.device)
        unsteered_B = chance_B < self.config.unsteered
        if bool(unsteered_B.any()):
            zeros_1LC = cast(Tensor, model.negative("image", self.signals))
            condition_BLC = torch.where(unsteered_B[:, None, None], zeros_1LC, condition_BLC)
        weights_B = source_weights(batch.loss_weights_BT, wanted, condition_BLC.device)
        losses_B = self.noising.losses(self.drawing, condition_BLC, wanted, self._unseen(chance_B))
        total, parts = self.config.weight * losses_B, {"diffusion": float(losses_B.detach().mean())}
        if self.config.caption_weight:
            captions = ["" if gone else one.caption for one, gone in zip(wanted, unsteered_B.tolist(), strict=True)]
            target_BLC = self.drawing.encode_text(captions).to(condition_BLC)
            distance_B = CONDITION_LOSSES[self.config.distance](condition_BLC, target_BLC)
            total = total + self.config.caption_weight * distance_B
            parts["condition.image"] = float(distance_B.detach().mean())
        return means_added(words, Losses((total * weights_B).sum(), len(wanted), parts))

    def _reads(self, model: MultimodalModel, batch: Batch) -> bool:
        """Whether the LLM reads this batch; else its states are known, or computed once for each text."""
        feeds_back = model.config.hands["image"].feeds_back
        return self.config.text_weight > 0 or feeds_back or any(batch.media.values()) or llm_learns(model)

    def _unseen(self, chance_B: Tensor) -> Tensor:
        """Which media are drawn without a look at their picture."""
        first = self.config.unsteered / 2
        return (chance_B >= first) & (chance_B < first + self.config.unseen)


class TeachingDiffuse(Diffuse):
    """It owns what can learn of the generator."""

    def __init__(self, config: DiffuseConfig, drawing: Diffusing, processor: Processor) -> None:
        super().__init__(config, drawing, processor)
        self.module = drawing.decoder


def _picture_in_front(example: Example) -> None:
    """An edit is of a picture.

    Raises:
        DataError: there is none.
    """
    for one in example.wanted:
        if one.kind == "image" and one.picture is None:
            raise DataError("a picture in an answer without one in front of it", expected="the picture that is edited",
                            fix="leave the row out, or skip such rows with on_bad_row: skip")  # fmt: skip
