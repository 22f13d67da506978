"""Training speed beside transformers' `Trainer` and TRL's `SFTTrainer`, on identical weights, samples and tokens.

    python benchmarks/training/compare.py [--shapes tiny 222M] [--stages 1 2] [--rounds 5] [--levers [tiny 222M]] [--peers]

`--levers` measures ours alone, too, behind all that, with one lever off at a time, at the tiny shape where none is named; `--peers` without names leaves the peers out.

The peers are installed into an environment of their own (`peers.txt`). Before anything is timed the losses of single rows must
agree to 1e-4 (but of the 7B shape, in half precision). Ours and one peer then take turns on the same threads, two models in memory at a time; what counts is the median of
the rounds' ratios. The first epoch, in which the feature store is filled, is not timed here (`feature_store.py` does).
Results go to `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from calibrate import bandwidth_gbs, gemm_gflops, least_flops
from conductor import HERE, Side, Turn, play, ratio
from machine import RESULTS, gpu, processor, slug, stored
from rows import write_rows
from shapes import SHAPES, Shape, on_device, write_model, write_samples

from sensorium.interop.hf import import_hf

SAMPLES = {"tiny": 2000, "tiny-longer": 2000, "222M": 96, "7B": 256}
SAMPLES_GPU = 1024
# Two batches of the peers, a long one and a short one (`hf.py`).
TINY = {"ours": 96, "trainer": 32, "trl": 32}
TURN = {"tiny": TINY, "tiny-longer": TINY, "222M": {"ours": 16, "trainer": 16, "trl": 16}}
TINY_GPU = {"ours": 8192, "trainer": 2048, "trl": 2048}
TURN_GPU = {"tiny": TINY_GPU, "tiny-longer": TINY_GPU, "222M": {"ours": 2048, "trainer": 512, "trl": 512},
            "7B": {"ours": 128, "trainer": 64, "trl": 64}}  # fmt: skip
ROUNDS = {"tiny": 5, "tiny-longer": 5, "222M": 3, "7B": 3}
LEVER_ROUNDS = 3
# Of the larger shape they would take half an hour, and levers an hour.
BY_DEFAULT = ("tiny",)
LEVERS = {
    "all on": [],
    "no packing": ["pack=false", "batch_size={batch}"],
    "tower every step": ["cache_features=false"],
    "mask over rows": ["+dense_mask"],
    "beginnings not shared": ["+plain_beginnings"],
    "plain loss": ["+plain_loss"],
    "AdamW unfused": ["+unfused"],
    "torch's attention": ["+plain_attention"],
    "products by MKL": ["+plain_products"],
    "transformers' layers": ["+plain_layers"],
}


def prepare(shape: Shape, work: Path, count: int) -> None:
    """Weights, samples and rows; once."""
    if (work / "rows.pt").exists():
        return
    shutil.rmtree(work, ignore_errors=True)
    write_model(shape, work / "hf")
    write_samples(shape, work / "data", count)
    if not (work / "ours").exists():
        import_hf(work / "hf", work / "ours")
    write_rows(work)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # Of the process that made the weights: the sides need it.


def peers_python(folder: Path) -> str:
    """The peers' own environment, installed on first use."""
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        print(f"installing the peers into {folder} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check",
                        "-r", str(HERE / "peers.txt")], check=True)  # fmt: skip
        (folder / ".installed").touch()
    return str(python)


def losses_agree(shape: Shape, work: Path, python: str, peers: Sequence[str]) -> float:
    """The largest difference between losses of single rows, ours and those that the peers' own trainers compute; found once.

    Exits where it is above 1e-4: then the sides would not do the same work.
    """
    kept = work / f"agreed-{'-'.join(peers)}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    common = ["--work", str(work), "--shape", shape.name, "--stage", "2", "--losses"]
    commands = [[sys.executable, "ours.py", *common], *([python, "hf.py", "--peer", peer, *common] for peer in peers)]
    running = [subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True) for command in commands]
    told = [one.communicate()[0].splitlines() for one in running]
    for one, command in zip(running, commands, strict=True):
        if one.returncode:
            sys.exit(f"{' '.join(command)} ended with {one.returncode}; why stands above")
    found = [json.loads(lines[-1]) for lines in told]
    worst = max(max(row) - min(row) for row in zip(*found, strict=True))
    if worst > 1e-4:
        sys.exit(f"losses of single rows differ by {worst:.2e}: {found}")
    kept.write_text(json.dumps(worst))
    return worst


def sides_of(shape: Shape, stage: int, work: Path, python: str, options: argparse.Namespace) -> list[Side]:
    common = ["--work", str(work), "--shape", shape.name, "--stage", str(stage), "--threads", str(options.threads),
              "--device", options.device]  # fmt: skip
    made = [Side("ours", [sys.executable, "ours.py", *common], options.threads, work / "ours.log")]
    made += [Side(peer, [python, "hf.py", "--peer", peer, *common], options.threads, work / f"{peer}.log")
             for peer in options.peers]  # fmt: skip
    return made


def compare(shape: Shape, stage: int, work: Path, python: str, options: argparse.Namespace) -> dict[str, Any]:
    """One shape in one stage."""
    print(f"{shape.name}, stage {stage}", flush=True)
    ours, *peers = sides_of(shape, stage, work, python, options)
    turns = (TURN if options.device == "cpu" else TURN_GPU)[shape.name]
    gemms, rounds = [gemm_gflops(shape, device=options.device)], options.rounds or ROUNDS[shape.name]
    # A GPU's machine has processors enough for two sides to make ready at once, and its time is dear.
    at_once = options.device != "cpu"
    for peer in peers:
        # Both anew: a process that has run for long is some hundredths slower.
        ours.begin()
        if at_once:
            peer.begin()
        ours.wait()
        warm_up(ours, shape, work)
        if not at_once:
            peer.begin()
        peer.wait()
        peer.turn(turns[peer.name], counted=False)
        play([ours, peer], rounds, turns)
        ours.stop()
        peer.stop()
        gemms.append(gemm_gflops(shape, device=options.device))
    gemm, flops = statistics.median(gemms), flops_per_token(shape, stage, work)
    return {
        "date": date.today().isoformat(), "rounds": rounds,
        "rates": {side.name: side.rates for side in (ours, *peers)},
        "peak_mb": {side.name: side.gpu_mb or side.peak_mb for side in (ours, *peers)},
        "ratio": {f"ours/{peer.name}": ratio(_beside(ours, peer, i), peer.turns) for i, peer in enumerate(peers)},
        "limit": {f"ours/{peer.name}": round(gemm * 1e9 / flops / peer.rates["tokens_per_s"], 2) for peer in peers},
        "defaults": {peer.name: by_default(peer, shape) for peer in peers if shape.name in BY_DEFAULT and options.device == "cpu"},
        "gemm_gflops": gemm,
        "share_of_limit": round(ours.rates["tokens_per_s"] * flops / gemm / 1e9, 3),
    }  # fmt: skip


def by_default(peer: Side, shape: Shape) -> float:
    """Samples a second of a peer with its own settings, for information: it takes no turns with ours."""
    plain = Side(f"{peer.name}, by default", [*peer.command, "--defaults"], peer.threads, peer.log, heap={})
    plain.start()
    plain.turn(shape.batch, counted=False)
    done = plain.turn(2 * shape.batch)
    plain.stop()
    return round(done["samples"] / done["seconds"], 3)


def warm_up(side: Side, shape: Shape, work: Path) -> None:
    """Steps of ours that are not counted: the first time a whole epoch, which fills the feature store for all stages."""
    filled = work / "features.filled"
    epoch = sum(1 for _ in (work / "data" / "samples.jsonl").open()) + 64
    side.turn(shape.batch if filled.exists() else epoch, counted=False)
    filled.touch()


def flops_per_token(shape: Shape, stage: int, work: Path) -> float:
    rows = torch.load(work / "rows.pt", weights_only=True)
    lengths = [len(row["input_ids"]) for row in rows]
    answers = sum(int((row["labels"] >= 0).sum()) for row in rows)
    return least_flops(shape, stage, sum(lengths), answers, sum(n * n for n in lengths)) / sum(lengths)


def levers(shape: Shape, stage: int, work: Path, _: str, options: argparse.Namespace) -> dict[str, Any]:
    """Ours with one lever off at a time, as a share of its speed with all on: two sides in memory at a time, whatever the shape."""
    print(f"{shape.name}, stage {stage}: levers", flush=True)
    all_on, *others = (_lever_side(shape, stage, work, options, name) for name in LEVERS)
    turns = dict.fromkeys(LEVERS, (TURN if options.device == "cpu" else TURN_GPU)[shape.name]["ours"] // 2)
    for other in others:
        sides = [all_on, other]
        for side in sides:
            side.start()
            warm_up(side, shape, work)
        play(sides, min(options.rounds or LEVER_ROUNDS, LEVER_ROUNDS), turns)
        for side in sides:
            side.stop()
    found = {side.name: {**ratio(side.turns, _beside(all_on, side, i)), "peak_mb": side.peak_mb} for i, side in enumerate(others)}
    return {"levers": {all_on.name: {"median": 1.0, "low": 1.0, "high": 1.0, "peak_mb": all_on.peak_mb}} | found}


def _beside(one: Side, other: Side, before: int) -> list[Turn]:
    """The turns of a side that were played beside another, behind so many others with as many turns."""
    count = len(other.turns)
    return one.turns[before * count : (before + 1) * count]


def _lever_side(shape: Shape, stage: int, work: Path, options: argparse.Namespace, name: str) -> Side:
    command = [sys.executable, "ours.py", "--work", str(work), "--shape", shape.name, "--stage", str(stage),
               "--threads", str(options.threads), "--device", options.device, "--run", name.replace(" ", "_")]  # fmt: skip
    chosen = [text.format(batch=shape.batch) for text in LEVERS[name]]
    return Side(name, [*command, "--set", *chosen] if chosen else command, options.threads, work / "lever.log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["tiny", "222M"])
    parser.add_argument("--stages", nargs="+", type=int, choices=(1, 2), default=[1, 2])
    parser.add_argument("--peers", nargs="*", choices=("trainer", "trl"), default=["trainer", "trl"])
    parser.add_argument("--rounds", type=int, help=f"by itself {ROUNDS}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peers-python", help="of an environment that has the peers already")
    parser.add_argument("--levers", nargs="*", choices=[name for name in SHAPES if name != "7B"], help="also what each lever gives, of ours alone, at these shapes")
    parser.add_argument("--work", type=Path, default=Path("runs/bench"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    python = options.peers_python or (peers_python(options.work.resolve() / "peers") if options.peers else "")
    threads = "" if options.threads == 1 or options.device != "cpu" else f"-{options.threads}-threads"
    name = processor() if options.device == "cpu" else gpu()
    path = options.out / f"training-{slug(name)}{threads}.json"
    result: dict[str, Any] = {
        "date": date.today().isoformat(), "processor": name, "threads": options.threads,
        "torch": torch.__version__, "bandwidth_gbs": bandwidth_gbs(options.device), "shapes": measured(path),
    }  # fmt: skip
    pulled = () if options.levers is None else options.levers or BY_DEFAULT
    # The peers first, so that what takes longer and matters less comes last.
    for what, names in ((compare, options.shapes if options.peers else ()), (levers, pulled)):
        for shape, stage in ((on_device(SHAPES[name], options.device), stage) for name in names for stage in options.stages):
            work = options.work.resolve() / shape.name
            prepare(shape, work, SAMPLES[shape.name] if options.device == "cpu" or shape.name == "7B" else SAMPLES_GPU)
            found: dict[str, Any] = result["shapes"].setdefault(shape.name, {})
            # Seven billion weights in full precision would be another model than the one that is timed.
            if what is compare and stage == options.stages[0] and shape.name != "7B":
                found["loss_difference"] = losses_agree(shape, work, python, options.peers)
            keep_others(found.setdefault(f"stage {stage}", {}), what(shape, stage, work, python, options))
            # Written as it grows: an hour of measuring is not lost to what comes later.
            stored(path, result)
    print(json.dumps(result, indent=1))


def keep_others(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Figures of today in place of yesterday's, those of peers that took no turns today left as they are."""
    for name, value in now.items():
        if name in ("rates", "peak_mb", "ratio", "limit", "defaults"):
            before.setdefault(name, {}).update(value)
        else:
            before[name] = value


def measured(path: Path) -> dict[str, Any]:
    """What was measured on this machine before, so that a run of one stage keeps the figures of the others."""
    return json.loads(path.read_text())["shapes"] if path.exists() else {}


if __name__ == "__main__":
    main()
