"""One side of the comparison with nanoVLM: its own loop, not a line of it changed, or our trainer.

nanoVLM logs to Weights & Biases after every optimiser step; what it finds under that name here is a clock. What its loop draws from its loader
is counted on the way: pictures, of which each sample has one, and tokens that are not padding.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from nanovlm_shapes import FRONT, NANO, NanoShape, model_config, our_weights
from protocol import Turns

TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% if message['role'] == 'assistant' %}</s> {% endif %}{% endfor %}"
VARIANTS: dict[str, dict[str, Any]] = {
    "own": {"batch_size": 2, "gradient_accumulation_steps": 8},
    "larger": {"batch_size": 4, "gradient_accumulation_steps": 4, "max_images_per_knapsack": 64},
}
"""Its defaults; and batches and rows that keep a large GPU busier."""
ROWS = {"own": (3, 3), "larger": (6, 2)}
"""Of ours a pass, and passes: about as many samples a step as in nanoVLM's 16 rows, of which its packer leaves two fifths or a sixth empty."""


def nano_configs(shape: NanoShape, work: Path, variant: str, *, tower: bool) -> tuple[Any, Any]:
    """nanoVLM's two configs; its package must be importable."""
    from models.config import TrainConfig, VLMConfig  # pyright: ignore[reportMissingImports]

    width, layers, heads = shape.vision
    hidden, inner, blocks, queries, keys = shape.text
    vlm = VLMConfig(
        vit_hidden_dim=width, vit_inter_dim=4 * width, vit_img_size=shape.picture_px, vit_n_heads=heads, vit_n_blocks=layers,
        lm_hidden_dim=hidden, lm_inter_dim=inner, lm_n_heads=queries, lm_n_kv_heads=keys, lm_n_blocks=blocks,
        lm_base_vocab_size=49152, extra_token_amount=0, lm_vocab_size=49152, lm_max_length=shape.row_tokens,
        lm_tokenizer=str(work / "tokenizer"), lm_chat_template=TEMPLATE, mp_pixel_shuffle_factor=shape.factor,
        mp_image_token_length=shape.picture_tokens, max_img_size=shape.picture_px, vlm_load_backbone_weights=False,
        vlm_extra_tokens={"image_token": "<image>", "global_image_token": FRONT}, vlm_checkpoint_path=str(work / "theirs"), hf_repo_name=None,
    )  # fmt: skip
    train = TrainConfig(
        **{"max_sample_length": shape.row_tokens, **VARIANTS[variant]}, lr_vision_backbone=5e-5 if tower else 0.0, val_size=128,
        max_training_steps=10**6, eval_in_epochs=False, use_lmms_eval=False, log_wandb=True, stats_log_interval=10**6,
        train_dataset_path=str(work / "data" / "theirs"), train_dataset_name=("default",), stream_dataset=False, resume_from_vlm_checkpoint=True,
    )  # fmt: skip
    return train, vlm


def same_templates_as_before() -> None:
    """transformers 5 returns a dict where nanoVLM, written for 4, counts tokens: its masks would be two tokens long."""
    from transformers import PreTrainedTokenizerBase

    plain = PreTrainedTokenizerBase.apply_chat_template

    def apply(self: Any, conversation: Any, *args: Any, return_dict: bool = False, **kwargs: Any) -> Any:
        return plain(self, conversation, *args, return_dict=return_dict, **kwargs)

    PreTrainedTokenizerBase.apply_chat_template = apply  # pyright: ignore[reportAttributeAccessIssue]


class Clock:
    """In place of a run of Weights & Biases."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.samples = self.tokens = 0
        self.summary: dict[str, Any] = {}

    def define_metric(self, **_: Any) -> None:
        """Nothing is drawn."""

    def log(self, line: dict[str, Any], **_: Any) -> None:
        if "batch_loss" not in line:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        samples, tokens, self.samples, self.tokens = self.samples, self.tokens, 0, 0
        self.turns.did(samples=samples, tokens=tokens, loss=float(line["batch_loss"]))

    def counted(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            self.samples += sum(len(row) for row in batch["images"])
            self.tokens += int(batch["attention_mask"].sum())
            yield batch


def their_side(shape: NanoShape, work: Path, options: argparse.Namespace) -> None:
    """Train with nanoVLM's loop, in turns."""
    clock, stand_in = Clock(Turns()), ModuleType("wandb")
    stand_in.init = lambda **_: clock  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules["wandb"] = stand_in
    same_templates_as_before()
    import train as nano  # pyright: ignore[reportMissingImports]

    step = nano.synchronized_dataloader_step
    nano.synchronized_dataloader_step = lambda loader, distributed: clock.counted(step(loader, distributed))
    nano.train(*nano_configs(shape, work, options.variant, tower=options.tower))


def make_theirs(shape: NanoShape, work: Path) -> None:
    """Random weights as nanoVLM begins with, and what ours makes of them; then the losses of single samples by both."""
    same_templates_as_before()
    from data.datasets import VQADataset  # pyright: ignore[reportMissingImports]
    from data.processors import get_image_processor, get_tokenizer  # pyright: ignore[reportMissingImports]
    from datasets import load_dataset
    from models.vision_language_model import VisionLanguageModel  # pyright: ignore[reportMissingImports]

    from sensorium.data.loader import make_example
    from sensorium.data.source import JsonlSource
    from sensorium.interop.saved import save_model
    from sensorium.model.multimodal import MultimodalModel
    from sensorium.processing.collate import collate
    from sensorium.processing.processor import Processor
    from sensorium.text.tokenizer import Tokenizer
    from sensorium.training.objectives.next_token import next_token_losses

    torch.manual_seed(0)
    _, vlm = nano_configs(shape, work, "own", tower=False)
    theirs = VisionLanguageModel(vlm, load_backbone=False).eval()
    theirs.save_pretrained(str(work / "theirs"))
    config, tokenizer = model_config(shape), Tokenizer.load(work / "tokenizer")
    model = MultimodalModel(config).eval()
    missing, unexpected = model.load_state_dict(our_weights(theirs.state_dict()), strict=False)
    if unexpected or any("lm_head" not in name for name in missing):
        sys.exit(f"weights without a counterpart: {missing}, {unexpected}")
    save_model(model, tokenizer, work / "ours", set(model.state_dict()))
    told = get_tokenizer(vlm.lm_tokenizer, vlm.vlm_extra_tokens, vlm.lm_chat_template)
    rows = VQADataset(load_dataset(str(work / "data" / "theirs"), split="train"), told, get_image_processor(vlm.max_img_size, vlm.vit_img_size, True),
                      vlm.mp_image_token_length)  # fmt: skip
    processor, source = Processor(config, tokenizer), JsonlSource(work / "data" / "samples.jsonl")
    worst = 0.0
    for i in range(4):
        row, batch = rows[i], collate([[make_example(processor, source[i], "")]], tokenizer.pad_id)
        learned = row["labels"][row["labels"] >= 0]
        if not torch.equal(learned, batch.input_ids_BT[batch.learn_BT]) or len(row["input_ids"]) != batch.input_ids_BT.shape[1]:
            sys.exit(f"sample {i}: nanoVLM learns {len(learned)} of {len(row['input_ids'])} tokens, ours {int(batch.learn_BT.sum())} of "
                     f"{batch.input_ids_BT.shape[1]}, or others")  # fmt: skip
        with torch.no_grad():
            _, loss = theirs(row["input_ids"][None], row["images"], attention_mask=row["attention_mask"][None], targets=row["labels"][None])
            losses = next_token_losses(model, batch)
        worst = max(worst, abs(float(loss) - float(losses.total) / losses.count))
    print(json.dumps({"loss_difference": worst}))
    if worst > 1e-4:
        sys.exit(f"losses of single samples differ by {worst:.2e}")


def our_side(shape: NanoShape, work: Path, options: argparse.Namespace) -> None:
    """Train with ours, in turns."""
    import sensorium.training.run as run
    from sensorium.interop.saved import load_model
    from sensorium.training.config import Recipe
    from sensorium.training.trainer import Trainer, TrainerOptions

    turns = Turns()

    class Told(Trainer):
        def log(self, line: dict[str, Any]) -> None:
            super().log(line)
            turns.did(samples=line["samples"], tokens=line["tokens"], loss=line["loss"])

    run.Trainer = Told
    rates = {"projectors.image": 0.00512, "backbone": 5e-5} | ({"encoders.image": 5e-5} if options.tower else {})
    recipe = Recipe.from_dict({"name": "bench", "model": model_config(shape).to_dict(), "stages": [{
        "name": "all", "objective": {"kind": "instruct"}, "data": [{"kind": "file", "path": str(work / "data" / "samples.jsonl")}],
        "learns": [{"part": part, "lr": lr, "weight_decay": 0.01} for part, lr in rates.items()], "steps": 10**6, "batch_size": ROWS[options.variant][0],
        "accumulate": ROWS[options.variant][1], "max_length": shape.row_tokens, "pack": True, "precision": "bf16" if options.device == "cuda" else "fp32",
        "compile": options.device == "cuda", "record": options.device == "cuda", "workers": 6 if options.device == "cuda" else 1, "schedule": {"shape": "constant"},
        "cache_features": not options.tower, "checkpoint_every": 10**6}]})  # fmt: skip
    folder = work / "run-ours"
    shutil.rmtree(folder, ignore_errors=True)

    def load() -> Any:
        model, tokenizer = load_model(work / "ours")
        model.to(options.device)
        return model, tokenizer

    run.train_recipe(recipe, load, lambda *_: None, TrainerOptions(folder=folder, cache=work / "features"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("make", "ours", "nanovlm"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--shape", choices=NANO, required=True)
    parser.add_argument("--nanovlm", type=Path, required=True, help="nanoVLM's repository")
    parser.add_argument("--variant", choices=VARIANTS, default="own")
    parser.add_argument("--tower", action="store_true", help="the tower learns, too")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    sys.path.insert(0, str(options.nanovlm))
    os.environ["HF_HUB_OFFLINE"] = "1"
    shape = NANO[options.shape]
    if options.what == "make":
        make_theirs(shape, options.work)
    elif options.what == "ours":
        our_side(shape, options.work, options)
    else:
        their_side(shape, options.work, options)


if __name__ == "__main__":
    main()
