"""Tables of positions, stretched to maps of another size.

Shape legend: P entries of a square table, D width, H/W sides of a map.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional


def stretched(table_PD: Tensor, height: int, width: int) -> Tensor:
    """The table for a map of another size, (height * width, D), bicubic between its entries."""
    side = math.isqrt(len(table_PD))
    if (side, side) == (height, width):
        return table_PD
    table_1DSS = table_PD.float().T.reshape(1, -1, side, side)
    map_1DHW = functional.interpolate(
        table_1DSS, (height, width), mode="bicubic", align_corners=False
    )
    return map_1DHW[0].flatten(1).T.to(table_PD)
