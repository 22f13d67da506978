"""`sensorium`: the commands. `EXIT_CODES` says how they end."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer

from sensorium.cli.data_app import ModelName, data_app
from sensorium.cli.indexing import index_app
from sensorium.cli.launching import LaunchCommand, launch
from sensorium.cli.recipe_app import Json, recipe_app
from sensorium.cli.tokenizer import tokenizer_app
from sensorium.cli.version import common
from sensorium.core.errors import SensoriumError, StoppedError

# transformers obeys this too: weights load in bars of its own otherwise, in the midst of ours.
# Downloads keep theirs on a terminal (interop/locate.py).
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

EXIT_CODES = (
    "Exit codes: 0 done, 1 error, 2 config or usage, 3 data or media, 4 misaligned placeholders, 5 weights, "
    "6 checkpoint, 7 numbers not finite, 8 missing package, 9 something of an answer could not be made or was cut off, 130 interrupted."
)
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Build, train, measure and serve multimodal language models.",
    epilog=EXIT_CODES,
)
for name, part in (("data", data_app), ("recipe", recipe_app), ("tokenizer", tokenizer_app), ("index", index_app)):
    app.add_typer(part, name=name)
app.command("launch", cls=LaunchCommand)(launch)
app.callback()(common)

Experts = Annotated[
    list[str] | None,
    typer.Option("--expert", help="Who tells the model of pictures, which it then does not see: captioner:model=nano, ocr. May be repeated."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps; auto: the best here.")]
Beams = Annotated[int, typer.Option(help="More than 1: search with so many beams for the likeliest answer; without temperature.")]
CacheFeatures = Annotated[bool, typer.Option("--cache-features", help="Keep what the encoder makes of pictures, and use what training or an evaluation kept (`sensorium cache`).")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")]


def print_json(value: Any) -> None:
    """JSON on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


@app.command()
def ask(
    picture: Annotated[str, typer.Argument(help="An image, video or sound file; or the question, where neither is asked about.")],
    question: Annotated[str | None, typer.Argument(help="What to ask about it.")] = None,
    model: ModelName = "nano",
    device: Device = "auto",
    max_tokens: MaxTokens = 64,
    temperature: Annotated[float, typer.Option(help="0 answers greedily.")] = 0.0,
    beams: Beams = 1,
    choices: Annotated[str | None, typer.Option(help="A file of answers, one a line or a JSON list: print the likeliest of them.")] = None,
    expert: Experts = None, cache_features: CacheFeatures = False,
    save: Annotated[str | None, typer.Option(help="A new folder for the answer, what it makes, and what it points at, drawn.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="--save: of what is made; 0 if nothing is said.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="--save: of a generator; 50 if nothing is said.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="--save: how strongly a generator keeps to what it is told; 1: not led away from anything.")] = None,
    size: Annotated[str | None, typer.Option(help="--save: of what is made, in pixels: WIDTHxHEIGHT, or one side of a square.")] = None,
    negative: Annotated[str | None, typer.Option(help="--save: what a generator is led away from, in words.")] = None,
    speak: Annotated[bool, typer.Option("--speak", help="--save: the answer as sound, too.")] = False,
    draw: Annotated[bool, typer.Option("--draw", help="--save: begin with a picture, by an LLM that writes pictures as tokens.")] = False,
    as_json: Json = False,
) -> None:
    """Ask one question, about a picture or none."""
    from sensorium.cli.answering import AnswerOptions, ask_command
    from sensorium.cli.choosing import choose_command
    from sensorium.cli.making_options import MakingOptions
    from sensorium.cli.saving_answers import Saving, ask_and_save
    from sensorium.core.choices import read_choices

    options = AnswerOptions(model, device, max_tokens, temperature, tuple(expert or ()), beams, cache_features)
    asked = MakingOptions(steps, seed, guidance, size, negative)
    if (saving := Saving(save, asked, speak, draw)).wanted(choosing=choices is not None):
        return ask_and_save(picture, question, options, saving, as_json)
    if choices is not None:
        return choose_command(picture, question, options, read_choices(choices), as_json)
    return ask_command(picture, question, options, as_json)


@app.command()
def chat(
    picture: Annotated[str | None, typer.Argument(help="An image, video or sound file to start with.")] = None,
    model: ModelName = "nano",
    device: Device = "auto",
    max_tokens: MaxTokens = 128,
    temperature: Annotated[float, typer.Option(help="0 answers greedily.")] = 0.0,
    expert: Experts = None,
    cache_features: CacheFeatures = False,
) -> None:
    """Talk about pictures, videos and sound: `/image PATH` adds a picture, `/file PATH` a video or sound, `/new` starts over, `/quit` leaves."""
    from sensorium.cli.answering import AnswerOptions
    from sensorium.cli.chatting import chat_command

    chat_command(picture, AnswerOptions(model, device, max_tokens, temperature, tuple(expert or ()), cache_features=cache_features))


@app.command()
def match(
    picture: Annotated[str, typer.Argument(help="An image file.")],
    texts: Annotated[list[str], typer.Argument(help="Texts to compare it with.")],
    model: Annotated[str, typer.Option("--model", "-m", help="A dual encoder (CLIP, SigLIP, BLIP): a folder or a hub id.")],
    prompt: Annotated[list[str] | None, typer.Option(help="Texts are names in it: 'a photo of a {}.'; of several, the mean.")] = None,
    together: Annotated[bool, typer.Option(help="BLIP: read picture and text together, which is better and slower.")] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare a picture with texts: probability and score, the fittest first."""
    from sensorium.cli.matching import MatchOptions, match_command

    match_command(picture, texts, MatchOptions(model, device, tuple(prompt or ()), together), as_json)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, NAME/tiny, or a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value ...")] = None,
    out: Annotated[str | None, typer.Option(help="Run folder; default runs/RECIPE.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint.")] = False,
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard logs too.")] = False,
    plan_only: Annotated[bool, typer.Option(help="Check everything, train nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Train all stages of a recipe."""
    from sensorium.cli.training import train_command

    train_command(recipe, overrides or [], out, resume, tensorboard, plan_only, as_json)


@app.command("eval")
def evaluate(
    model: ModelName = "nano",
    benchmarks: Annotated[
        list[str] | None, typer.Argument(help="Names, or name:key=value,... Default: all.")
    ] = None,
    device: Device = "auto",
    limit: Annotated[int | None, typer.Option(help="Questions a benchmark, at most.")] = None,
    out: Annotated[str, typer.Option(help="Folder for results.json and report.html.")] = "runs/eval",
    beams: Beams = 1,
    rank: Annotated[int, typer.Option(help="Choose among a question's listed answers, of which so many (BLIP: 128) are read whole; 0: write.")] = 0,
    expert: Experts = None,
    cache_features: CacheFeatures = False,
    as_json: Json = False,
) -> None:
    """Score a model beside a blind and a constant baseline."""
    from sensorium.cli.evaluating import EvalOptions, Manner, eval_command

    options = EvalOptions(model, device, limit, out, tuple(expert or ()), cache_features, Manner(beams, rank))
    eval_command(benchmarks or [], options, as_json)


@app.command()
def demo(
    out: Annotated[str, typer.Option(help="Run folder.")] = "runs/demo",
    limit: Annotated[int, typer.Option(help="Questions a benchmark, at most.")] = 60,
    as_json: Json = False,
) -> None:
    """Train nano from an untrained projector, measure it before and after, ask it."""
    from sensorium.cli.demo import demo_command

    demo_command(out, limit, as_json)


@app.command("import")
def import_model(
    source: Annotated[
        str, typer.Argument(help="A folder in transformers' layout, a folder or file as its authors published it, or a hub id.")
    ],
    out: Annotated[str, typer.Argument(help="Folder to write.")],
    llm: Annotated[str | None, typer.Option(help="Folder of the language model it was trained on.")] = None,
    tower: Annotated[str | None, typer.Option(help="Folder of the vision tower, or LAVIS' eva_vit_g.pth.")] = None,
    more: Annotated[
        list[str] | None, typer.Option("--with", help="A checkpoint that this one goes on from, or what lies beside it: a folder of diffusers, seed_quantizer.pt. May be repeated.")
    ] = None,
    onto: Annotated[str | None, typer.Option(help="For an adapter in peft's layout: the model it goes onto.")] = None,
    as_json: Json = False,
) -> None:
    """Bring in a checkpoint in transformers' layout or in its authors' own (docs/exchange.md lists both).
    Pickled code is never run."""
    from sensorium.cli.exchange import ImportOptions, import_command

    import_command(source, out, ImportOptions(llm, tower, tuple(more or ()), onto), as_json)


@app.command()
def export(
    folder: Annotated[str, typer.Argument(help="A Sensorium model: name or folder.")],
    out: Annotated[str, typer.Argument(help="Folder to write.")],
    to: Annotated[str | None, typer.Option(help="hf, original, sensorium, gguf, or a family of docs/exchange.md; default: the layout it came in.")] = None,
    number: Annotated[str | None, typer.Option(help="Of matrices. gguf: f32, f16 (default), q8_0; sensorium, onto: f16, q8_0.")] = None,
    llm_only: Annotated[bool, typer.Option(help="gguf: leave tower and projector out.")] = False,
    half: Annotated[bool, typer.Option(help="The same as --number f16, for sensorium and onto.")] = False,
    adapter_only: Annotated[bool, typer.Option(help="Write the low-rank adapter alone, for peft.")] = False,
    as_json: Json = False,
) -> None:
    """Write a model in another layout, always as safetensors or GGUF, never pickled; a low-rank adapter is merged,
    but not in its original layout."""
    from sensorium.cli.exchange import ExportOptions, export_command

    export_command(folder, out, ExportOptions(to, half, number, llm_only, adapter_only), as_json)


@app.command()
def merge(
    folder: Annotated[str, typer.Argument(help="A Sensorium model with low-rank adapters: name or folder.")],
    out: Annotated[str, typer.Argument(help="Folder to write.")],
    forget: Annotated[bool, typer.Option(help="Do not keep what `unmerge` needs.")] = False,
    as_json: Json = False,
) -> None:
    """Make low-rank adapters (LoRA, DoRA) part of the weights: the same answers, nothing beside them."""
    from sensorium.cli.merging import merge_command

    merge_command(folder, out, forget, as_json)


@app.command()
def unmerge(
    folder: Annotated[str, typer.Argument(help="A model that `merge` wrote.")],
    out: Annotated[str, typer.Argument(help="Folder to write.")],
    base: Annotated[bool, typer.Option(help="The model without its adapters.")] = False,
    as_json: Json = False,
) -> None:
    """Give back the weights as they were before `merge`, bit for bit, and the adapters apart."""
    from sensorium.cli.merging import unmerge_command

    unmerge_command(folder, out, base, as_json)


@app.command()
def cache(
    clear: Annotated[bool, typer.Option(help="Remove everything that no living process is writing.")] = False,
    as_json: Json = False,
) -> None:
    """What the feature store holds: outputs of frozen encoders, kept by `cache_features`."""
    from sensorium.cli.cache import cache_command

    cache_command(clear, as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this machine can do, what is missing, and the remedy."""
    from sensorium.cli.doctor import doctor_command

    doctor_command(as_json)


def main() -> None:
    """Run, and turn errors a user can mend into one line and an exit code."""
    try:
        app()
    except StoppedError as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)
    except SensoriumError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


if __name__ == "__main__":
    main()
