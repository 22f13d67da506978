"""A second look at each thing of a picture: its box is cut out, encoded and summed up as a picture of its own.

A thing fills few cells of the map, whose features also hold what stands beside it. By itself it fills the encoder's
whole input, as the things did by which the projector learnt to sum pictures up. Crops that are classified one by one
are R-CNN's (arXiv:1311.2524); here they come from the pixels that the encoder had anyway. A crop is read twice, as a whole
picture and as a thing, which costs nothing beside the encoder.

Shape legend: M pictures, N boxes, E width of the encoder's map, D width of the LLM, C channels, H/W sides of the
encoder's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Features, MediaBatch
from sensorium.core.errors import AlignmentError


class SumsUp(Protocol):
    """A projector that says what a whole picture shows."""

    def summed_up(self, mean_ME: Tensor) -> Tensor:
        """(M, E) means of maps -> (M, D)."""
        ...


@dataclass(frozen=True, slots=True)
class Glance:
    """What looks: a lane's encoder and projector, at the pixels of a batch."""

    encoder: nn.Module
    projector: nn.Module
    media: MediaBatch

    @torch.no_grad()
    def means(self, pictures: int, picture_N: Tensor, box_N4: Tensor) -> Tensor:
        """(N, E): the mean of the map that the encoder makes of what each box holds.

        Args:
            pictures: M, how many pictures the boxes were found in.
            box_N4: x0, y0, x1, y1 in parts of the encoder's input.

        Raises:
            AlignmentError: the pixels of some pictures are not there.
        """
        pixels_MCHW = self.media.pixels_NCHW
        if len(pixels_MCHW) != pictures:
            raise AlignmentError(f"pixels of {len(pixels_MCHW)} of {pictures} pictures whose things are looked at once more",
                                 expected="all: stored features are not enough", where="places.glance",
                                 fix="use no feature store, and keep pixels beside features, or set glance: false")  # fmt: skip
        encoded: Features = self.encoder(crops(pixels_MCHW, picture_N, box_N4))
        grid = encoded.grids[0]
        return encoded.values_ND.unflatten(0, (-1, grid.tokens))[:, grid.prefix :].mean(dim=1)

    @torch.no_grad()
    def summed_up(self, mean_NE: Tensor) -> Tensor:
        """(N, D): what the projector says of whole pictures, to be compared with words."""
        return cast(SumsUp, self.projector).summed_up(mean_NE)


def crops(pixels_MCHW: Tensor, picture_N: Tensor, box_N4: Tensor) -> Tensor:
    """The square around each box's middle with the box's longer side, at the encoder's size, (N, C, H, W) uint8.

    Bilinear, as seen from the middles of pixels; beyond the picture its border goes on.
    """
    wide_N, high_N = (box_N4[:, 2:] - box_N4[:, :2]).clamp(min=1e-3).unbind(-1)
    side_N, none_N = torch.maximum(wide_N, high_N), torch.zeros_like(wide_N)
    # grid_sample counts from -1 to 1.
    x_N, y_N = (box_N4[:, :2] + box_N4[:, 2:] - 1).unbind(-1)
    theta_N23 = torch.stack([side_N, none_N, x_N, none_N, side_N, y_N], dim=-1).unflatten(-1, (2, 3)).float()
    _, channels, height, width = pixels_MCHW.shape
    grid_NHW2 = F.affine_grid(theta_N23, [len(box_N4), channels, height, width], align_corners=False)
    seen_NCHW = pixels_MCHW[picture_N].float()
    cut_NCHW = F.grid_sample(seen_NCHW, grid_NHW2, mode="bilinear", padding_mode="border", align_corners=False)
    return cut_NCHW.round().clamp(0, 255).to(torch.uint8)
