"""`train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sensorium.core.errors import ConfigError
from sensorium.core.naming import did_you_mean

if TYPE_CHECKING:
    from sensorium.model.config import ModelConfig


def find_recipe(name: str, overrides: list[str]) -> Any:
    """A recipe by name or YAML file, with overrides applied; `NAME/tiny` is its tiny form.

    Raises:
        ConfigError: there is none, its parts do not fit together, or a key or value is wrong, those of the
            language model's `arch` included.
    """
    from sensorium.model.arch_keys import check_arch
    from sensorium.model.check import check_model
    from sensorium.recipes import RECIPES, TINY_FORMS
    from sensorium.training.config import Recipe

    whole = name.removesuffix("/tiny")
    if name.endswith((".yaml", ".yml")):
        recipe = Recipe.load(Path(name))
    elif whole != name:
        if whole in RECIPES and whole not in TINY_FORMS:
            raise ConfigError(f"recipe {whole!r} has no tiny form", fix=did_you_mean(whole, TINY_FORMS))
        recipe = TINY_FORMS.find(whole)()
    else:
        recipe = RECIPES.find(name)()
    recipe = recipe.override(overrides)
    check_model(recipe.model)
    if name.endswith((".yaml", ".yml")) or overrides:
        check_arch(recipe.model.backbone)
    return recipe


def train_command(
    name: str, overrides: list[str], out: str | None, resume: bool, tensorboard: bool,
    plan_only: bool, as_json: bool,
) -> None:  # fmt: skip
    """Check, then train every stage."""
    from sensorium.cli.main import print_json
    from sensorium.cli.missing import check_data
    from sensorium.training.distributed.place import place

    recipe = find_recipe(name, overrides)
    if not recipe.stages:
        raise ConfigError(f"recipe {recipe.name!r} has no stages to train")
    check_data(recipe, name)
    folder = Path(out or f"runs/{recipe.name}")
    # A job that `torchrun` or `launch` starts again goes on.
    plans = run_training(recipe, folder, resume=resume or place().starts > 0, tensorboard=tensorboard,
                         plan_only=plan_only, quiet=as_json)  # fmt: skip
    if not place().first:
        return
    if as_json:
        print_json({"folder": str(folder), "trained": not plan_only,
                    "stages": [plan.to_json() for plan in plans]})  # fmt: skip
    elif plan_only:
        print("The plan holds; nothing was trained.")
    else:
        print(f"Model: {folder / 'model'}   log: {folder / 'log.jsonl'}")
        print(try_it(recipe.model, str(folder)))


def try_it(model: ModelConfig, folder: str) -> str:
    """What to do with a model next: one that writes can be talked to, one that compares cannot."""
    if model.text_frame is None:
        return f"Try it: sensorium chat --model {folder}"
    return f"Try it: sensorium match PICTURE TEXT TEXT ... --model {folder}"


def run_training(
    recipe: Any, folder: Path, *, resume: bool = False, tensorboard: bool = False,
    plan_only: bool = False, quiet: bool = False,
) -> list[Any]:  # fmt: skip
    """Train a recipe into a folder; prints each stage's plan.

    Under `torchrun`, together with the other processes; the first one speaks and writes.
    """
    from sensorium.training.distributed.ranks import joined

    with joined() as ranks:
        return _run_training(recipe, folder, ranks, resume=resume, tensorboard=tensorboard,
                             plan_only=plan_only, quiet=quiet or not ranks.first)  # fmt: skip


def _run_training(
    recipe: Any, folder: Path, ranks: Any, *, resume: bool, tensorboard: bool, plan_only: bool, quiet: bool
) -> list[Any]:
    import torch

    from sensorium.interop.assemble import build_pretrained, reads_bytes
    from sensorium.interop.cache import features_folder
    from sensorium.interop.saved import save_model
    from sensorium.training.distributed.held import home
    from sensorium.training.run import plan_recipe, train_recipe
    from sensorium.training.trainer import TrainerOptions

    words = recipe.model.picture_words
    if words is not None and not words.tokenizer.weights and not recipe.start and not resume:
        words.tokenizer.refuse_random()
    if reads_bytes(recipe.model) and not quiet:
        print("no weights and no tokenizer are named for the LLM: it starts at random and reads bytes", file=sys.stderr)
    options = TrainerOptions(
        folder=folder,
        cache=features_folder(),
        resume=resume,
        tensorboard=tensorboard,
        on_plan=None if quiet else print_plan,
        start=starter(recipe.start, quiet=quiet) if recipe.start else None,
        ranks=ranks,
    )

    def build() -> Any:
        model, tokenizer = build_pretrained(recipe.model)
        if home(recipe, ranks) is None:
            model.to("cuda" if torch.cuda.is_available() else "cpu")
        return model, tokenizer

    if plan_only:
        return plan_recipe(recipe, build, options)
    return train_recipe(recipe, build, save_model, options)


def starter(name: str, *, quiet: bool) -> Any:
    """What fills a built model from the trained one of this name, and says what stays new."""
    from sensorium.api import find_model
    from sensorium.interop.start import start_from

    folder = find_model(name)

    def start(model: Any) -> set[str]:
        started = start_from(model, folder)
        if not quiet:
            new = f"; new: {', '.join(started.new)}" if started.new else ""
            wide = f"; positions stretched: {', '.join(started.stretched)}" if started.stretched else ""
            print(f"starting from {name}: {len(started.names)} tensors{new}{wide}", file=sys.stderr)
        return started.names

    return start


def print_plan(plan: Any) -> None:
    """What a stage will do, before it does it."""
    say = lambda text: print(text, file=sys.stderr)  # noqa: E731
    there = "" if plan.available_mb is None else f" of {plan.available_mb:,} available"
    say(f"stage {plan.name}: {plan.steps} steps over {plan.rows:,} rows, {plan.number_format.precision}; first batch "
        f"{plan.samples} samples, {plan.tokens} tokens, loss {plan.loss:.3f}; "
        f"about {plan.memory_mb:,} MB{there}")  # fmt: skip
    lost = plan.number_format.warning(plan.name)
    say(f"  warning: {lost}" if lost else f"  {plan.number_format.precision}: {plan.number_format.why}")
    say(f"  {plan.fit.describe()}")
    if plan.halved:
        say(f"  {plan.halved:,} frozen weights of the LLM in bf16 meanwhile, as its products read them")
    say(f"  {plan.compiling}")
    say(f"  {plan.keeping}")
    if plan.not_recorded:
        say(f"  record is off: {plan.not_recorded}")
    for part, total, learning in plan.parts:
        state = f"{learning:>12,} learn" if learning else "frozen"
        say(f"  {part:<20} {total:>12,} parameters  {state}")
    say(f"  {'what learns':<58} {'lr':>9} {'decay':>7}")
    for group in plan.groups:
        row = group.to_json()
        # One line for all of them follows.
        if group.learn.layer_decay is None:
            what = f"{row['part']}, {row['which']}: {row['parameters']:,} in {row['kind']}"
            say(f"  {what:<58} {row['lr']:>9.2e} {row['weight_decay']:>7g}")
    for part, rates in plan.rates:
        say(f"  {part}: learning rates from {rates[0]:.2e} at the input to {rates[-1]:.2e}, "
            f"{len(rates)} of them")  # fmt: skip
    if plan.warning:
        say(f"  warning: {plan.warning}")
