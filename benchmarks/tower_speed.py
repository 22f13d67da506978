"""Pictures per second of EfficientNet-Lite, ours and the reference package's, in one run.

    python benchmarks/tower_speed.py [--variant lite0] [--batch 8] [--seconds 10] [--backward]

Ours works channels last, with the norms folded into the kernels; the peer is
`efficientnet-lite-pytorch` as it comes: contiguous, with `nn.BatchNorm2d` of stored statistics.
Both have the same weights, read the same bytes, and must give the same map. One thread; the two
take turns, the best of all turns counts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor

from sensorium.encoders.efficientnet_lite import EfficientNetLiteConfig
from sensorium.interop.efficientnet import CLASSIFIER, to_ours

Run = Callable[[Tensor], Tensor]


def build(variant: str) -> dict[str, Run]:
    """Both towers as functions from uint8 pixels to the head's map."""
    theirs = EfficientNet.from_name(f"efficientnet-{variant}").eval()
    config = EfficientNetLiteConfig.from_dict({"variant": variant})
    tower = config.build().eval()
    state = {to_ours(k): v for k, v in theirs.state_dict().items() if k not in CLASSIFIER}
    tower.load_state_dict(tower.state_dict() | state)
    side = config.grid().h

    def ours(pixels_NCHW: Tensor) -> Tensor:
        values_ND = tower(pixels_NCHW).values_ND
        return values_ND.view(len(pixels_NCHW), side * side, -1).transpose(1, 2).unflatten(2, (side, side))

    def reference(pixels_NCHW: Tensor) -> Tensor:
        return theirs.extract_features(tower.normalise(pixels_NCHW))

    return {"reference": reference, "ours": ours}


def seconds(run: Run, pixels_NCHW: Tensor, *, backward: bool) -> float:
    start = time.perf_counter()
    with torch.set_grad_enabled(backward):
        out = run(pixels_NCHW)
    if backward:
        out.square().mean().backward()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--variant", default="lite0")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--backward", action="store_true", help="time training, not inference")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    runs = build(options.variant)
    size = EfficientNetLiteConfig.from_dict({"variant": options.variant}).size_px
    pixels_NCHW = torch.randint(0, 256, (options.batch, 3, size, size), dtype=torch.uint8)
    with torch.no_grad():
        # Also warms both up.
        torch.testing.assert_close(*(run(pixels_NCHW) for run in runs.values()), atol=1e-4, rtol=1e-4)
    best = dict.fromkeys(runs, float("inf"))
    end, turns = time.perf_counter() + options.seconds, 0
    while turns == 0 or time.perf_counter() < end:
        turns += 1
        for name, run in runs.items():
            best[name] = min(best[name], seconds(run, pixels_NCHW, backward=options.backward))
    rate = {name: round(options.batch / value, 2) for name, value in best.items()}
    print(json.dumps({
        "variant": options.variant, "batch": options.batch, "backward": options.backward,
        "turns": turns, "images_per_s": rate, "ratio": round(rate["ours"] / rate["reference"], 3),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
