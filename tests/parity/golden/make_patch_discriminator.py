"""Writes `patch_discriminator.json`: what VQGAN's discriminator and its loss compute, of both sides.

    python tests/parity/golden/make_patch_discriminator.py CLONE

with a clone of github.com/CompVis/taming-transformers (3ba01b2 wrote the file), where torch is installed. Weights and pictures are
hashed counters, so that the file holds none. One stand-in: LPIPS, which would fetch weights and is not asked.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from make_qwen_vl import noise, weights  # noqa: E402

SIZES = {"two": (2, 6, 16), "three": (3, 8, 32), "five": (5, 2, 96)}
"""Layers, width, and the pictures' side."""
WEIGHT = 0.8


def pictures(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Given ones, what the last layer makes others of, and that layer's weights."""
    return noise((2, 3, side, side), 900), noise((2, 4, side, side), 901), 0.2 * noise((3, 4, 3, 3), 902)


def judged(loss: Any, side: int) -> dict[str, Any]:
    """Both sides' losses and gradients at a step when the discriminator has begun."""
    wanted, states, last = pictures(side)
    layer = nn.Conv2d(4, 3, 3, padding=1, bias=False)
    layer.weight.data.copy_(last)
    made, codebook = layer(states), torch.zeros(())
    total, said = loss(codebook, wanted, made, 0, 5, last_layer=layer.weight)
    (of_last,) = torch.autograd.grad(total, layer.weight)
    hinge, _ = loss(codebook, wanted, made, 1, 5)
    parameters = dict(loss.discriminator.named_parameters())
    grads = torch.autograd.grad(hinge, list(parameters.values()))
    return {
        "logits": loss.discriminator(wanted).flatten().tolist(), "total": total.item(), "weight": float(said["train/d_weight"]),
        "last": of_last.flatten().tolist(), "hinge": hinge.item(),
        "grads": {name: [float(grad.norm()), float((grad * noise(tuple(grad.shape), 903)).sum())]
                  for name, grad in zip(parameters, grads, strict=True)},
    }  # fmt: skip


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    stand_in: Any = types.ModuleType("taming.modules.losses.lpips")
    stand_in.LPIPS = nn.Identity
    sys.modules["taming.modules.losses.lpips"] = stand_in
    from taming.modules.losses.vqperceptual import (  # pyright: ignore[reportMissingImports]
        VQLPIPSWithDiscriminator,
    )

    made: dict[str, Any] = {}
    for name, (layers, width, side) in SIZES.items():
        loss: Any = VQLPIPSWithDiscriminator(disc_start=5, disc_num_layers=layers, disc_ndf=width, disc_weight=WEIGHT, perceptual_weight=0.0)
        shapes = {n: list(p.shape) for n, p in loss.discriminator.named_parameters()}
        loss.discriminator.load_state_dict(weights(shapes), strict=False)
        made[name] = {"shapes": shapes, **judged(loss.train(), side)}
    (HERE / "patch_discriminator.json").write_text(json.dumps(made) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
