"""Safetensors files written in pieces, outside the interpreter's lock, and hashed on the way.

The library's own writer makes a second copy of all tensors and holds the lock while it writes: a step that runs
beside it would stand still. The format: the header's length in 8 bytes, a JSON header, the tensors' bytes
(github.com/huggingface/safetensors).
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sensorium.training.disk import naming

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip
PIECE = 8 << 20


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors of the CPU.

    Returns:
        The file's SHA-256, of what was meant to be written: reading it back tells whether the disk kept it.

    Raises:
        OSError: names the file.
    """
    # Wide elements first, so that each tensor lies at a multiple of its element's size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header, end = {}, 0
    for name in names:
        value = tensors[name]
        start, end = end, end + value.numel() * value.element_size()
        header[name] = {"dtype": DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": [start, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    digest = hashlib.sha256()
    with naming(path), path.open("wb", buffering=0) as stream:
        for piece in (struct.pack("<Q", len(head)), head):
            digest.update(piece)
            _write(stream.fileno(), memoryview(piece))
        for name in names:
            # Any dtype as bytes: numpy does not know bfloat16.
            content = tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data
            for start in range(0, len(content), PIECE):
                piece = content[start : start + PIECE]
                digest.update(piece)
                _write(stream.fileno(), piece)
    return digest.hexdigest()


def _write(descriptor: int, piece: memoryview) -> None:
    """All of a piece: the system may take less at once."""
    while piece:
        piece = piece[os.write(descriptor, piece) :]
