"""A picture tokenizer learns to give the pictures of answers back; the LLM does not run.

What `sensorium tokenizer train` does by distances (arXiv:1711.00937), as a stage: the model's drawer keeps what is learnt. One that learnt
against a discriminator comes from that command, by the drawer's `weights`.

Shape legend: B pictures, C colours, H/W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError
from sensorium.data.source import Source
from sensorium.generators.drawer import Drawer
from sensorium.generators.vq import VqTokenizer
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.vector_quantise import code_use
from sensorium.processing.processor import Processor
from sensorium.processing.wanted_pictures import wanted_pixels
from sensorium.training.objectives.base import Losses, Objective, ObjectiveConfig


class PictureCodesConfig(ObjectiveConfig):
    """Teaches the tokenizer of `hands.image`'s drawer: `learns` names the part `objective`."""

    kind: Literal["picture_codes"] = "picture_codes"
    l1: float = Field(default=1.0, ge=0.0)
    l2: float = Field(default=1.0, ge=0.0)
    """Weights of the mean absolute and squared distance of values in -1..1; the codebook's loss has weight 1."""

    @property
    def runs_llm(self) -> bool:
        return False

    @property
    def from_answers(self) -> tuple[str, ...]:
        return ("image",)

    def build(self, model: MultimodalModel, processor: Processor, sources: Sequence[Source]) -> Objective:
        return PictureCodes(self, drawer_of(model, self.kind), processor)


class PictureCodes:
    """It owns the whole drawer, so that the next stage goes on from what this one taught; its painter learns nothing."""

    def __init__(self, config: PictureCodesConfig, drawer: Drawer, processor: Processor) -> None:
        self.config = config
        self.module: nn.Module = drawer
        self.limits = processor.limits

    def __call__(self, model: MultimodalModel, batch: Batch) -> Losses:
        tokenizer = cast(VqTokenizer, self.module.tokenizer)
        wanted = [one for one in batch.wanted if one.kind == "image"]
        if not wanted:
            return Losses(torch.zeros((), device=model.device), 0, {})
        pixels_BCHW = wanted_pixels(wanted, tokenizer.size_px, self.limits).to(model.device)
        values_BCHW = tokenizer.to_values(pixels_BCHW)
        out = tokenizer(values_BCHW)
        parts = {
            "l1": self.config.l1 * F.l1_loss(out.values_BCHW, values_BCHW),
            "l2": self.config.l2 * F.mse_loss(out.values_BCHW, values_BCHW),
            "codebook": out.loss,
        }
        use = code_use(out.ids_BN, tokenizer.codes)
        named = {name: float(part.detach()) for name, part in parts.items()} | {"perplexity": use.perplexity}
        return Losses(torch.stack(list(parts.values())).sum() * len(wanted), len(wanted), named)


def drawer_of(model: MultimodalModel, objective: str) -> Drawer:
    """The drawer behind `hands.image`, with nothing of it learning yet.

    Raises:
        ConfigError: the model has none.
    """
    generator = model.generators["image"] if "image" in model.config.hands else None
    if not isinstance(generator, Drawer):
        made = "makes no pictures" if generator is None else f"draws by {type(generator).__name__}"
        raise ConfigError(f"objective {objective!r} for a model that {made}", expected="hands.image with generator: {kind: drawer}",
                          where="objective.kind")  # fmt: skip
    return generator.requires_grad_(False)
