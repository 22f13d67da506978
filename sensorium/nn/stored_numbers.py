"""Number formats in which tensors are stored: as they are, in half precision, or in eight bits.

Eight bits are as in GGML's q8_0: 32 numbers that lie beside each other share a scale, and each is a whole multiple of it
between -127 and 127. Scales are in bfloat16, since those of small weights, such as an adapter's, are below the normal numbers of
half precision. A file stays plain safetensors: the multiples keep the tensor's name and shape, and the scales lie beside
them under a name that ends in `SCALES`.

Shape legend: S scales, K = 32 numbers of a scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from sensorium.core.errors import WeightsError

Numbers = Literal["f16", "q8_0"]
SHARED, STEPS = 32, 127
SCALES = ".q8_0_scales"
SMALL = 1024
"""Tensors of fewer numbers, such as those of norms, stay in half precision: they are few and matter much. So do those whose rows no whole
number of scales fills, such as the outer halves of low-rank adapters: rows of one scale may differ by orders of magnitude."""


def stored(tensors: Mapping[str, Tensor], numbers: Numbers | None) -> dict[str, Tensor]:
    """What is to be written of tensors: floating ones in a number format; None: as they are."""
    out: dict[str, Tensor] = {}
    for name, value in tensors.items():
        plain = value.detach().cpu().contiguous()
        if numbers is None or not plain.is_floating_point():
            out[name] = plain.clone()
        elif numbers == "q8_0" and plain.numel() >= SMALL and plain[0].numel() % SHARED == 0:
            out[name], out[name + SCALES] = _in_eight_bits(plain)
        else:
            out[name] = plain.to(torch.float16)
    return out


def _in_eight_bits(value: Tensor) -> tuple[Tensor, Tensor]:
    """Multiples in the tensor's shape, and scales (S,)."""
    groups_SK = value.float().view(-1, SHARED)
    # Multiples are those of the scale as it is stored, not as it was before that.
    scales_S1 = (groups_SK.abs().amax(1, keepdim=True) / STEPS).to(torch.bfloat16)
    wide_S1 = scales_S1.float()
    steps_SK = (groups_SK / torch.where(wide_S1 > 0, wide_S1, 1.0)).round().clamp(-STEPS, STEPS)
    return steps_SK.to(torch.int8).view(value.shape), scales_S1[:, 0]


def restored(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tensors of a file as they are to be used: those in eight bits become single precision.

    Raises:
        WeightsError: scales do not fit their tensor, or there is none.
    """
    out: dict[str, Tensor] = {name: value for name, value in tensors.items() if not name.endswith(SCALES)}
    for name, scales_S in tensors.items():
        if not name.endswith(SCALES):
            continue
        steps = out.get(name.removesuffix(SCALES))
        if steps is None or steps.dtype != torch.int8 or steps.numel() != scales_S.numel() * SHARED:
            found = "no tensor" if steps is None else f"{steps.numel()} numbers of {steps.dtype}"
            raise WeightsError(f"{found} beside {name}", expected=f"{scales_S.numel() * SHARED} of torch.int8", where=where)
        wide_SK = steps.view(-1, SHARED).float() * scales_S.float()[:, None]
        out[name.removesuffix(SCALES)] = wide_SK.view(steps.shape)
    return out
