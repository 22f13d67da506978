"""What the feature store costs in the first epoch and saves in later ones, by our own trainer in one run.

    python benchmarks/training/feature_store.py [--shape tiny|siglip] [--pairs 7] [--rows 96] [--batch 8] [--threads 1]

A stage that teaches the projector (stage 1), three ways in turn, their order changing from round to round: without
the store, with an empty one that is written, and with a full one. Times are those of the whole stage, with opening and
hashing the tower and with waiting for the last record. Ratios are taken within a round; their median and a bootstrap
interval of 95 % are printed. All runs of a round must have the same losses. One processor, so that the thread that
writes has none of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import RESULTS, keep
from PIL import Image

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.data.config import FileSource
from sensorium.encoders.siglip import SiglipConfig
from sensorium.encoders.vit import VitConfig
from sensorium.input_projectors.mlp import MlpConfig
from sensorium.interop.assemble import build_pretrained
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.learning import Learn
from sensorium.training.config import Recipe, ScheduleConfig, StageConfig
from sensorium.training.log import read_log
from sensorium.training.objectives.next_token import CaptionConfig
from sensorium.training.trainer import Trainer, TrainerOptions

WAYS = ("without", "written", "found")
VIT_TI = {"width": 192, "layers": 6, "heads": 6, "mlp_width": 768, "image_size_px": 128, "patch_size_px": 16}
VIT_B = {"width": 768, "layers": 12, "heads": 12, "mlp_width": 3072, "image_size_px": 224, "patch_size_px": 16}
TOWERS: dict[str, Any] = {
    "tiny": (VitConfig, VIT_TI),
    "siglip": (SiglipConfig, VIT_B),
}
LLAMA: dict[str, Any] = {
    "tiny": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 4},
    "siglip": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9},
}


class TimedTrainer(Trainer):
    """Knows how long its stage took."""

    seconds = 0.0

    def _run_stage(self, index: int, parts: Any) -> None:
        start = time.perf_counter()
        super()._run_stage(index, parts)
        self.seconds = time.perf_counter() - start


def write_rows(folder: Path, count: int) -> Path:
    """Photograph-like JPEGs of 640x480 with captions of ragged lengths."""
    rng, words = np.random.default_rng(0), random.Random(0)
    lines: list[str] = []
    for k in range(count):
        coarse = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{k}.jpg", quality=90)
        caption = " ".join(words.choice(("red", "ball", "on", "the", "house")) for _ in range(words.randint(4, 30)))
        content = [{"type": "image", "image": f"{k}.jpg"}]
        lines.append(json.dumps({"messages": [{"role": "user", "content": content},
                                              {"role": "assistant", "content": caption}]}))  # fmt: skip
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder / "rows.jsonl"


def recipe_for(options: argparse.Namespace, rows: Path) -> Recipe:
    """One epoch of stage 1."""
    kind, shape = TOWERS[options.shape]
    encoder = kind.from_dict(kind.tiny().to_dict() | shape | {"feature": "patch"})
    tiny = CausalLMConfig.tiny()
    backbone = tiny.model_copy(update={"arch": tiny.arch | LLAMA[options.shape] | {
        "num_key_value_heads": LLAMA[options.shape]["num_attention_heads"], "head_dim": 64}})  # fmt: skip
    model = ModelConfig(lanes={"image": LaneConfig(encoder=encoder, projector=MlpConfig())}, backbone=backbone)
    stage = StageConfig(
        name="align", objective=CaptionConfig(), data=(FileSource(path=str(rows), format="samples"),),
        learns=(Learn(part="projectors.image", lr=1e-3),), steps=options.rows // options.batch,
        batch_size=options.batch, max_length=512, checkpoint_every=10**6, precision="fp32",
        schedule=ScheduleConfig(shape="constant"), workers=1,
    )  # fmt: skip
    return Recipe(name="bench", model=model, stages=(stage,))


def run(recipe: Recipe, folder: Path, cache: Path, *, cached: bool) -> tuple[float, list[float]]:
    """Seconds of the stage, and its losses."""
    changed = recipe.override([f"stages.align.cache_features={str(cached).lower()}"])
    torch.manual_seed(0)
    model, tokenizer = build_pretrained(changed.model)
    trainer = TimedTrainer(changed, model, tokenizer, TrainerOptions(folder=folder, cache=cache))
    trainer.run()
    return trainer.seconds, [line["loss"] for line in read_log(folder / "log.jsonl")]


def interval(values: list[float], draws: int = 2000) -> list[float]:
    """95 % of the medians of resampled rounds."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(draws))
    return [round(medians[int(draws * share)], 3) for share in (0.025, 0.975)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=sorted(TOWERS), default="tiny")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-options.threads :])
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        recipe = recipe_for(options, write_rows(root, options.rows))
        run(recipe, root / "warm", root / "full", cached=True)
        stored = sum(file.stat().st_size for file in (root / "full").rglob("*.bin"))
        for turn in range(options.pairs):
            losses: dict[str, list[float]] = {}
            for way in (*WAYS[turn % 3 :], *WAYS[: turn % 3]):
                store = root / ("full" if way == "found" else f"new{turn}")
                took, losses[way] = run(recipe, root / f"{way}{turn}", store, cached=way != "without")
                seconds[way].append(took)
            assert losses["without"] == losses["written"] == losses["found"], "a store that changes the run"
    first = [b / a for a, b in zip(seconds["without"], seconds["written"], strict=True)]
    later = [a / b for a, b in zip(seconds["without"], seconds["found"], strict=True)]
    keep("store", {
        "shape": options.shape, "rows": options.rows, "batch": options.batch, "pairs": options.pairs,
        "threads": options.threads, "stored_mb": round(stored / 1e6, 1),
        "samples_per_s": {way: round(options.rows / statistics.median(s), 2) for way, s in seconds.items()},
        "first_epoch_ratio": round(statistics.median(first), 3), "first_epoch_interval_95": interval(first),
        "later_epoch_speedup": round(statistics.median(later), 3), "later_epoch_interval_95": interval(later),
    }, options.out)  # fmt: skip


if __name__ == "__main__":
    main()
