"""A network that tells drawn pictures from given ones, patch by patch (PatchGAN, arXiv:1611.07004).

The one that VQGAN (arXiv:2012.09841) learns against; github.com/CompVis/taming-transformers, taming/modules/discriminator/model.py.
It norms by each batch's own statistics, as the original does in training, and keeps none: it never judges anything else, and so a
pass that is not its own leaves no trace in it.

Shape legend: B pictures, C colours, H/W pixels, h/w patches of a column and row.
"""

from __future__ import annotations

from torch import Tensor, nn

KERNEL, SLOPE = 4, 0.2
WIDEST = 8
"""Times the first width; then it grows no more."""
SPREAD = 0.02
"""Deviation of first weights: of convolutions from 0, of norms from 1."""


class PatchDiscriminator(nn.Module):
    """Each of `layers` halves the sides and doubles the width; with three, one answer sees 70 x 70 pixels."""

    def __init__(self, layers: int = 3, width: int = 64) -> None:
        super().__init__()
        widths = [width * min(2**n, WIDEST) for n in range(layers + 1)]
        main: list[nn.Module] = [nn.Conv2d(3, width, KERNEL, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        for n in range(layers):
            # What a norm takes away again needs no bias.
            main.append(nn.Conv2d(widths[n], widths[n + 1], KERNEL, stride=2 if n + 1 < layers else 1, padding=1, bias=False))
            main += [nn.BatchNorm2d(widths[n + 1], track_running_stats=False), nn.LeakyReLU(SLOPE)]
        self.main = nn.Sequential(*main, nn.Conv2d(widths[-1], 1, KERNEL, padding=1))
        for part in self.main:
            if isinstance(part, nn.Conv2d | nn.BatchNorm2d):
                nn.init.normal_(part.weight, float(isinstance(part, nn.BatchNorm2d)), SPREAD)

    def forward(self, values_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) values around -1..1 -> logits (B, 1, h, w), high for given pictures.

        The pictures of a batch are normed together, so given and drawn ones come in batches of their own.
        """
        return self.main(values_BCHW)


def smallest_px(layers: int) -> int:
    """The least side of pictures of which one patch is left."""
    # Halved by each layer, rounded down; then two convolutions of 4 take a row each.
    return 3 * 2**layers
