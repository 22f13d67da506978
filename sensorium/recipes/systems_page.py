"""`docs/systems.md`: the published systems, their sizes counted, what is missing and what differs."""

from __future__ import annotations

from sensorium.media.native import NativeResolution
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.recipes import RECIPES
from sensorium.recipes.sizes import part_sizes, tokens_text
from sensorium.recipes.summary import Summary, summary
from sensorium.training.config import Published, Recipe

HEAD = """# Published systems as recipes

Written by `sensorium recipe table --out docs/systems.md`; `tests/recipes` keeps it up to date.
Sizes are counted on models built at published size on the meta device. They are equal, part by part,
to those of the oracle: the class of transformers that computes the same function. (That class has
two layers where LLaVA v1, Shikra and ChatSpot have one linear map.) *Recorded* names a package whose
numbers were written down once; a *second writing* is the authors' code as the test that is named writes it again, because it does
not run here; *parts of transformers* were put together in that test as the authors' code does. Of systems whose code is closed,
no more than the parts can be compared. Where there is no class, each part
is as large as a class of its own, or as the shapes in the original's code add up to; LLaMA-Adapter's encoder, LLM
and prompts are as large as those of transformers and peft, whose gates are fewer. *Partial* says
that a step of the original's training cannot be done here yet; the lists below the table say which, and what is unknown of models
that a recipe stands in for.
Tokens are those of one tile where pictures are cut into several.

Each recipe, or the one that it is a variant of, has a tiny form that trains in seconds on the shipped
pictures: `sensorium train llava-1.5/tiny`. Full-size stages name their data by path; weights come from the hub as safetensors
with a `tokenizer.json`, so where a repository holds neither, save them once in that form.

"""
COLUMNS = ("Recipe", "arXiv", "In→out", "Encoder", "Projector → tokens", "Cross-attention", "LLM",
           "Total", "Stages: what learns", "Oracle", "Status")  # fmt: skip


def systems_page() -> str:
    """The whole page."""
    recipes = [RECIPES.find(name)() for name in RECIPES]
    known = [(r, r.published) for r in recipes if r.published is not None]
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(_row(r, p, summary(r)) for r, p in known)]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    notes = "".join(_notes(r, p) for r, p in known if p.missing or p.differs or p.unknown)
    return f"{HEAD}{table}{notes}"


def _row(recipe: Recipe, published: Published, line: Summary) -> tuple[str, ...]:
    sizes = part_sizes(recipe.model)
    stages = zip(line.stages, line.trained, strict=True)
    return (
        f"`{recipe.name}`",
        f"[{published.paper}](https://arxiv.org/abs/{published.paper})",
        line.io,
        *_eyes(recipe.model, sizes),
        f"{sizes['fusion']:,}" if "fusion" in sizes and recipe.model.text_frame is None else "",
        f"{line.parts.rpartition(' → ')[2]}, {sizes['backbone']:,}",
        f"{sum(sizes.values()):,}",
        "; ".join(f"{name}: {trained}" for name, trained in stages),
        line.oracle if published.oracle is None and line.oracle else f"`{line.oracle}`" if line.oracle else "none",
        line.status,
    )


def _eyes(model: ModelConfig, sizes: dict[str, int]) -> tuple[str, str]:
    """What reads pictures, and what brings them to the LLM."""
    lane, told = model.lanes.get("image"), model.picture_words
    if lane is None:
        assert told is not None, "no lane, and no words of pictures"
        tokenizer = told.tokenizer
        fixed = not isinstance(told.resolution, NativeResolution)
        size, tokens = f"{tokenizer.size_px} px", f"{tokenizer.grid().tokens:,}"
        if not fixed:
            size, tokens = "any size", f"H/{tokenizer.stride} x (W/{tokenizer.stride} + 1)"
        return f"{tokenizer.kind} {size}, {sizes['picture_tokenizer']:,}", f"words → {tokens}, 0"
    return (f"{lane.encoder.kind} {_input(lane)}, {sizes['encoders.image']:,}",
            f"{lane.projector.kind} → {tokens_text(lane)}, {sizes.get('projectors.image', 0):,}")  # fmt: skip


def _input(lane: LaneConfig) -> str:
    if isinstance(lane.resolution, NativeResolution):
        return "any size"
    return f"{lane.encoder.preprocess().size_px} px"


def _notes(recipe: Recipe, published: Published) -> str:
    lines = [f"- missing: {text}\n" for text in published.missing]
    lines += [f"- differs: {text}\n" for text in published.differs]
    lines += [f"- unknown: {text}\n" for text in published.unknown]
    return f"\n## {recipe.name}\n\n{''.join(lines)}"
