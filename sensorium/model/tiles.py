"""From one feature map a tile to one token sequence a picture.

Shape legend: M pictures, R/C rows and columns of tiles, h/w tokens of a tile, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sensorium.core.batch import Features, Grid, TilePlan
from sensorium.core.errors import AlignmentError


def pack_tiles(
    features: Features, plans: tuple[TilePlan, ...], newline_D: Tensor | None
) -> Features:
    """Merge tiles: thumbnail tokens first, then the kept window of the merged map, shrunk
    where the plan says so, each row closed by the newline vector (LLaVA-NeXT's order). Of a lone tile squares
    are averaged where the plan says so.

    Raises:
        AlignmentError: the number of encoded tiles is not what the plans announce.
    """
    announced = sum(plan.images for plan in plans)
    if announced != len(features.grids):
        raise AlignmentError(
            f"{len(features.grids)} encoded tiles", expected=f"{announced} by the tile plans"
        )
    if announced == len(plans) and not any(plan.thumbnail or plan.newline or plan.pool > 1 for plan in plans):
        return features
    pieces = torch.split(features.values_ND, features.lengths)
    packed: list[Tensor] = []
    start = 0
    for plan in plans:
        tiles = pieces[start : start + plan.images]
        tile = features.grids[start]
        start += plan.images
        packed.append(_pack_one(tiles, plan, tile, newline_D))
    grids = tuple(Grid(1, len(piece)) for piece in packed)
    return Features(torch.cat(packed), grids)


def _pack_one(
    tiles: tuple[Tensor, ...], plan: TilePlan, tile: Grid, newline_D: Tensor | None
) -> Tensor:
    end_D = newline_D.to(tiles[0].dtype) if plan.newline and newline_D is not None else None
    if plan.images == 1 and not plan.thumbnail:
        alone = tiles[0] if plan.pool == 1 else _averaged(tiles[0], tile, plan.pool)
        return alone if end_D is None else torch.cat([alone, end_D[None]])
    out = [tiles[0]] if plan.thumbnail else []
    body = torch.stack(tiles[1:] if plan.thumbnail else tiles)
    map_HWD = body.view(plan.rows, plan.cols, tile.h, tile.w, -1)
    map_HWD = map_HWD.transpose(1, 2).reshape(plan.rows * tile.h, plan.cols * tile.w, -1)
    top, bottom, left, right = plan.window(tile)
    map_HWD = _shrunk(map_HWD[top:bottom, left:right], plan.map_size(tile))
    if end_D is not None:
        map_HWD = torch.cat([map_HWD, end_D.expand(len(map_HWD), 1, -1)], dim=1)
    return torch.cat([*out, map_HWD.flatten(0, 1)])


def _averaged(tokens_ND: Tensor, tile: Grid, side: int) -> Tensor:
    """Means of squares of a map, row by row, behind what stands in front of it."""
    map_HWD = tokens_ND[tile.prefix :].view(tile.h // side, side, tile.w // side, side, -1)
    return torch.cat([tokens_ND[: tile.prefix], map_HWD.mean(dim=(1, 3)).flatten(0, 1)])


def _shrunk(map_HWD: Tensor, size: tuple[int, int]) -> Tensor:
    """The map interpolated to `size`, (rows, columns), if it has another."""
    if tuple(map_HWD.shape[:2]) == size:
        return map_HWD
    smaller_1DHW = functional.interpolate(map_HWD.permute(2, 0, 1)[None], size, mode="bilinear")
    return smaller_1DHW[0].permute(1, 2, 0)
