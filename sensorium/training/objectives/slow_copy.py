"""A slower copy of a model that compares pictures and texts, and a queue of what it saw: more candidates
to tell apart, and softer targets, for captions that fit other pictures too.

Sources: MoCo (arXiv:1911.05722), ALBEF (arXiv:2107.07651), BLIP (arXiv:2201.12086); github.com/salesforce/BLIP,
models/blip_pretrain.py and models/blip_retrieval.py.

Shape legend: N pairs, K candidates: N and the queue's, Q places in the queue, J width of the shared space.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Batch, MediaBatch
from sensorium.core.config import Config
from sensorium.core.hashing import bytes_int
from sensorium.model.joint import matching_parts, text_vectors
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.contrastive import enqueue, soft_targets, softmax_contrast, with_queue

NOBODY = -1
LEAST, MOST = 0.001, 0.5


class SlowConfig(Config):
    """Defaults are BLIP's."""

    momentum: float = Field(default=0.995, ge=0.0, lt=1.0)
    """Share of itself that the copy keeps at each step."""
    queue: int = Field(default=57_600, ge=1)
    share: float = Field(default=0.4, ge=0.0, le=1.0)
    """Of the copy's opinion in the targets (alpha)."""
    rise_epochs: float = Field(default=1.0, gt=0.0)
    """Passes over the data during which the share rises from nothing."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What came of contrast."""

    loss: Tensor
    to_texts_NK: Tensor
    to_pictures_NK: Tensor


class Temperature(nn.Module):
    """The number that cosines are divided by; it learns."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))


class SlowCopy(nn.Module):
    """Copy, queue and temperature. Only the latter learns; the copy follows (`stepped`)."""

    pictures_QJ: Tensor
    texts_QJ: Tensor
    owners_Q: Tensor
    pointer: Tensor
    seen: Tensor
    """Pairs, since the beginning."""

    def __init__(self, config: SlowConfig, model: MultimodalModel, rows: int, temperature: float) -> None:
        """Take a copy.

        Args:
            rows: of data, one pass over which is an epoch.
            temperature: at first.
        """
        super().__init__()
        self.config, self.rows = config, max(1, rows)
        self.slow = only_compares(copy.deepcopy(model))
        self.temperature = Temperature(temperature)
        width = matching_parts(model)[1].vision_proj.out_features
        for name in ("pictures_QJ", "texts_QJ"):
            self.register_buffer(name, F.normalize(torch.randn(config.queue, width), dim=-1))
        self.register_buffer("owners_Q", torch.full((config.queue,), NOBODY))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self._new: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def share(self) -> float:
        """Of the copy's opinion in the next batch's targets."""
        return self.config.share * min(1.0, int(self.seen) / (self.config.rise_epochs * self.rows))

    def contrast(
        self, batch: Batch, pictures_NJ: Tensor, texts_NJ: Tensor, owners_N: Tensor | None = None
    ) -> Compared:
        """Contrast with what the copy makes of the batch, and with the queue.

        Args:
            pictures_NJ, texts_NJ: the model's own vectors, of length 1.
            owners_N: a number for each pair's picture, where captions of one picture are all right.
        """
        with torch.no_grad():
            self.temperature.value.clamp_(LEAST, MOST)
            slow_pictures_NJ, slow_texts_NJ = vectors(self.slow, batch)
        pictures_KJ = with_queue(slow_pictures_NJ, self.pictures_QJ)
        texts_KJ = with_queue(slow_texts_NJ, self.texts_QJ)

        def scores(pictures_NJ: Tensor, texts_NJ: Tensor) -> tuple[Tensor, Tensor]:
            divisor = self.temperature.value
            return pictures_NJ @ texts_KJ.T / divisor, texts_NJ @ pictures_KJ.T / divisor

        own = scores(pictures_NJ, texts_NJ)
        right_NK = None if owners_N is None else owners_N[:, None] == torch.cat([owners_N, self.owners_Q])
        slow_texts_NK, slow_pictures_NK = scores(slow_pictures_NJ, slow_texts_NJ)
        targets = (soft_targets(slow_texts_NK, self.share, right_NK),
                   soft_targets(slow_pictures_NK, self.share, right_NK))  # fmt: skip
        if owners_N is None:
            owners_N = torch.full((len(texts_NJ),), NOBODY, device=texts_NJ.device)
        self._new.append((slow_pictures_NJ, slow_texts_NJ, owners_N))
        return Compared(softmax_contrast(*own, targets=targets), *own)

    @torch.no_grad()
    def begin(self, model: MultimodalModel) -> None:
        """Be equal to the model that a stage begins with; what was compared in trial is forgotten."""
        self._new.clear()
        self._follow(model, 0.0)

    @torch.no_grad()
    def stepped(self, model: MultimodalModel) -> None:
        """Follow the model, which has learnt from what was compared since the last time; queue that."""
        self._follow(model, self.config.momentum)
        place = int(self.pointer)
        for pictures_NJ, texts_NJ, owners_N in self._new:
            enqueue(self.pictures_QJ, place, pictures_NJ)
            enqueue(self.owners_Q, place, owners_N)
            place = enqueue(self.texts_QJ, place, texts_NJ)
            self.seen += len(texts_NJ)
        self.pointer.fill_(place)
        self._new.clear()

    def _follow(self, model: MultimodalModel, kept: float) -> None:
        fast = dict(model.named_parameters())
        for name, parameter in self.slow.named_parameters():
            parameter.mul_(kept).add_(fast[name], alpha=1 - kept)


def only_compares(model: MultimodalModel) -> MultimodalModel:
    """The model without the heads and the decoder that its vectors do not need."""
    lm: Any = model.backbone.lm
    lm.itm_head, lm.text_decoder = None, None
    return model.requires_grad_(False)


def vectors(model: MultimodalModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Vectors of length 1 of a batch's pictures and of its texts, (N, J) each."""
    tower, scorer = matching_parts(model)
    pictures_NJ = scorer.pictures(model.features(batch.media)["image"])
    return unit(pictures_NJ), unit(text_vectors(tower, batch))


def unit(vectors_NJ: Tensor) -> Tensor:
    """Of length 1, in single precision."""
    return F.normalize(vectors_NJ.float(), dim=-1)


def owners(media: MediaBatch) -> Tensor:
    """A number for every picture, the same for the same pixels, (N,)."""
    numbers = [bytes_int(pixels_CHW.cpu().numpy().tobytes()) for pixels_CHW in media.pixels_NCHW]
    return torch.tensor(numbers, device=media.pixels_NCHW.device)
