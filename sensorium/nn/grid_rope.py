"""Rotary positions of a map: half of each head turns with the row, half with the column.

EVA-02 (arXiv:2303.11331; github.com/baaivision/EVA, rope.py). Neighbouring numbers of a head are a
pair, and the map is stretched over the one that the tower first learnt on.

Shape legend: L positions of the map, E width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

PERIOD = 10000.0


def grid_angles(height: int, width: int, head_dim: int, side: int, like: Tensor) -> Tensor:
    """The angle of each number of a head, (height * width, E), in reading order.

    Args:
        head_dim: a multiple of four.
        side: rows and columns of the map that the tower first learnt on.
        like: gives the device; angles are fp32.
    """
    steps = torch.arange(0, head_dim // 2, 2, device=like.device, dtype=torch.float32)
    speed = PERIOD ** -(steps / (head_dim // 2))
    rows = torch.arange(height, device=like.device, dtype=torch.float32) / height * side
    cols = torch.arange(width, device=like.device, dtype=torch.float32) / width * side
    by_row = torch.outer(rows, speed).repeat_interleave(2, dim=1)
    by_col = torch.outer(cols, speed).repeat_interleave(2, dim=1)
    both = (by_row[:, None].expand(-1, width, -1), by_col[None].expand(height, -1, -1))
    return torch.cat(both, dim=-1).flatten(0, 1)


def turn(x: Tensor, angles_LE: Tensor) -> Tensor:
    """(..., L, E) with each pair of neighbours turned by its angle."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    crossed = torch.stack((-second, first), dim=-1).flatten(-2)
    return (x * angles_LE.cos() + crossed * angles_LE.sin()).to(x.dtype)
