"""Who judges drawings: a small convolutional classifier, trained on real pictures alone, by a seed of its own.

Its last features are the space in which sets of pictures are compared.

Shape legend: N pictures, B of a batch, C colours, H/W pixels, K classes, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.progress import progress

SIDE_PX, FEATURES = 64, 64
WIDTHS = (24, 48, 96, 96)


@dataclass(frozen=True, slots=True)
class Schooling:
    """How a judge is trained."""

    epochs: int = 16
    batch_size: int = 32
    lr: float = 2e-3
    seed: int = 5


class Judge(nn.Module):
    """(N, 3, 64, 64) uint8 -> scores of classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in WIDTHS:
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.layers = nn.Sequential(*layers)
        # A mean says which colours there are, a maximum which shapes.
        self.last = nn.Linear(2 * before, FEATURES)
        self.out = nn.Linear(FEATURES, classes)

    def features(self, pixels_NCHW: Tensor) -> Tensor:
        """(N, D)."""
        x_NCHW = self.layers(pixels_NCHW.float() / 127.5 - 1)
        return F.relu(self.last(torch.cat([x_NCHW.mean((2, 3)), x_NCHW.amax((2, 3))], dim=1)))

    def forward(self, pixels_NCHW: Tensor) -> Tensor:
        return self.out(self.features(pixels_NCHW))

    @torch.no_grad()
    def seen(self, pictures: Sequence[PILImage.Image]) -> tuple[Tensor, Tensor]:
        """Scores (N, K) and features (N, D) of pictures of any size."""
        both = [(self.out(x), x) for part in pixels_of(pictures).split(64) for x in (self.features(part),)]
        return torch.cat([scores for scores, _ in both]), torch.cat([x for _, x in both])


def pixels_of(pictures: Sequence[PILImage.Image]) -> Tensor:
    """(N, 3, 64, 64) uint8."""
    small = [p.convert("RGB").resize((SIDE_PX, SIDE_PX), PILImage.Resampling.LANCZOS) for p in pictures]
    array_NHWC: np.ndarray[Any, Any] = np.stack([np.asarray(p) for p in small])
    return torch.from_numpy(array_NHWC.copy()).permute(0, 3, 1, 2)


def train_judge(pictures: Sequence[PILImage.Image], shares_NK: Tensor, schooling: Schooling = Schooling()) -> Judge:
    """A judge of pictures whose classes are known.

    Args:
        shares_NK: of each picture's classes, adding up to one: a half for each of two things.
    """
    with torch.random.fork_rng():
        torch.manual_seed(schooling.seed)
        judge = Judge(shares_NK.shape[1]).train()
        pixels_NCHW = pixels_of(pictures)
        steps = schooling.epochs * -(-len(pictures) // schooling.batch_size)
        optimiser = torch.optim.AdamW(judge.parameters(), lr=schooling.lr, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, schooling.lr, total_steps=steps, pct_start=0.15)
        with progress("training the judge", schooling.epochs) as meter:
            for epoch in range(schooling.epochs):
                for rows_B in torch.randperm(len(pictures)).split(schooling.batch_size):
                    if len(rows_B) < 2:
                        schedule.step()  # A norm over one picture has nothing to compare.
                        continue
                    loss = F.cross_entropy(judge(pixels_NCHW[rows_B]), shares_NK[rows_B])
                    optimiser.zero_grad(set_to_none=True)
                    loss.backward()
                    optimiser.step()
                    schedule.step()
                meter.update(epoch + 1)
    return judge.eval()
