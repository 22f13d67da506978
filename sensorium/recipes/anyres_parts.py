"""How LLaVA-1.5-HD, LLaVA-NeXT and LLaVA-OneVision lay pictures out in tiles."""

from __future__ import annotations

from typing import Any

from sensorium.media.anyres import AnyResolution
from sensorium.media.image import BLACK

# (rows, columns) of tiles, in the order of image_grid_pinpoints
# (github.com/LLaVA-VL/LLaVA-NeXT, scripts/train/direct_finetune_clip.sh and finetune_ov.sh).
NEXT_GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
# LLaVA-1.5-HD: one row or column of up to six, or 2x2 and 2x3.
HD_GRIDS = (
    (1, 1), *((1, n) for n in range(2, 7)), *((n, 1) for n in range(2, 7)), (2, 2), (2, 3), (3, 2),
)  # fmt: skip
ONEVISION_GRIDS = tuple((rows, cols) for rows in range(1, 7) for cols in range(1, 7))


def anyres(grids: tuple[tuple[int, int], ...], **changes: Any) -> AnyResolution:
    """Tiles on a black canvas and the picture squeezed to one tile, without a cap on tokens."""
    return AnyResolution(
        grids=grids, thumbnail_fit="stretch", padding=BLACK, max_tokens=None, **changes
    )
