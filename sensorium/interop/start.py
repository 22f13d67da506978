"""Training that starts from a trained model: parts that fit are taken, others stay new."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sensorium.core.errors import WeightsError
from sensorium.interop.locate import locate
from sensorium.interop.made_weights import GENERATORS, check_generators
from sensorium.interop.onto import whole_tensors
from sensorium.interop.saved import plain_name, read_model_config, tied_names
from sensorium.interop.text_half import fill_from_bert, has_bert
from sensorium.model.adapter import LORA_MARK, MAGNITUDE, has_lora, merge_all, reset_magnitudes
from sensorium.model.config import AdaptionPromptConfig, ModelConfig, PrefixConfig
from sensorium.model.learning import own_names, owner
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.positions import TABLES, refitted

WRITTEN = "written.weight"
LAST, TEXT = ".out", ".text"
"""A projector's last map, and what it reads words with, as parts of their own."""


@dataclass(frozen=True, slots=True)
class Started:
    """What came of a saved model."""

    names: set[str]
    """The model's tensors that now differ from what their sources provide."""
    new: list[str]
    """Parts of this model that the saved one does not have in this form."""
    stretched: list[str]
    """Tables of positions that were stretched: the saved model sees pictures of another size."""


def start_from(model: MultimodalModel, folder: Path) -> Started:
    """Copy the parts of a saved model that fit into a built one, whole parts only.

    The last map of a projector, `out`, counts as a part: before an LLM of another width it is new,
    and the Q-Former in front of it is taken all the same. So does its text half, which a BLIP-2's does not have;
    it begins as the BERT that the projector's `reader` names, where weights lie with its words. A low-rank adapter of another form, or one
    that this model has no adapter for, is merged into the LLM. Adaption prompts fit where this model
    has them in the same form. Encoders' tables of positions are stretched to the size of this model's
    pictures (bicubic). Where this model's LLM has the saved one's added words and more behind them, rows of those are its own; rows for writing go to the words that they are of. Generators that the saved model taught are taken where this one has the same.

    Args:
        model: built, with its adapter (`inject_adapter`).

    Raises:
        WeightsError: no part of the saved model fits, or its adaption prompts would be lost.
    """
    saved = read_model_config(folder)
    stored = _as_here(whole_tensors(folder), saved, model.config, tied_names(folder))
    state = model.state_dict()
    by_plain = {plain_name(name): name for name in state}
    _more_words(stored, {plain: state[name] for plain, name in by_plain.items()}, saved, model.config)
    _rows_of_words(stored, saved, model)
    adapter = {n: stored.pop(n) for n in list(stored) if LORA_MARK in n}
    resized = _refit_positions(stored, {plain: state[name] for plain, name in by_plain.items()})
    unfit = _lost_prompts(saved, model.config, folder)
    unfit |= _low_rank(adapter, stored, saved, model)
    unfit |= {_part(n) for n, v in stored.items()
              if n not in by_plain or state[by_plain[n]].shape != v.shape}  # fmt: skip
    here = set(stored) | set(tied_names(folder))
    # Biases that the saved model lacks begin at zero, and leave the LLM what it was.
    born = model.tuned if saved.tuning is None else frozenset[str]()
    unfit |= {_part(n) for n in own_names(model) - born if plain_name(n) not in here}
    taken = {by_plain[n]: v for n, v in stored.items() if unfit.isdisjoint({owner(n), _part(n)})}
    if adapter:
        targets = {by_plain[n.partition(".lora_")[0] + ".weight"] for n in adapter}
        # Onto the saved model's own weights, where it has some.
        merged = {plain_name(name): (taken if name in taken else state)[name].to(state[name].dtype)
                  for name in targets}  # fmt: skip
        merge_all(merged, adapter, saved, str(folder))
        taken |= {by_plain[n]: value for n, value in merged.items()}
    if not taken:
        raise WeightsError(
            "nothing of this model fits the recipe's",
            expected=f"one of the parts {', '.join(sorted({owner(n) for n in state}))}",
            where=str(folder),
            fix="start from a model with the same encoder, projector or LLM, or leave `start` out",
        )
    _copy(state, taken)
    check_generators(folder)
    model.generators.saved_in(folder / GENERATORS, saved)
    for prefix, lora in model.config.low_rank.items():
        if lora.dora and not any(n.startswith(prefix) and MAGNITUDE in n for n in taken):
            reset_magnitudes(model, prefix)
    filled: set[str] = set()
    for part in sorted(unfit):
        if part.endswith(TEXT) and _whole(part) not in unfit:
            filled |= _from_reader(model, part.removesuffix(TEXT), state)
    return Started(set(taken) | filled, _new(unfit - {_part(n) for n in filled}, state),
                   [n for n in resized if by_plain[n] in taken])  # fmt: skip


def _low_rank(
    adapter: dict[str, Tensor], stored: dict[str, Tensor], saved: ModelConfig, model: MultimodalModel
) -> set[str]:
    """Sort a saved model's low-rank matrices: what this one has a place for moves to `stored`, and what is
    to be merged is left in `adapter`.

    Returns:
        Parts that do not fit: adapters that were trained beside other weights, or what they stood in.
    """
    unfit: set[str] = set()
    for prefix, lora in saved.low_rank.items():
        mine = {name: adapter[name] for name in adapter if name.startswith(prefix)}
        if not mine:
            continue
        here = has_lora(model, prefix)
        if _beside(saved, prefix) != _beside(model.config, prefix):
            unfit.add(owner(min(mine)) if here else prefix.removesuffix("."))
        elif here and model.config.low_rank[prefix] == lora:
            stored |= mine
        else:
            continue
        for name in mine:
            del adapter[name]
    return unfit


def _beside(config: ModelConfig, prefix: str) -> Any:
    """The config of the weights that an adapter stands beside."""
    head, _, kind = prefix.removesuffix(".").partition(".")
    if head == "backbone":
        return config.backbone
    return config.lanes[kind].encoder if kind in config.lanes else None


def _from_reader(model: MultimodalModel, projector: str, state: dict[str, Tensor]) -> set[str]:
    """Fill a text half from its reader's weights, if it has some; the names of the tensors."""
    lane = model.config.lanes[projector.partition(".")[2]]
    folder = locate(getattr(lane.projector, "reader", ()))
    return fill_from_bert(state, projector, folder) if folder is not None and has_bert(folder) else set()


def _as_here(
    stored: dict[str, Tensor], saved: ModelConfig, mine: ModelConfig, tied: Mapping[str, str]
) -> dict[str, Tensor]:
    """A saved model's tensors by this one's names.

    Args:
        tied: further names of stored tensors.
    """
    stored = stored | {name: stored[first] for name, first in tied.items() if first in stored}
    if saved.backbone.kind != mine.backbone.kind:
        lent = {f"backbone.{theirs}": f"backbone.{ours}"
                for theirs, ours in saved.backbone.lends(mine.backbone).items()}  # fmt: skip
        stored = dict(_renamed(stored, lent))
    return stored


def _renamed(stored: Mapping[str, Tensor], lent: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a backbone by other prefixes; those without one are left out."""
    for name, value in stored.items():
        if not name.startswith("backbone."):
            yield name, value
            continue
        for theirs, ours in lent.items():
            if name.startswith(theirs):
                yield ours + name.removeprefix(theirs), value


def _refit_positions(stored: dict[str, Tensor], state: dict[str, Tensor]) -> list[str]:
    """Stretch the encoders' tables of positions to the size they have here; names of those changed."""
    changed: list[str] = []
    for name, value in stored.items():
        mine = state.get(name)
        if mine is None or not owner(name).startswith("encoders.") or not name.endswith(TABLES):
            continue
        if value.ndim == mine.ndim and value.shape[-2] != mine.shape[-2] and value.shape[-1] == mine.shape[-1]:
            fitting = refitted(value, mine.shape[-2])
            if fitting is not None:
                stored[name] = fitting
                changed.append(name)
    return changed


def _more_words(stored: dict[str, Tensor], state: Mapping[str, Tensor], saved: ModelConfig, mine: ModelConfig) -> None:
    """Put rows of the words that this model adds to the saved one's behind its tables of words."""
    before, now = saved.backbone, mine.backbone
    more = now.added_tokens[len(before.added_tokens) :]
    if not more or now.added_tokens != before.added_tokens + more or now.vocab_size != before.vocab_size + len(more):
        return
    for name, value in stored.items():
        here = state.get(name)
        if here is not None and here.ndim == 2 and owner(name) == "backbone" and (len(value), len(here)) == (before.vocab_size, now.vocab_size):
            stored[name] = torch.cat([value, here[len(value) :].to(value)])


def _rows_of_words(stored: dict[str, Tensor], saved: ModelConfig, model: MultimodalModel) -> None:
    """Put rows for writing where this model has their words; rows of words that the saved model has none for begin as nothing."""
    rows_JD = stored.get(WRITTEN)
    if rows_JD is None or model.written is None:
        return
    of = {token % saved.backbone.vocab_size: row_D for token, row_D in zip(saved.written, rows_JD, strict=True)}
    if of.keys().isdisjoint(model.written.tokens):
        del stored[WRITTEN]
    else:
        stored[WRITTEN] = torch.stack([of.get(token, torch.zeros_like(rows_JD[0])) for token in model.written.tokens])


def _part(name: str) -> str:
    """The part of a tensor, a projector's last map and its text half told apart."""
    part = owner(name)
    if not part.startswith("projectors."):
        return part
    rest = name.removeprefix(f"{part}.").split(".")
    if rest[0] == "out":
        return part + LAST
    return part + TEXT if rest[0] in ("words", "places") or "text" in rest else part


def _whole(part: str) -> str:
    return part.removesuffix(LAST).removesuffix(TEXT)


def _new(unfit: set[str], names: Iterable[str]) -> list[str]:
    """The parts of a model that stay new; a part of a projector only where the rest is taken."""
    new = {p for p in map(_part, names) if not unfit.isdisjoint({p, _whole(p)})}
    return sorted(p for p in new if _whole(p) not in new - {p})


def _lost_prompts(saved: ModelConfig, mine: ModelConfig, folder: Path) -> set[str]:
    """`adapter` where the saved model's prompts were trained inside another LLM.

    Raises:
        WeightsError: it is the same LLM, and this model has no place for them.
    """
    if saved.tuning is not None and saved.backbone == mine.backbone and saved.tuning != mine.tuning:
        raise WeightsError(
            "the saved model's biases and norms have no place in this one",
            expected=f"model.adapter={(saved.adapter or saved.tuning).to_dict()}",
            where=str(folder),
            fix="give the recipe the same adapter, or leave `start` out",
        )
    if not isinstance(saved.adapter, AdaptionPromptConfig | PrefixConfig):
        return set()
    if saved.backbone != mine.backbone:
        return {"adapter"}
    is_prompts = isinstance(saved.adapter, AdaptionPromptConfig)
    if saved.adapter != mine.adapter:
        raise WeightsError(
            f"the saved model's {'adaption prompts have' if is_prompts else 'prefix has'} no place in this one, "
            "and cannot be merged",
            expected=f"model.adapter={saved.adapter.to_dict()}",
            where=str(folder),
            fix="give the recipe the same adapter, or leave `start` out",
        )
    return set()


def _copy(state: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            state[name].copy_(value)
