"""Our trainer as one side of the comparison: steps when it is told, and says what it did."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
from protocol import Turns
from shapes import LARGE, LORA_ALPHA, LORA_RANK, SHAPES, Shape, on_device

from sensorium.core.atomic import write_json
from sensorium.data.loader import make_example
from sensorium.data.source import JsonlSource
from sensorium.interop.saved import load_model, read_model_config
from sensorium.model.config import LoraConfig, ModelConfig
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.training.config import Recipe
from sensorium.training.objectives.next_token import next_token_losses
from sensorium.training.run import train_recipe
from sensorium.training.trainer import Trainer, TrainerOptions

PLAN = "plan.json"
"""In the run's folder: what the plan said before step one."""
RATES = {1: {"projectors.image": 1e-3}, 2: {"projectors.image": 2e-5, "backbone": 2e-5}}
RATES_LARGE = {1: RATES[1], 2: {"projectors.image": 2e-5, "adapter": 2e-5}}


ON_GPU = {"precision": "bf16", "compile": True, "record": True, "workers": 6}
# Kernels of the large shape are long, and nothing waits for the processor that starts them.
ON_GPU_LARGE = ON_GPU | {"record": False}


def recipe(shape: Shape, work: Path, stage: int, *, steps: int, levers: dict[str, Any]) -> Recipe:
    """One stage over the samples."""
    config, rates = read_model_config(work / "ours"), (RATES_LARGE if shape is LARGE else RATES)[stage]
    return Recipe.from_dict({
        "name": "bench",
        "model": tuned(config, shape, stage).to_dict(),
        "stages": [{
            "name": f"stage{stage}",
            "objective": {"kind": "instruct"},
            "data": [{"kind": "file", "path": str(work / "data" / "samples.jsonl")}],
            "learns": [{"part": part, "lr": lr} for part, lr in rates.items()],
            "steps": steps,
            "batch_size": shape.rows,
            "max_length": shape.row_tokens,
            "pack": True,
            "precision": "fp32",
            "schedule": {"shape": "constant"},
            "cache_features": True,
            "checkpoint_every": 10**6,
            **levers,
        }],
    })  # fmt: skip


def tuned(config: ModelConfig, shape: Shape, stage: int) -> ModelConfig:
    """The model with what stage 2 of the large shape teaches in place of the language model."""
    return config.model_copy(update={"adapter": LoraConfig(rank=LORA_RANK, alpha=LORA_ALPHA)}) if shape is LARGE and stage == 2 else config


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--stage", type=int, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], help="cache_features=false pack=false ... +plain_loss ...")
    parser.add_argument("--run", default="run", help="name of the run's folder")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--losses", action="store_true", help="print the losses of single rows and stop")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.losses:
        print(row_losses(options.work))
        return
    turns = Turns()
    for name in (item[1:] for item in options.set if item.startswith("+")):
        OFF[name]()

    class Told(Trainer):
        def log(self, line: dict[str, Any]) -> None:
            super().log(line)
            turns.did(samples=line["samples"], tokens=line["tokens"], loss=line["loss"])

    import sensorium.training.run as run

    run.Trainer = Told
    levers = {k: _value(v) for k, v in (item.split("=", 1) for item in options.set if not item.startswith("+"))}
    if options.device != "cpu":
        levers = (ON_GPU_LARGE if SHAPES[options.shape] is LARGE else ON_GPU) | levers
    made = recipe(on_device(SHAPES[options.shape], options.device), options.work, options.stage, steps=10**6, levers=levers)
    folder = options.work / f"{options.run}-{options.stage}"
    shutil.rmtree(folder, ignore_errors=True)

    def load() -> Any:
        model, tokenizer = load_model(options.work / "ours")
        # With the adapter that it is to get.
        model.config = made.model
        model.to(options.device)
        return model, tokenizer

    train_recipe(made, load, lambda *_: None,
                 TrainerOptions(folder=folder, cache=options.work / "features",
                                on_plan=lambda plan: write_json(folder / PLAN, plan.to_json())))  # fmt: skip


def row_losses(work: Path) -> list[float]:
    """Mean loss of the first rows, each alone."""
    model, tokenizer = load_model(work / "ours")
    processor, source = Processor(model.config, tokenizer), JsonlSource(work / "data" / "samples.jsonl")
    found: list[float] = []
    for i in range(min(8, len(source))):
        batch = collate([[make_example(processor, source[i], "")]], tokenizer.pad_id)
        with torch.no_grad():
            losses = next_token_losses(model, batch)
        found.append(float(losses.total) / losses.count)
    return found


def _dense_mask() -> None:
    import sensorium.backbones.causal_lm as module

    module.can_segment = lambda lm: False


def _plain_loss() -> None:
    from sensorium.backbones.causal_lm import CausalLM

    CausalLM.head = property(lambda self: None)  # pyright: ignore[reportAttributeAccessIssue]


class _Unfused(torch.optim.AdamW):
    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, **settings | {"fused": False, "foreach": False})


def _unfused() -> None:
    torch.optim.AdamW = _Unfused  # pyright: ignore[reportAttributeAccessIssue]


def _plain_products() -> None:
    import sensorium.model.laid_out as layers
    import sensorium.nn.answer_loss as head

    layers.onednn_is_faster = lambda: False
    layers.reads_weights_as_they_lie = head.reads_weights_as_they_lie = lambda: False


def _plain_attention() -> None:
    import sensorium.nn.segment_attention as module

    module.can_group = lambda *_: False


def _plain_beginnings() -> None:
    import sensorium.backbones.causal_lm as module

    module.share_beginnings = lambda lm, layout, embeds_BTD, batch: layout


def _plain_layers() -> None:
    import sensorium.backbones.segments as module

    module.can_be_lean = lambda *_: False


OFF = {
    "dense_mask": _dense_mask, "plain_loss": _plain_loss, "unfused": _unfused,
    "plain_products": _plain_products, "plain_layers": _plain_layers, "plain_attention": _plain_attention,
    "plain_beginnings": _plain_beginnings,
}  # fmt: skip
"""What has no setting, because nobody would want it off: for the table of levers alone."""


def _value(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


if __name__ == "__main__":
    main()
