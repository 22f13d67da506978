"""Writes `c_abstractor.json`: what timm's RegNet stages compute when they are put together as Honeybee does.

    python make_c_abstractor.py

where torch and timm are installed. Weights are hashed counters, so that the file holds none.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from make_qwen_vl import noise, weights  # noqa: E402

D_IN, WIDTH, D_OUT, DEPTH, SIDE, POOLED = 12, 16, 24, 2, 6, 4


def main() -> None:
    from timm.layers import LayerNorm2d  # pyright: ignore
    from timm.models.regnet import RegStage  # pyright: ignore

    stage: Any = partial(RegStage, stride=1, dilation=1, act_layer=nn.SiLU, norm_layer=LayerNorm2d)
    net = nn.ModuleDict({
        "net": nn.Sequential(stage(DEPTH, D_IN, WIDTH), nn.AdaptiveAvgPool2d((POOLED, POOLED)),
                             stage(DEPTH, WIDTH, WIDTH)),
        "readout": nn.Sequential(nn.Linear(WIDTH, D_OUT), nn.SiLU(), nn.Linear(D_OUT, D_OUT)),
    }).eval()  # fmt: skip
    shapes = {name: list(value.shape) for name, value in net.state_dict().items()}
    net.load_state_dict(weights(shapes))
    positions, items = noise((SIDE * SIDE, D_IN), 500), noise((2, SIDE * SIDE, D_IN), 501)
    with torch.no_grad():
        grid = (items + positions).transpose(1, 2).reshape(2, D_IN, SIDE, SIDE)
        out = net["readout"](net["net"](grid).flatten(2).transpose(1, 2))
    made = {"shapes": shapes, "out": [[round(float(v), 6) for v in row[::5]] for row in out.flatten(0, 1)]}
    (HERE / "c_abstractor.json").write_text(json.dumps(made) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
