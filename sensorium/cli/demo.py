"""`demo`: train, measure before and after, show, ask. Run again, it reuses what is done."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

QUESTIONS = (
    "What is this? Answer with one word or a short phrase.",
    "What kind of thing is this?",
    "Describe the picture.",
)


def demo_command(out: str, limit: int) -> None:
    """The whole story in one command."""
    from sensorium.api import Model, load
    from sensorium.cli.evaluating import print_table, run_benchmarks, summary
    from sensorium.cli.training import find_recipe, run_training
    from sensorium.core.atomic import write_json
    from sensorium.evaluation.report import write_report
    from sensorium.interop.assemble import build_pretrained
    from sensorium.model.device import choose_device
    from sensorium.training.checkpoint import load_checkpoint

    started = time.monotonic()
    folder = Path(out)
    recipe = find_recipe("demo", [])
    benchmarks = _benchmarks(limit)
    print("1. Before: nano's parts joined by an untrained projector, asked about held-out pictures")
    import torch

    torch.manual_seed(recipe.seed)
    untrained, tokenizer = build_pretrained(recipe.model)
    before = run_benchmarks(benchmarks, Model(untrained.to(choose_device()), tokenizer).engine)
    print("\n2. Training through three objectives: vocabulary, captions, instructions")
    if (folder / "model" / "config.json").exists():
        print(f"   already trained: {folder / 'model'}")
    else:
        begun = load_checkpoint(folder / "checkpoint") is not None
        run_training(recipe, folder, resume=begun)
    print("\n3. After: the same questions")
    trained = load(folder)
    after = run_benchmarks(benchmarks, trained.engine)
    print()
    print_table(after, before)
    report = folder / "report.html"
    write_report(
        "nano, trained by the demo",
        [("before", before), ("after", after)],
        report,
        notes=[f"{len(after)} benchmarks on pictures held out from training.",
               "The shipped weights were trained longer; see `sensorium eval`."],
        picture=folder / "loss.png",
    )
    write_json(folder / "results.json", {"before": summary("untrained", before),
                                         "after": summary("demo", after)})  # fmt: skip
    print("\n4. Ask it: a held-out picture")
    _show_answers(trained)
    print(f"\nReport with pictures: {report}")
    print(f"{(time.monotonic() - started) / 60:.1f} minutes. Now try your own picture:")
    print("  sensorium ask PICTURE \"What is this?\"")


def _benchmarks(limit: int) -> list[Any]:
    from sensorium.cli.evaluating import parse_benchmarks

    names = [f"{n}:part=shipped" for n in ("naming", "category", "existence")]
    return parse_benchmarks(names, limit)


def _show_answers(model: Any) -> None:
    from sensorium.data.picture_book.build import read_entries
    from sensorium.data.picture_book.place import SHIPPED

    heldout = [e for e in read_entries(SHIPPED) if e["split"] == "heldout"]
    entry = next((e for e in heldout if e["name"] == "banana"), heldout[len(heldout) // 2])
    print(f"   {SHIPPED / entry['image']}  (\"{entry['caption']}\")")
    for question in QUESTIONS:
        content = [{"type": "image", "image": str(SHIPPED / entry["image"])},
                   {"type": "text", "text": question}]  # fmt: skip
        answer = model.respond([{"role": "user", "content": content}], max_tokens=40)
        print(f"   you> {question}\n   nano> {json.dumps(answer, ensure_ascii=False)}")
