"""Peak memory of stage 2 on rows of 4,096 tokens, ours beside TRL's `SFTTrainer`, on identical weights and samples.

    python benchmarks/training/memory.py [--shapes tiny 222M] [--steps 2]

One conversation of 4,096 tokens, with one picture and many answers, is one optimiser step of either side. Each runs twice: with
activations kept, and with layers that run again in the backward pass. TRL computes its loss in chunks by itself, and packs no rows
that hold pictures. The heap is each side's own affair here: the peers give freed blocks back, which is their leanest
setting. The peak is the process's own (VmHWM); `above_mb` is what lies above weights, gradients and AdamW's moments, which both
sides need alike; `estimated_mb`, beside our peaks, is what our plan said before step one. Results go to `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from compare import losses_agree, peers_python
from conductor import Side
from machine import RESULTS, keep
from ours import PLAN
from rows import write_rows
from shapes import SHAPES, Shape, words, write_model, write_pictures

from sensorium.interop.hf import import_hf
from sensorium.interop.saved import load_model

ROW_TOKENS = 4096
SAMPLES = 2
KEPT, AGAIN = "activations kept", "layers run again"
OURS = {KEPT: ["recompute='off'"], AGAIN: ["recompute='on'"]}
TRL = {KEPT: ["gradient_checkpointing=false"], AGAIN: ["gradient_checkpointing=true"]}


def prepare(shape: Shape, work: Path) -> None:
    """Weights, conversations and the peers' rows; once."""
    if (work / "rows.pt").exists():
        return
    shutil.rmtree(work, ignore_errors=True)
    write_model(shape, work / "hf")
    import_hf(work / "hf", work / "ours")
    count, found = ROW_TOKENS, set[int]()
    # A word is a token: what is too long by so many tokens loses so many words, and a round's own tokens with its last.
    for _ in range(4):
        write_long_samples(shape, work / "data", count)
        write_rows(work)
        found = {len(row["input_ids"]) for row in torch.load(work / "rows.pt", weights_only=True)}
        if found == {ROW_TOKENS}:
            return
        count -= max(found) - ROW_TOKENS
    sys.exit(f"rows of {sorted(found)} tokens, {ROW_TOKENS} were wanted")


def write_long_samples(shape: Shape, folder: Path, count: int) -> None:
    """Conversations of `count` words in rounds of 16 and 112, the last one shorter."""
    draw = random.Random(1)
    write_pictures(shape, folder, SAMPLES)
    lines: list[str] = []
    for i in range(SAMPLES):
        messages: list[dict[str, Any]] = []
        left = count
        while left > 16:
            question, answer = words(draw, 16), words(draw, min(112, left - 16))
            picture = [{"type": "image", "image": f"{i}.jpg"}] if left == count else []
            messages += [{"role": "user", "content": [*picture, {"type": "text", "text": question}]},
                         {"role": "assistant", "content": answer}]  # fmt: skip
            left -= 16 + len(answer.split())
        lines.append(json.dumps({"id": str(i), "messages": messages}))
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def state_mb(work: Path) -> int:
    """Weights, and a gradient and two moments of each parameter that learns in stage 2, in fp32."""
    model, _ = load_model(work / "ours")
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    learning = sum(n for name, n in sizes.items() if name.startswith(("projectors.image", "backbone")))
    return round(4 * (sum(sizes.values()) + 3 * learning) / 2**20)


def measure(name: str, command: list[str], work: Path, steps: int) -> Side:
    """Run one side alone, for so many steps; from the second on the moments are there, and all is as in any later one."""
    side = Side(name, command, 1, work / f"{name.replace(', ', '-').replace(' ', '-')}.log", heap={})
    side.start()
    for _ in range(steps - 1):
        side.turn(1)
    side.stop()
    print(f"  {name:24s} {side.peak_mb:6d} MB  {side.rates['tokens_per_s']:.0f} tokens/s", flush=True)
    return side


def estimated(work: Path) -> dict[str, int]:
    """The peak that the plan of our last run estimated."""
    plan = json.loads((work / "run-2" / PLAN).read_text(encoding="utf-8"))
    print(f"  {'':24s} {plan['memory_mb']:6d} MB  as planned", flush=True)
    return {"estimated_mb": plan["memory_mb"]}


def compare(shape: Shape, work: Path, python: str, options: argparse.Namespace) -> dict[str, Any]:
    common = ["--work", str(work), "--shape", shape.name, "--stage", "2", "--threads", "1"]
    state = state_mb(work)
    print(f"{shape.name}: {state} MB of weights, gradients and moments", flush=True)
    sides: list[Side] = []
    planned: dict[str, dict[str, int]] = {}
    for way in options.ways:
        sides.append(measure(f"ours, {way}", [sys.executable, "ours.py", *common, "--set", "batch_size=1",
                                              f"max_length={ROW_TOKENS}", *OURS[way]], work, options.steps))  # fmt: skip
        planned[f"ours, {way}"] = estimated(work)
        sides.append(measure(f"trl, {way}", [python, "hf.py", "--peer", "trl", *common, "--passes", "1", "--set",
                                             "per_device_train_batch_size=1", *TRL[way]], work, options.steps))  # fmt: skip
    peaks = {side.name: side.peak_mb for side in sides}
    ours, trl = (min(mb for name, mb in peaks.items() if name.startswith(who)) for who in ("ours", "trl"))
    ratios = {f"{way}/{way}": peaks[f"ours, {way}"] / peaks[f"trl, {way}"] for way in options.ways}
    ratios |= {f"leanest/{way}": ours / peaks[f"trl, {way}"] for way in options.ways}
    return {
        "row_tokens": ROW_TOKENS, "state_mb": state,
        "sides": {side.name: {"peak_mb": side.peak_mb, **planned.get(side.name, {}), "above_mb": side.peak_mb - state, **side.rates}
                  for side in sides},
        "ratio": {name: round(value, 3) for name, value in ratios.items()},
        "ratio_above_state": round((ours - state) / (trl - state), 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["tiny", "222M"])
    parser.add_argument("--ways", nargs="+", choices=(AGAIN, KEPT), default=[AGAIN, KEPT])
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("runs/bench"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    python = peers_python(options.work.resolve() / "peers")
    shapes: dict[str, Any] = {}
    for name in options.shapes:
        shape, work = replace(SHAPES[name], batch=1), options.work.resolve() / f"long-{name}"
        prepare(shape, work)
        worst = losses_agree(shape, work, python, ["trl"])
        shapes[name] = {"loss_difference": worst, **compare(shape, work, python, options)}
        keep("memory", {"threads": 1, "shapes": shapes}, options.out)


if __name__ == "__main__":
    main()
