"""What an original checkpoint consists of, and what its layout answers."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from sensorium.core.errors import WeightsError
from sensorium.interop.key_map import KeyMap
from sensorium.model.config import LoraConfig, ModelConfig


@dataclass(frozen=True, slots=True)
class Beside:
    """What a checkpoint that holds only what its training changed has to be laid beside."""

    llm: Path | None = None
    """The language model, a folder in transformers' layout; where the checkpoint holds its tensors, its shape and tokenizer are enough."""
    tower: Path | None = None
    """The encoder, a folder in transformers' layout or a file of the authors'."""
    more: tuple[Path, ...] = ()
    """Further checkpoints of the same layout, earlier ones first; the main one comes last and
    replaces what they hold. Of some layouts also folders of diffusers (Emu, Emu2, MGIE) or the tokenizer of pictures (SEED-LLaMA)."""


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint read."""

    path: Path
    config: dict[str, Any]
    """config.json in or beside it; empty where there is none."""
    tensors: dict[str, Tensor]
    lora: LoraConfig | None = None
    """Where low-rank matrices are among the tensors."""
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    """Each tensor's file, without its ending; shards count as one, `model`."""
    idle: frozenset[str] = frozenset()
    """Canonical names of tensors that no part reads, and that go back as they came."""
    words: Mapping[str, int] = field(default_factory=dict[str, int])
    """Control tokens, and the rows of the embedding that are theirs; in this order they are added to a tokenizer that lacks them."""


class Original(Protocol):
    """One layout."""

    def fits(self, names: Collection[str]) -> bool:
        """Whether tensors of these names are of this layout."""
        ...

    def canonical(self, name: str) -> str:
        """The layout's name of a tensor, without what wrappers of its time put in front."""
        ...

    def gather(self, found: Found, beside: Beside) -> Found:
        """The tensors under the layout's canonical names, without what nobody needs."""
        ...

    def model(self, found: Found, beside: Beside) -> ModelConfig:
        """The model that a gathered checkpoint means.

        Raises:
            ConfigError: it has parts that we don't have.
            WeightsError: a part is neither in it nor beside it.
        """
        ...

    def key_map(self, names: Collection[str]) -> KeyMap:
        """The key map for a checkpoint with these names; ours are `generators.KIND.NAME` for what a hand's generator holds."""
        ...

    def folders(self, found: Found, beside: Beside) -> dict[str, Path]:
        """Part -> the folder beside the checkpoint that it is loaded from first."""
        ...


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file.

    Raises:
        WeightsError: it is not JSON, or no object.
    """
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"not JSON: {error}", where=str(file)) from None
    if not isinstance(values, dict):
        raise WeightsError("no JSON object", where=str(file))
    return values


def pipeline_folder(beside: Beside) -> Path | None:
    """The last folder of a pipeline of diffusers that was named with --with."""
    return next((path for path in reversed(beside.more) if is_pipeline(path)), None)


def is_pipeline(path: Path) -> bool:
    return (path / "model_index.json").is_file()


def llm_folder(beside: Beside, path: Path) -> Path:
    """The folder of the language model.

    Raises:
        WeightsError: none was named, or it is no model folder.
    """
    if beside.llm is None:
        raise WeightsError(
            "the checkpoint holds no language model", where=str(path),
            fix="name its folder (transformers layout) with --llm",
        )  # fmt: skip
    if not (beside.llm / "config.json").is_file():
        raise WeightsError("no config.json of a language model", where=str(beside.llm))
    return beside.llm


def last_rows(tokens: Sequence[str], rows: int) -> dict[str, int]:
    """Control tokens that came behind all others, as resizing an embedding to a tokenizer's length leaves it: their rows."""
    return {token: rows - len(tokens) + i for i, token in enumerate(tokens)}


def count(names: Collection[str], before: str) -> int:
    """How many numbered modules there are behind a prefix: one more than the highest number."""
    heads = {name[len(before) :].partition(".")[0] for name in names if name.startswith(before)}
    return 1 + max((int(head) for head in heads if head.isdigit()), default=-1)


def need(tensors: Mapping[str, Tensor], name: str, path: Path, fix: str) -> Tensor:
    """A tensor whose shape says how large a part is.

    Raises:
        WeightsError: it is missing.
    """
    if name not in tensors:
        raise WeightsError(f"no tensor {name!r}", where=str(path), fix=fix)
    return tensors[name]
