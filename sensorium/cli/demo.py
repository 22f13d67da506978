"""`demo`: train, measure before and after, show, ask. Run again, it reuses what is done."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

QUESTIONS = (
    "What is this? Answer with one word or a short phrase.",
    "What kind of thing is this?",
    "Describe the picture.",
)
Say = Callable[[str], None]


def demo_command(out: str, limit: int, as_json: bool) -> None:
    """The whole story in one command."""
    from sensorium.api import load
    from sensorium.cli.evaluating import print_table
    from sensorium.cli.main import print_json
    from sensorium.cli.training import find_recipe

    say: Say = (lambda text: None) if as_json else print
    started = time.monotonic()
    folder, recipe, benchmarks = Path(out), find_recipe("demo", []), _benchmarks(limit)
    results = _known_results(folder, recipe, benchmarks)
    reused = results is not None
    if results is not None:
        say(f"1.-3. Trained and measured already: {folder / 'results.json'}")
        trained = load(folder)
    else:
        results, trained = _measure(folder, recipe, benchmarks, say, quiet=as_json)
    report = folder / "report.html"
    if not as_json:
        print()
        print_table(results["after"], results["before"])
    say("\n4. Ask it: a held-out picture")
    answers = _answers(trained, say)
    minutes = (time.monotonic() - started) / 60
    if as_json:
        shown = {key: results[key] for key in ("before", "after")}
        print_json({"folder": out, "reused": reused, "minutes": round(minutes, 2),
                    "report": str(report), **shown, "answers": answers})  # fmt: skip
        return
    print(f"\nReport with pictures: {report}")
    print(f"{minutes:.1f} minutes. Now try your own picture:")
    print("  sensorium ask PICTURE \"What is this?\"")


def _measure(
    folder: Path, recipe: Any, benchmarks: list[Any], say: Say, *, quiet: bool
) -> tuple[dict[str, Any], Any]:
    """Measure, train, measure again; what `results.json` then says, and the trained model."""
    import torch

    from sensorium.api import Model, load
    from sensorium.cli.evaluating import run_benchmarks, summary
    from sensorium.cli.training import run_training
    from sensorium.core.atomic import write_json
    from sensorium.evaluation.report import write_report
    from sensorium.interop.assemble import build_pretrained
    from sensorium.model.device import choose_device
    from sensorium.training.checkpoint import load_checkpoint

    say("1. Before: nano's parts joined by an untrained projector, asked about held-out pictures")
    torch.manual_seed(recipe.seed)
    untrained, tokenizer = build_pretrained(recipe.model)
    before = run_benchmarks(benchmarks, Model(untrained.to(choose_device()), tokenizer).engine)
    say("\n2. Training through three objectives: vocabulary, captions, instructions")
    if (folder / "model" / "config.json").exists():
        say(f"   already trained: {folder / 'model'}")
    else:
        begun = load_checkpoint(folder / "checkpoint") is not None
        run_training(recipe, folder, resume=begun, quiet=quiet)
    say("\n3. After: the same questions")
    trained = load(folder)
    after = run_benchmarks(benchmarks, trained.engine)
    write_report(
        "nano, trained by the demo",
        [("before", before), ("after", after)],
        folder / "report.html",
        notes=[f"{len(after)} benchmarks on pictures held out from training.",
               "The shipped weights were trained longer; see `sensorium eval`."],
        picture=folder / "loss.png",
    )
    # Last: where it stands, the report stands too.
    results = {"of": _identity(folder, recipe, benchmarks),
               "before": summary("untrained", before), "after": summary("demo", after)}  # fmt: skip
    write_json(folder / "results.json", results)
    return results, trained


def _known_results(folder: Path, recipe: Any, benchmarks: list[Any]) -> dict[str, Any] | None:
    """What an earlier demo measured, if it was this model and these questions."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        same = results["of"] == _identity(folder, recipe, benchmarks)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return results if same and (folder / "report.html").exists() else None


def _identity(folder: Path, recipe: Any, benchmarks: list[Any]) -> dict[str, Any]:
    """What the scores depend on: both models and the questions.

    Raises:
        OSError: nothing has been trained here.
    """
    import sensorium
    from sensorium.core.hashing import sha256_file

    return {
        "sensorium": sensorium.__version__,
        "untrained": {"model": recipe.model.to_dict(), "seed": recipe.seed},
        "trained": {name: sha256_file(folder / "model" / name)
                    for name in ("config.json", "model.safetensors")},
        "benchmarks": [benchmark.to_dict() for benchmark in benchmarks],
    }  # fmt: skip


def _benchmarks(limit: int) -> list[Any]:
    from sensorium.cli.evaluating import parse_benchmarks

    names = [f"{n}:part=shipped" for n in ("naming", "category", "existence")]
    return parse_benchmarks(names, limit)


def _answers(model: Any, say: Say) -> dict[str, Any]:
    """What the model says about one held-out picture."""
    from sensorium.data.picture_book.build import read_entries
    from sensorium.data.picture_book.place import SHIPPED

    heldout = [e for e in read_entries(SHIPPED) if e["split"] == "heldout"]
    entry = next((e for e in heldout if e["name"] == "banana"), heldout[len(heldout) // 2])
    picture = str(SHIPPED / entry["image"])
    say(f"   {picture}  (\"{entry['caption']}\")")
    turns: list[dict[str, str]] = []
    for question in QUESTIONS:
        content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
        answer = model.respond([{"role": "user", "content": content}], max_tokens=40)
        turns.append({"question": question, "answer": answer})
        say(f"   you> {question}\n   nano> {json.dumps(answer, ensure_ascii=False)}")
    return {"picture": picture, "caption": entry["caption"], "turns": turns}
