"""The sizes of GILL's mapper, which NExT-GPT has too, as its tensors say them."""

from __future__ import annotations

from sensorium.interop.originals.base import Found, count, need
from sensorium.output_projectors.mapper import MapperConfig

HEADS = 4
"""A constant of both codes."""


def mapper_of(found: Found, before: str, out: str = "model") -> tuple[MapperConfig, int, int]:
    """The mapper whose names begin so and whose last map is called `out`, and length and width of what it makes.

    Raises:
        WeightsError: there is none, or it is of another mode.
    """
    fix = "take a checkpoint whose output projector is an encoder-decoder, as the published ones are"
    queries, last, inner = (need(found.tensors, before + name, found.path, fix) for name in
                           ("query_embs", f"{out}.weight", "tfm.encoder.layers.0.linear1.weight"))  # fmt: skip
    layers = count(found.tensors, f"{before}tfm.encoder.layers.")
    return MapperConfig(width=queries.shape[-1], layers=layers, heads=HEADS, mlp_width=len(inner)), queries.shape[1], len(last)
