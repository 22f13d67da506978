"""A recipe in one line: what goes in and out, which parts, what each stage trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.backbones.cross_lm import BlipTextBackbone
from sensorium.backbones.seq2seq_lm import Seq2SeqLMConfig
from sensorium.backbones.text_tower import TextTowerConfig
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.model.learning import Learn
from sensorium.training.config import Recipe, StageConfig

LETTERS = {"image": "I", "video": "V", "audio": "A"}
ROLES = {"encoders": "encoder", "projectors": "projector", "newlines": "newline", "backbone": "LLM"}


@dataclass(frozen=True, slots=True)
class Summary:
    """The columns of `sensorium recipe list`."""

    name: str
    io: str
    phrase: str
    parts: str
    stages: tuple[str, ...]
    trained: tuple[str, ...]
    """What each stage trains."""
    oracle: str | None
    """The class of transformers, or `recorded: ` and the package whose numbers were written down, or what else it is compared with;
    None: there is none."""
    status: str

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).__slots__}


def summary(recipe: Recipe) -> Summary:
    """A recipe's line."""
    io, phrase = _split(recipe)
    return Summary(
        name=recipe.name,
        io=io,
        phrase=phrase,
        parts=parts_line(recipe.model),
        stages=tuple(stage.name for stage in recipe.stages),
        trained=tuple(trained_line(stage, reads_only(recipe.model)) for stage in recipe.stages),
        oracle=_oracle(recipe),
        status=status(recipe),
    )


def _oracle(recipe: Recipe) -> str | None:
    published = recipe.published
    if published is None or published.oracle or not published.recorded:
        return (published.oracle or published.second) if published else None
    return f"recorded: {published.recorded}"


def status(recipe: Recipe) -> str:
    """`ours`; or whether all of the original's training can be done here."""
    if recipe.published is None:
        return "ours"
    return "partial" if recipe.published.missing else "complete"


def parts_line(model: ModelConfig) -> str:
    """encoder → projector → (fusion →) LLM."""
    middle = [] if model.fusion.kind == "splice" else [model.fusion.kind]
    lanes = " & ".join(f"{_encoders(lane)} → {lane.projector.kind}" for lane in model.lanes.values())
    if not lanes and model.picture_words is not None:
        lanes = f"{model.picture_words.tokenizer.kind} → words"
    return " → ".join([lanes, *middle, llm_name(model)] if lanes else [llm_name(model)])


def _encoders(lane: LaneConfig) -> str:
    return lane.encoder.kind + (f" (+ {lane.detail.kind})" if lane.detail else "")


def llm_name(model: ModelConfig) -> str:
    """The LLM's family."""
    backbone = model.backbone
    known = isinstance(backbone, CausalLMConfig | Seq2SeqLMConfig | TextTowerConfig | BlipTextBackbone)
    return str(backbone.arch["model_type"]) if known else backbone.kind


def reads_only(model: ModelConfig) -> bool:
    """Whether the model has a text tower and no LLM."""
    return model.text_frame is not None


def trained_line(stage: StageConfig, tower: bool = False) -> str:
    """The parts that learn, by their roles.

    Args:
        tower: the backbone is a text tower.
    """
    line = " + ".join(map(learner, stage.learns))
    return line.replace(ROLES["backbone"], "text tower") if tower else line


def learner(learn: Learn) -> str:
    """One entry of `learns` by its role: `projector.out`, `encoder (last 4)`."""
    head, _, kind = learn.part.partition(".")
    name = ROLES.get(head, head) if kind in ("", "image") else learn.part
    if learn.module is not None:
        rows = f" ({len(learn.rows)} rows)" if learn.rows else ""
        # A path of modules is too long a word for a terminal; its end says what it is.
        return f"{name}.{learn.module.rpartition('.')[2]}{rows}"
    return name if learn.last_blocks is None else f"{name} (last {learn.last_blocks})"


def _split(recipe: Recipe) -> tuple[str, str]:
    """Inputs→outputs and the phrase behind them; the former from the model where not given."""
    io, colon, phrase = recipe.description.partition(": ")
    if colon and "→" in io:
        return io, phrase
    letters = [LETTERS.get(kind, kind) for kind in recipe.model.lanes]
    return "+".join([*letters, "T"]) + "→" + _made(recipe.model), recipe.description


def _made(model: ModelConfig) -> str:
    """What comes out: text, media, places."""
    media = "/".join(LETTERS[kind] for kind in model.hands if kind in LETTERS)
    places = [*(["box"] if model.boxes else []), *(["mask"] if "mask" in model.hands else [])]
    return ",".join(["T" + (f"+{media}" if media else ""), *places])
