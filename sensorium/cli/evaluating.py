"""`eval`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sensorium.core.errors import ConfigError

CHOICES = ("naming", "category")
"""For models that choose among answers and write none."""
DEFAULT = ("naming", "category", "existence", "scene_existence", "attribute", "count", "relation")


def parse_benchmarks(names: Sequence[str], limit: int | None) -> list[Any]:
    """Benchmark configs from `name` or `name:key=value,key=value`; a value may be YAML in braces, with commas of its own.

    Raises:
        ConfigError: an unknown name or key.
    """
    from sensorium.evaluation.benchmarks import BENCHMARKS

    made: list[Any] = []
    for text in names or DEFAULT:
        name, values = _named_values(text, {} if limit is None else {"limit": limit})
        made.append(BENCHMARKS.find(name).from_dict(values, where=f"benchmark {name}"))
    return made


def _named_values(
    text: str, given: dict[str, Any] | None = None, noun: str = "benchmark"
) -> tuple[str, dict[str, Any]]:
    """The name and the values of `name:key=value,key=value`; they come behind what is given."""
    name, _, rest = text.partition(":")
    values: dict[str, Any] = {"kind": name} | (given or {})
    for pair in filter(None, _apart(rest)):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"{noun} option {pair!r} has no '='", expected="key=value")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"{noun} option {pair!r} is not YAML") from None
    return name, values


def _apart(text: str) -> list[str]:
    """Split at commas outside braces and brackets."""
    pieces, depth = [""], 0
    for letter in text:
        depth += (letter in "{[") - (letter in "}]")
        if letter == "," and depth <= 0:
            pieces.append("")
        else:
            pieces[-1] += letter
    return pieces


def parse_experts(names: Sequence[str]) -> list[Any]:
    """Expert configs from `name` or `name:key=value,key=value`.

    Raises:
        ConfigError: an unknown name or key.
    """
    from sensorium.experts import EXPERTS

    named = [_named_values(text, noun="expert") for text in names]
    return [EXPERTS.find(name).from_dict(values, where=f"expert {name}") for name, values in named]


def told_by(responder: Any, experts: Sequence[str]) -> Any:
    """The responder, or one that hears what experts say and sees no pictures."""
    if not experts:
        return responder
    from sensorium.experts.base import Panel
    from sensorium.experts.responder import Told

    return Told(responder, Panel.of(parse_experts(experts)))


@dataclass(frozen=True, slots=True)
class Manner:
    """How a model answers benchmarks; its own way where nothing is set."""

    beams: int = 1
    """More than 1: a search with so many."""
    rank: int = 0
    """More than 0: the likeliest of a question's listed answers, of which so many are read whole."""

    def check(self) -> None:
        """Whether it makes sense; called before weights are read.

        Raises:
            ConfigError: a number out of range, or both at once.
        """
        from sensorium.inference.sampling import Sampling

        Sampling(beams=self.beams)
        if self.rank < 0 or (self.rank and self.beams > 1):
            raise ConfigError(f"--rank {self.rank} with --beams {self.beams}",
                              expected="--rank of 1 or more alone, or --beams alone")  # fmt: skip

    def responder(self, loaded: Any) -> Any:
        """The model answering in this manner."""
        from sensorium.inference.ranking import Ranker, Ranking
        from sensorium.inference.sampling import Sampling

        if self.rank:
            return Ranker(loaded.engine, Ranking(kept=self.rank))
        return loaded.answering(Sampling(beams=self.beams)) if self.beams > 1 else loaded.responder


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """Which model is measured, where, and on how much."""

    model: str
    device: str
    limit: int | None
    """Questions a benchmark, at most."""
    out: str
    """Folder for results and report."""
    experts: tuple[str, ...] = ()
    cache_features: bool = False
    manner: Manner = Manner()


def eval_command(names: Sequence[str], options: EvalOptions, as_json: bool) -> None:
    """Run, print a table, write results.json and report.html."""
    from sensorium.api import load
    from sensorium.cli.main import print_json
    from sensorium.evaluation.report import write_report

    options.manner.check()
    benchmarks = parse_benchmarks(names, options.limit)
    parse_experts(options.experts)  # Before the weights are read: a wrong name should not cost that time.
    loaded = load(options.model, options.device)
    if options.cache_features:
        loaded.keep_features()
    if not names and loaded.network.config.text_frame is not None:
        benchmarks = parse_benchmarks(CHOICES, options.limit)
    results = run_benchmarks(benchmarks, told_by(options.manner.responder(loaded), options.experts))
    folder = Path(options.out)
    for result in results:
        result.sheets = result.benchmark.sheets(result.items, result.answers["model"], folder)
    write_results(folder / "results.json", options.model, results)
    write_report(f"{options.model}: evaluation", [(options.model, results)], folder / "report.html")
    if as_json:
        print_json(summary(options.model, results))
        return
    print_table(summary(options.model, results))
    print(f"\nAnswers and pictures: {folder / 'report.html'}")


def run_benchmarks(benchmarks: Sequence[Any], responder: Any) -> list[Any]:
    """Every benchmark in turn."""
    from sensorium.evaluation.runner import run_benchmark

    return [run_benchmark(benchmark, responder) for benchmark in benchmarks]


def _named(results: Sequence[Any]) -> list[tuple[str, Any]]:
    """Results by benchmark; the second of a kind is `kind#2`."""
    seen: dict[str, int] = {}
    named: list[tuple[str, Any]] = []
    for result in results:
        kind = result.benchmark.kind
        seen[kind] = seen.get(kind, 0) + 1
        named.append((kind if seen[kind] == 1 else f"{kind}#{seen[kind]}", result))
    return named


def summary(model: str, results: Sequence[Any]) -> dict[str, Any]:
    """Scores without the rows."""
    full = {name: r.to_json() for name, r in _named(results)}
    for value in full.values():
        del value["rows"]
    return {"model": model, "benchmarks": full}


def write_results(path: Path, model: str, results: Sequence[Any]) -> None:
    """results.json, with every answer."""
    from sensorium.core.atomic import write_json

    write_json(path, {"model": model, "benchmarks": {name: r.to_json() for name, r in _named(results)}})


def print_table(after: dict[str, Any], before: dict[str, Any] | None = None) -> None:
    """Headline scores beside the baselines, from two `summary`s of the same benchmarks."""
    head = f"{'benchmark':<18}{'score':<20}"
    if before:
        head += f"{'before':>9}"
    head += f"{'model':>9}{'95 % interval':>18}{'blind':>9}{'constant':>10}{'n':>6}"
    print(head)
    for name, r in after["benchmarks"].items():
        scores = r["scores"]
        # A demo of an earlier version may have been kept, which counted all.
        lines = {r["headline"]: r | {"items": r.get("counted", r["items"])}, **r.get("groups", {})}
        for i, (key, counted) in enumerate(lines.items()):
            low, high = counted["interval_95"]["model"]
            line = f"{'' if i else r['benchmark']['kind']:<18}{key.replace('_', ' '):<20}"
            if before:
                line += f"{before['benchmarks'][name]['scores']['model'][key]:>9.1%}"
            line += f"{scores['model'][key]:>9.1%}{f'{low:.1%} - {high:.1%}':>18}"
            print(line + f"{scores['blind'][key]:>9.1%}{scores['constant'][key]:>10.1%}{counted['items']:>6}")
        for title, names in r.get("beside", {}).items():
            model, there = scores["model"], [name for name in names if name in scores["model"]]
            if there:
                ends = [f"{model[end]:.1%}" for end in (f"{there[-1]}_from", f"{there[-1]}_to") if end in model]
                interval = f"  (the last {' - '.join(ends)})" if ends else ""
                shown = [f"{model[name]:.4g}" if name in r.get("no_shares", ()) else f"{model[name]:.1%}" for name in there]
                print(f"{'':<18}{title:<19} {' / '.join(shown)}{interval}")
        for sentence in r.get("sheets", {}).get("said", ()):
            print(f"{'':<18}{sentence}")
