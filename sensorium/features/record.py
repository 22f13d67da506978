"""One picture's features as a record: a JSON head of a multiple of 64 bytes, then the values.

Shape legend: N features laid end to end, D width.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from sensorium.core.batch import Features, Grid, Kept, MediaShape

FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
ALIGNED = 64


def name_of(dtype: torch.dtype) -> str:
    """`float32` of `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def write_head(kept: Kept, features: Features, was: torch.dtype) -> bytes:
    """What the values are.

    Args:
        was: the number format that they had before they were rounded.
    """
    head: dict[str, Any] = {
        "shape": [kept.shape.height_px, kept.shape.width_px],
        "plan": kept.plan,
        "grids": [[grid.h, grid.w, grid.prefix] for grid in features.grids],
        "width": features.dim,
        "format": name_of(features.values_ND.dtype),
        "was": name_of(was),
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    return text.ljust(-(-len(text) // ALIGNED) * ALIGNED)


def raw_bytes(values_ND: Tensor) -> memoryview:
    """The values as they lie in memory, on the CPU."""
    return values_ND.contiguous().reshape(-1).view(torch.uint8).numpy().data


def read_record(key: bytes, content: bytearray, head: int) -> Kept:
    """The picture of a record whose checksum was right.

    Raises:
        ValueError: it was written by something else.
    """
    try:
        said = json.loads(content[:head])
        grids = tuple(Grid(*row) for row in said["grids"])
        values = torch.frombuffer(content, dtype=FORMATS[said["format"]], offset=head)
        values_ND = values.view(sum(grid.tokens for grid in grids), said["width"]).to(FORMATS[said["was"]])
        return Kept(key, MediaShape(*said["shape"]), said["plan"], Features(values_ND, grids))
    except (KeyError, TypeError, RuntimeError, UnicodeDecodeError) as error:
        raise ValueError(f"no record of a feature store: {error}") from None
