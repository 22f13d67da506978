"""Training speed beside nanoVLM's own loop, on identical weights, pictures and tokens.

    python benchmarks/training/nanovlm.py --device cuda [--shapes nanovlm-222M nanovlm-460M] [--nanovlm FOLDER]

nanoVLM (github.com/huggingface/nanoVLM) is cloned at one commit, or taken from a folder, and its `train()` runs unchanged
(`nanovlm_side.py`) with its defaults and with larger batches. The tower is frozen (`lr_vision_backbone=0`) unless `--tower` lets it learn, too.
Before anything is timed, learned tokens must be the same and losses of single samples agree to 1e-4. Both take turns; what counts is
the median of the rounds' ratios. Ours reads features of a frozen tower that were computed once; nanoVLM runs its tower at every step, leaves samples of a row open to each
other, and is not compiled here. Needs `datasets`, `einops` and `torchvision`, as nanoVLM does.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from conductor import HERE, Side, SideError, play, ratio
from machine import RESULTS, gpu, processor, slug, stored
from nanovlm_shapes import NANO, OURS, NanoShape, write_data
from nanovlm_side import VARIANTS
from shapes import write_tokenizer

SOURCE, COMMIT = "https://github.com/huggingface/nanoVLM", "4e0c096"


def checkout(folder: Path) -> Path:
    """nanoVLM's repository at the commit that is compared with."""
    if not (folder / "train.py").exists():
        subprocess.run(["git", "clone", "-q", SOURCE, str(folder)], check=True)
        subprocess.run(["git", "-C", str(folder), "checkout", "-q", COMMIT], check=True)
    return folder


def prepare(shape: NanoShape, work: Path, nano: Path) -> dict[str, Any]:
    """Data and weights, once; how far losses are apart."""
    told = work / "made.json"
    if not told.exists():
        shutil.rmtree(work, ignore_errors=True)
        write_tokenizer(work / "tokenizer")
        write_data(shape, work / "data")
        made = subprocess.run([sys.executable, "nanovlm_side.py", "make", "--work", str(work), "--shape", shape.name, "--nanovlm", str(nano)],
                              cwd=HERE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        if made.returncode:
            sys.exit(f"{shape.name}: nanoVLM's model and ours could not be made alike, see above")
        told.write_text(made.stdout.splitlines()[-1])
    return json.loads(told.read_text())


def compare(shape: NanoShape, variant: str, work: Path, nano: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Rounds of ours and of one variant of theirs."""
    common = ["--work", str(work), "--shape", shape.name, "--nanovlm", str(nano), "--device", options.device, *(["--tower"] if options.tower else [])]
    ours, theirs = (
        Side(name, [sys.executable, "nanovlm_side.py", what, "--variant", variant, *common], options.threads, work / f"{what}-{variant}.log",
             limit_s=options.limit)
        for name, what in (("ours", "ours"), ("nanoVLM", "nanovlm"))
    )  # fmt: skip
    try:
        ours.begin()
        theirs.begin()
        ours.wait()
        # An epoch fills the feature store, and kernels are recorded.
        ours.turn(OURS + options.turn, counted=False)
        theirs.wait()
        theirs.turn(options.turn // 2, counted=False)
        play([ours, theirs], options.rounds, {"ours": 4 * options.turn, "nanoVLM": options.turn})
    finally:
        for side in (ours, theirs):
            side.stop()
    samples = [{**turn, "tokens": turn["samples"]} for turn in ours.turns], [{**turn, "tokens": turn["samples"]} for turn in theirs.turns]
    return {"rates": {side.name: side.rates for side in (ours, theirs)}, "gpu_mb": {side.name: side.gpu_mb for side in (ours, theirs)},
            "tokens": ratio(ours.turns, theirs.turns), "samples": ratio(*samples)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=NANO, default=["nanovlm-222M", "nanovlm-460M"])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--tower", action="store_true", help="let the tower learn, as nanoVLM does by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turn", type=int, default=1024, help="samples of nanoVLM's turn; ours has four times as many")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--limit", type=float, default=180, help="seconds for the start of a side, or a turn")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--nanovlm", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/bench"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    work = options.work.resolve()
    nano = checkout((options.nanovlm or work / "nanoVLM").resolve())
    name = gpu() if options.device == "cuda" else processor()
    path = options.out / f"nanovlm-{slug(name)}.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"shapes": {}}
    result |= {"date": date.today().isoformat(), "processor": name, "commit": COMMIT}
    for shape in (NANO[one] for one in options.shapes):
        found: dict[str, Any] = result["shapes"].setdefault(shape.name, {})
        found |= prepare(shape, work / shape.name, nano)
        for variant in options.variants:
            print(f"{shape.name}, nanoVLM {variant}{', tower learns' if options.tower else ''}", flush=True)
            try:
                found[f"{variant}{', tower learns' if options.tower else ''}"] = compare(shape, variant, work / shape.name, nano, options)
            except SideError as error:
                print(f"  left out: {error}", flush=True)
                continue
            stored(path, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
