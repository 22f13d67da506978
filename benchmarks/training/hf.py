"""The peers as sides of the comparison: transformers' `Trainer` and TRL's `SFTTrainer`, in their best legal settings.

Best legal settings: rows prepared offline, grouped by length, padded to the longest of their batch, sdpa, fp32, fused AdamW, nothing
logged or saved on the way, a heap that keeps freed blocks (set by the conductor, for all sides). transformers' own grouping begins
each 50 batches with the longest rows, and a comparison would end before it has seen short ones; here the same batches come in another
order, so that every two of them are about as long as the mean (`grouped`). `--defaults` leaves all that to the trainers themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from pathlib import Path
from typing import Any

import torch
from protocol import Turns
from shapes import LARGE, LORA_ALPHA, LORA_RANK, SHAPES, Shape, on_device
from torch.nn.utils.rnn import pad_sequence
from transformers import LlavaForConditionalGeneration, Trainer, TrainerCallback, TrainingArguments

RATES = {1: 1e-3, 2: 2e-5}
SAMPLES = 8192
# What a run cannot do without, whatever its settings; reports and files would only be in the way.
TOLD = ("output_dir", "use_cpu", "max_steps", "per_device_train_batch_size", "learning_rate", "remove_unused_columns", "report_to", "save_strategy",
        "disable_tqdm")  # fmt: skip


def grouped(lengths: list[int], batch: int, passes: int) -> list[int]:
    """Rows of so many passes over all, in batches of like lengths: the longest batch and the shortest, the next longest and the next
    shortest, and so on."""
    draw, order = random.Random(0), list[int]()
    for _ in range(passes):
        shuffled = draw.sample(range(len(lengths)), len(lengths))
        ranked = sorted(shuffled, key=lambda i: lengths[i], reverse=True)
        batches = [ranked[i : i + batch] for i in range(0, len(ranked) // batch * batch, batch)]
        # The one in the middle would take the other's place from then on, and is left out.
        pairs = [(batches[k], batches[-1 - k]) for k in range(len(batches) // 2)] or [(one,) for one in batches]
        draw.shuffle(pairs)
        order += [i for pair in pairs for one in pair for i in one]
    return order


def table(rows: list[dict[str, Any]], order: list[int]) -> Any:
    """What the trainers see of the rows: ids, labels, and the row's number, by which the collator finds the rest."""
    from datasets import Dataset

    lists = [{"input_ids": row["input_ids"].tolist(), "labels": row["labels"].tolist(), "number": i} for i, row in enumerate(rows)]
    return Dataset.from_list([lists[i] for i in order])


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Padded on the right, to the longest row."""
    ids = pad_sequence([row["input_ids"] for row in rows], batch_first=True, padding_value=0)
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(ids.shape[1])[None] < lengths[:, None]).long(),
        "labels": pad_sequence([row["labels"] for row in rows], batch_first=True, padding_value=-100),
        "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
    }


class Watch(TrainerCallback):
    """Counts samples and real tokens of each step, whose rows are the next ones in order."""

    def __init__(self, turns: Turns, rows: list[dict[str, Any]]) -> None:
        self.turns = turns
        self.rows = rows
        self.order: list[int] = []
        self.batch = 0

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return collate([self.rows[item["number"]] for item in items])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # Optimisers of GPUs are asked for work, and it is not waited for.
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        first = (state.global_step - 1) * self.batch % (len(self.order) // self.batch * self.batch)
        here = self.order[first : first + self.batch]
        self.turns.did(samples=len(here), tokens=sum(len(self.rows[i]["input_ids"]) for i in here), loss=0.0)


LAYERS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"


def learning(model: Any, shape: Shape, stage: int) -> Any:
    """The model whose projector learns alone, or with the language model, or with matrices beside it; the tower never."""
    projector = model.model.multi_modal_projector
    model.requires_grad_(False)
    if stage == 2 and shape is LARGE:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=LAYERS))
    elif stage == 2:
        model.model.language_model.requires_grad_(True)
        model.lm_head.requires_grad_(True)
    projector.requires_grad_(True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--stage", type=int, required=True)
    parser.add_argument("--peer", choices=("trainer", "trl"), required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--passes", type=int, help="over the rows in one epoch; by itself as many as a comparison lasts")
    parser.add_argument("--defaults", action="store_true", help="the trainers' own settings, but for a CPU")
    parser.add_argument("--set", nargs="*", default=[], help="gradient_checkpointing=true ...: settings in JSON")
    parser.add_argument("--losses", action="store_true", help="print the losses of single rows and stop")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = on_device(SHAPES[options.shape], options.device)
    model = LlavaForConditionalGeneration.from_pretrained(options.work / "hf", dtype=torch.bfloat16 if shape is LARGE else torch.float32)
    rows = torch.load(options.work / "rows.pt", weights_only=True)
    model = learning(model, shape, options.stage)
    turns = Turns()
    watch = Watch(turns, rows)
    settings: dict[str, Any] = {
        "output_dir": os.path.join(options.work, f"peer-{options.peer}"), "use_cpu": options.device == "cpu", "max_steps": 10**5,
        "per_device_train_batch_size": shape.batch, "learning_rate": RATES[options.stage],
        "lr_scheduler_type": "constant", "optim": "adamw_torch_fused", "weight_decay": 0.0, "adam_beta2": 0.98,
        "max_grad_norm": 1.0, "logging_strategy": "no", "save_strategy": "no", "report_to": [], "disable_tqdm": True,
        "remove_unused_columns": False, "train_sampling_strategy": "sequential",
        "dataloader_num_workers": 0, "bf16": False, "gradient_checkpointing": False, "seed": 0,
    }  # fmt: skip
    if options.device != "cpu":
        settings |= {"bf16": True, "dataloader_num_workers": 4, "dataloader_persistent_workers": True}
    settings |= {key: json.loads(value) for key, value in (item.split("=", 1) for item in options.set)}
    passes = options.passes or max(1, SAMPLES // len(rows))
    order = grouped([len(row["input_ids"]) for row in rows], min(len(rows), settings["per_device_train_batch_size"]), passes)
    if options.defaults:
        settings = {key: settings[key] for key in TOLD}
        order = list(range(len(rows))) * passes
    watch.order, watch.batch = order, settings["per_device_train_batch_size"]
    data = table(rows, order)
    if options.peer == "trainer":
        trainer: Any = Trainer(model=model, args=TrainingArguments(**settings), data_collator=watch,
                               train_dataset=data, callbacks=[watch])  # fmt: skip
    else:
        from transformers import AutoTokenizer
        from trl import SFTConfig, SFTTrainer

        args = SFTConfig(**settings, max_length=None, dataset_kwargs={"skip_prepare_dataset": True})
        trainer = SFTTrainer(model=model, args=args, data_collator=watch, train_dataset=data,
                             processing_class=AutoTokenizer.from_pretrained(options.work / "hf"),
                             callbacks=[watch])  # fmt: skip
    if options.losses:
        with torch.no_grad():
            os.write(turns.out, json.dumps([float(trainer.compute_loss(model, collate([row]))) for row in rows[:8]]).encode())
        return
    trainer.train()


if __name__ == "__main__":
    main()
