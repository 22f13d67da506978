"""Tables of positions, stretched to maps of another size.

Shape legend: P entries of a square table, D width, H/W sides of a map.
"""

from __future__ import annotations

import math

import torch
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


TABLES = ("embeddings.position_embedding.weight", "embeddings.position_embedding", "positions_LD",
          "positions_PD", "behind_LD")  # fmt: skip
"""Ends of the names of vision towers' tables of positions."""


def refitted(table: Tensor, rows: int) -> Tensor | None:
    """A tower's table, (..., rows, D), for another number of rows: what it becomes when weights are
    loaded for pictures of another size. CLS, where there is one, keeps its position.

    Returns:
        None: the two are not squares, both with CLS or both without.
    """
    for front in (0, 1):
        old, new = table.shape[-2] - front, rows - front
        side = math.isqrt(max(0, new))
        if min(old, new) > 0 and side**2 == new and math.isqrt(old) ** 2 == old:
            flat_LD = table.reshape(-1, table.shape[-1])
            map_LD = torch.cat([flat_LD[:front], stretched(flat_LD[front:], side, side)])
            return map_LD.reshape(*table.shape[:-2], rows, -1)
    return None
