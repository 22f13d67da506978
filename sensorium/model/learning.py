"""What learns: turn named parts on, everything else off, and count both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field
from torch import nn
from torch.nn import Parameter

from sensorium.backbones.llama_steps import PROMPT_NAME
from sensorium.backbones.prefix import PREFIX_NAME
from sensorium.backbones.quantised import whole_size
from sensorium.core.config import Config
from sensorium.core.errors import ConfigError
from sensorium.core.naming import did_you_mean, of_detail
from sensorium.core.patterns import fitting
from sensorium.model.adapter import LORA_MARK
from sensorium.model.config import BiasNormConfig
from sensorium.model.layer_rates import by_layer
from sensorium.model.learning_rows import learning_size, set_rows
from sensorium.model.multimodal import MultimodalModel

PROMPT_MARK = f".{PROMPT_NAME}."
OBJECTIVE = "objective"
"""The part that a stage's objective adds to the model while the stage runs."""
TUNING = "tuning"
"""Biases and norms of the LLM that learn beside adaption prompts."""


class Learn(Config):
    """One part that learns in a stage, with its own learning rate."""

    part: str
    """`encoders.image`, `adapters.image` (the encoder's), `projectors.image`, `lookups.image`,
    `places.image`, `newlines.image`, `fusion`, `backbone`, `hands.image`, `code_tables`, `written`, `adapter` (the LLM's), `tuning`;
    `objective` for what the stage's objective owns."""
    lr: float
    weight_decay: float = 0.0
    last_blocks: int | None = None
    """Only the last blocks of the part (encoders and backbones)."""
    module: str | None = None
    """Only the module of this name in the part: a Q-Former's `out`, a tower's final norm."""
    layers: tuple[str, ...] = ()
    """Only parameters whose names fit one of these patterns (`core/patterns.py`): `layers.[4-7]`, `*norm*`;
    several entries may divide a part among them."""
    freeze: tuple[str, ...] = ()
    """Of those chosen so far, not the ones that fit one of these patterns."""
    rows: tuple[int, ...] = ()
    """Only these rows of the module's matrix, counted from its end where negative: the embeddings of
    added tokens."""
    layer_decay: float | None = Field(default=None, gt=0.0, le=1.0)
    """The rate falls by this factor from block to block towards the input (`model/layer_rates.py`);
    None: one rate for all."""

    @property
    def which(self) -> str:
        """In words, what of the part learns."""
        chosen = [f"last {self.last_blocks} blocks" if self.last_blocks else "", self.module or "",
                  ", ".join(self.layers)]  # fmt: skip
        without = f"without {', '.join(self.freeze)}" if self.freeze else ""
        rows = f"rows {', '.join(map(str, self.rows))}" if self.rows else ""
        return "; ".join(text for text in (*chosen, without, rows) if text) or "all"


def part_names(model: MultimodalModel) -> list[str]:
    """Every part of this model that could learn."""
    names = [f"encoders.{kind}" for kind in model.encoders]
    names += [f"projectors.{kind}" for kind in model.projectors]
    names += [f"lookups.{kind}" for kind, m in model.lookups.items() if any(True for _ in m.parameters())]
    names += [f"places.{kind}" for kind in model.places]
    names += [f"newlines.{kind}" for kind in model.newlines]
    if any(True for _ in model.fusion.parameters()):
        names.append("fusion")
    names.append("backbone")
    names += [f"hands.{kind}" for kind in model.hands]
    # Codes have no gradient, so that a picture tokenizer could not learn beside the LLM.
    names += [name for name in ("code_tables", "written") if getattr(model, name) is not None]
    names += [f"adapters.{kind}" for kind, lane in model.config.lanes.items() if lane.adapter]
    if model.config.adapter is not None:
        names.append("adapter")
    if model.tuned and tuning_part(model) == TUNING:
        names.append(TUNING)
    if hasattr(model, OBJECTIVE):
        names.append(OBJECTIVE)
    return names


def named_part(model: MultimodalModel, part: str) -> Iterator[tuple[str, Parameter]]:
    """The (name, parameter) pairs that belong to a part.

    Raises:
        ConfigError: the model has no such part.
    """
    if part not in part_names(model):
        raise ConfigError(f"no part {part!r} to train", fix=did_you_mean(part, part_names(model)))
    for name, parameter in model.named_parameters():
        if owner_in(model, name) == part:
            yield name, parameter


def owner_in(model: MultimodalModel, name: str) -> str:
    """The part of a parameter; biases and norms that learn by themselves are none of the LLM's."""
    return tuning_part(model) if name in model.tuned else owner(name)


def tuning_part(model: MultimodalModel) -> str:
    """What `learns` calls biases and norms: the adapter, or beside prompts a part of their own."""
    return "adapter" if isinstance(model.config.adapter, BiasNormConfig) else TUNING


def owner(name: str) -> str:
    head, _, rest = name.partition(".")
    if head == "encoders" and LORA_MARK in name:
        return f"adapters.{rest.partition('.')[0]}"
    if head in ("encoders", "projectors", "lookups", "places", "newlines", "hands"):
        return f"{head}.{rest.partition('.')[0]}"
    if head == "backbone" and (LORA_MARK in name or PROMPT_MARK in name or rest.startswith(PREFIX_NAME)):
        return "adapter"
    return head


def set_learning(
    model: MultimodalModel, learns: tuple[Learn, ...]
) -> list[tuple[Learn, list[tuple[str, Parameter]]]]:
    """Freeze everything, then let the named parts learn.

    Returns:
        The (name, parameter) pairs of each entry, in model order; an entry with `layer_decay` comes
        once for each of its rates.

    Raises:
        ConfigError: a part is unknown, a parameter named twice, a part has too few blocks or not that module,
            or a pattern fits nothing.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        set_rows(parameter, None)
    groups: list[tuple[Learn, list[tuple[str, Parameter]]]] = []
    for learn in learns:
        pairs = _chosen(model, learn)
        for name, parameter in pairs:
            if parameter.requires_grad:
                raise ConfigError(f"parameter {name} is named by two entries of 'learns'",
                                  fix="divide the part by `layers` and `freeze`, so that each has its own")  # fmt: skip
            parameter.requires_grad_(True)
            if learn.rows:
                _only_rows(name, parameter, learn)
        if learn.layer_decay is None:
            groups.append((learn, pairs))
        else:
            part = model.get_submodule(learn.part)
            groups += by_layer(learn, pairs, part, _all_blocks(model, learn, "layer_decay"))
    return groups


def _chosen(model: MultimodalModel, learn: Learn) -> list[tuple[str, Parameter]]:
    """What an entry of `learns` names, in model order."""
    pairs = list(named_part(model, learn.part))
    if learn.last_blocks is not None:
        allowed = _last_blocks(model, learn)
        pairs = [(name, p) for name, p in pairs if id(p) in allowed]
    if learn.module is not None:
        mine = {id(p) for p in _module(model, learn).parameters()}
        pairs = [(name, p) for name, p in pairs if id(p) in mine]
    pairs = [(name, p) for name, p in pairs if p.is_floating_point()]
    where = f"learns: {learn.part}"
    if learn.layers:
        kept = fitting(learn.layers, [name for name, _ in pairs], f"{where}: layers")
        pairs = [(name, p) for name, p in pairs if name in kept]
    frozen = fitting(learn.freeze, [name for name, _ in pairs], f"{where}: freeze")
    return [(name, p) for name, p in pairs if name not in frozen]


def _only_rows(name: str, parameter: Parameter, learn: Learn) -> None:
    """Let some rows of a matrix learn.

    Raises:
        ConfigError: it is no matrix, has no such row, or would decay as a whole.
    """
    if parameter.ndim != 2 or not all(-len(parameter) <= row < len(parameter) for row in learn.rows):
        raise ConfigError(
            f"rows {list(learn.rows)} of {name}, whose shape is {list(parameter.shape)}",
            expected="rows of a matrix",
            fix="name its module: the embedding of a backbone, for example",
        )
    if learn.weight_decay:
        raise ConfigError(f"weight decay on some rows of {name}", expected="weight_decay: 0",
                          fix="decay would shrink the other rows, too")  # fmt: skip
    set_rows(parameter, learn.rows)


def learning_modules(model: MultimodalModel, learn: Learn) -> list[nn.Module]:
    """The modules that an entry of `learns` is about: a part, its last blocks, or the
    adapter's own layers; with patterns, those of its blocks that hold something chosen."""
    modules = _modules(model, learn)
    if not learn.layers and not learn.freeze:
        return modules
    chosen = {id(p) for _, p in _chosen(model, learn)}
    held = lambda module: any(id(p) in chosen for p in module.parameters())  # noqa: E731
    blocks = [block for module in modules for block in getattr(module, "trainable_blocks", list)()]
    outside = {id(p) for block in blocks for p in block.parameters()}
    if blocks and chosen <= outside:
        modules = blocks
    return [module for module in modules if held(module)]


def _modules(model: MultimodalModel, learn: Learn) -> list[nn.Module]:
    if learn.part == "adapter":
        return [m for n, m in model.named_modules() if n.startswith("backbone.") and _of_adapter(n, m)]
    if learn.part.startswith("adapters."):
        inside = f"encoders.{learn.part.partition('.')[2]}."
        return [m for n, m in model.named_modules() if n.startswith(inside) and _of_adapter(n, m)]
    if learn.last_blocks is not None:
        return _blocks(model, learn)
    if learn.module is not None:
        return [_module(model, learn)]
    return [m for n, m in model.named_modules() if n == learn.part]


def _of_adapter(name: str, module: nn.Module) -> bool:
    """A layer with low-rank matrices, as a whole, because it asks itself whether its dropout acts; prompts; a prefix."""
    return hasattr(module, "lora_A") or name.rpartition(".")[2] in (PROMPT_NAME, PREFIX_NAME)


def _module(model: MultimodalModel, learn: Learn) -> nn.Module:
    """The one module of a part that an entry of `learns` names.

    Raises:
        ConfigError: the part has no such module, or its last blocks are named too.
    """
    if learn.last_blocks is not None:
        raise ConfigError(f"part {learn.part!r} with both last_blocks and module")
    known = {n: m for n, m in model.get_submodule(learn.part).named_modules() if n}
    if learn.module not in known:
        raise ConfigError(
            f"no module {learn.module!r} in {learn.part!r}",
            fix=did_you_mean(str(learn.module), known),
        )
    return known[str(learn.module)]


def _last_blocks(model: MultimodalModel, learn: Learn) -> set[int]:
    return {id(p) for block in _blocks(model, learn) for p in block.parameters()}


def _blocks(model: MultimodalModel, learn: Learn) -> list[nn.Module]:
    """The last blocks of a part.

    Raises:
        ConfigError: the part has no blocks, or fewer.
    """
    blocks = _all_blocks(model, learn, "last_blocks")
    wanted = learn.last_blocks or 0
    if not 0 < wanted <= len(blocks):
        raise ConfigError(
            f"last_blocks: {wanted} of {learn.part!r}", expected=f"1 to {len(blocks)}"
        )
    return blocks[-wanted:]


def _all_blocks(model: MultimodalModel, learn: Learn, option: str) -> list[nn.Module]:
    """All blocks of a part, which an option of `learns` asks for.

    Raises:
        ConfigError: the part has none.
    """
    get_blocks = None
    if learn.part not in ("adapter", TUNING, OBJECTIVE) and not learn.part.startswith("adapters."):
        get_blocks = getattr(model.get_submodule(learn.part), "trainable_blocks", None)
    if get_blocks is None:
        raise ConfigError(f"part {learn.part!r} has no blocks", fix=f"leave out {option}")
    return get_blocks()


def count_parameters(model: MultimodalModel) -> list[tuple[str, int, int]]:
    """(part, all parameters, learning parameters), in model order."""
    counts: dict[str, tuple[int, int]] = {}
    for name, parameter in model.named_parameters():
        part = owner_in(model, name)
        total, learning = counts.get(part, (0, 0))
        size = whole_size(parameter)
        moving = learning_size(parameter)
        counts[part] = (total + size, learning + moving)
    return [(part, total, learning) for part, (total, learning) in counts.items()]


def own_names(model: MultimodalModel) -> set[str]:
    """Names of tensors that no source of weights provides."""
    sourced = [p for k, lane in model.config.lanes.items()
               for p in _sourced(f"encoders.{k}.", lane.encoder)]  # fmt: skip
    sourced += [f"encoders.{of_detail(k)}." for k, lane in model.config.lanes.items()
                if lane.detail and lane.detail.weights]  # fmt: skip
    if model.config.backbone.weights:
        sourced.append("backbone.")
    if model.config.picture_words and model.config.picture_words.tokenizer.weights:
        sourced.append("picture_tokenizer.")
    own = _vocabulary(model) if model.config.backbone.added_tokens else set[str]()
    names = set(model.state_dict())
    return {n for n in names
            if n in own or n in model.tuned or owner(n).startswith("adapter") or not n.startswith(tuple(sourced))}  # fmt: skip


def _vocabulary(model: MultimodalModel) -> set[str]:
    """Names of the backbone's matrices with a row for each token, which no source has as a whole."""
    rows = model.config.backbone.vocab_size
    return {n for n, p in model.named_parameters(remove_duplicate=False)
            if n.startswith("backbone.") and p.ndim == 2 and len(p) == rows}  # fmt: skip


def _sourced(prefix: str, encoder: Any) -> list[str]:
    """Prefixes of tensors that a source provides; two fused towers have one each."""
    sides: dict[str, Any] = {side: getattr(encoder, side, None) for side in ("first", "second")}
    if None not in sides.values():
        return [f"{prefix}{side}." for side, tower in sides.items() if tower.weights]
    return [prefix] if encoder.weights else []
