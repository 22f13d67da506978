"""`tokenizer train`, `tokenizer report`: turning pictures into tokens, and back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sensorium.cli.recipe_app import Json

tokenizer_app = typer.Typer(no_args_is_help=True, help="Train and measure picture tokenizers.", rich_markup_mode=None)
Source = Annotated[str, typer.Option("--pictures", help="A folder of pictures, or picture-book.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps; auto: the best here.")]


@tokenizer_app.command("train")
def train(
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value ..., such as tokenizer.codes=1024 training.steps=500 'training.adversarial={start_step: 100}'")] = None,
    pictures: Source = "picture-book",
    out: Annotated[str, typer.Option(help="Run folder.")] = "runs/tokenizer",
    config: Annotated[str | None, typer.Option(help="A YAML file with `tokenizer` and `training`; default: 64 pixels, 512 codes.")] = None,
    queries: Annotated[str | None, typer.Option(help="Of SEED's: a model of recipe seed-queries, whose tower and queries it begins with.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint.")] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train a VQ tokenizer, or SEED's behind its queries, on pictures; a tenth of a folder's, or picture-book's own held-out ones, are kept for the report."""
    from sensorium.cli.main import print_json
    from sensorium.data.tokenizer_pictures import picture_files, read_pixels
    from sensorium.interop.locate import locate
    from sensorium.interop.seed_queries import read_queries
    from sensorium.model.device import choose_device
    from sensorium.training.tokenizer import TokenizerRecipe, TokenizerRun, train_tokenizer

    recipe = (TokenizerRecipe.load(Path(config)) if config else TokenizerRecipe()).override(overrides or [])
    pixels_NCHW = read_pixels(picture_files(pictures, "train"), recipe.tokenizer.size_px)
    where = choose_device(device)
    run = TokenizerRun(Path(out), resume, _perceptual(recipe.training.perceptual, where), str(where), locate(recipe.tokenizer.weights),
                       read_queries(Path(queries)) if queries else None)  # fmt: skip
    report = train_tokenizer(recipe, pixels_NCHW, run)
    if as_json:
        print_json({"folder": out, **report})
        return
    print(f"Tokenizer: {out}   loss {report['loss']:.4f}" if "loss" in report else f"Tokenizer: {out}, trained before")
    print(f"Measure it: sensorium tokenizer report {out} --pictures {pictures}")


@tokenizer_app.command("report")
def report(
    folder: Annotated[str, typer.Argument(help="A tokenizer's folder: one of ours, or Chameleon, Emu3 or Janus in transformers' layout.")],
    pictures: Source = "picture-book",
    split: Annotated[str, typer.Option(help="heldout or train.")] = "heldout",
    limit: Annotated[int | None, typer.Option(min=1, help="Pictures, at most.")] = None,
    sheet: Annotated[str | None, typer.Option(help="PNG to write: originals above reconstructions.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Give held-out pictures back: PSNR, mean absolute difference, use of the codebook and its perplexity."""
    from sensorium.cli.main import print_json
    from sensorium.core.errors import ConfigError
    from sensorium.data.tokenizer_pictures import picture_files, read_pixels
    from sensorium.evaluation.reconstruction import measure, reconstruct, write_sheet
    from sensorium.generators.tokenizer_files import open_tokenizer
    from sensorium.model.device import choose_device

    if split not in ("heldout", "train"):
        raise ConfigError(f"split {split!r}", expected="heldout or train")
    tokenizer: Any = open_tokenizer(Path(folder))
    where = choose_device(device)
    tokenizer.to(where)
    pixels_NCHW = read_pixels(picture_files(pictures, split)[:limit], tokenizer.size_px)
    ids, made_NCHW = reconstruct(tokenizer, pixels_NCHW, where)
    scores = measure(tokenizer, ids, made_NCHW, pixels_NCHW)
    if sheet is not None:
        write_sheet(Path(sheet), pixels_NCHW, made_NCHW)
        print(f"{sheet}: originals above reconstructions", file=sys.stderr)
    if as_json:
        print_json({"folder": folder, "split": split, "grid": [tokenizer.grid.h, tokenizer.grid.w], "codes": tokenizer.codes,
                    **scores.to_json()})  # fmt: skip
        return
    print(f"{scores.pictures} pictures ({split}), {tokenizer.size_px} px, {tokenizer.grid.tokens} tokens of {tokenizer.codes} codes")
    print(f"PSNR {scores.psnr_db:.2f} dB   L1 {scores.l1:.4f}   codes used {scores.codes_used:.1%}   perplexity {scores.perplexity:.1f}")


def _perceptual(config: Any, device: Any) -> Any:
    """The loss of a recipe's encoder, with its weights; None where it has none."""
    if config is None:
        return None
    from sensorium.interop.locate import locate
    from sensorium.nn.perceptual import PerceptualLoss

    return PerceptualLoss(config.build(locate(config.weights)), config.preprocess().size_px).to(device)
