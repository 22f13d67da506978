"""Before step one: build every stage's data and objective, run one real batch, and say
what will happen, or why it cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError, DataError, SensoriumError
from sensorium.data.config import open_sources
from sensorium.data.loader import LoadedBatch, Loader, LoaderOptions
from sensorium.data.mixture import MixtureOrder
from sensorium.data.source import Source
from sensorium.model.check import check_quantised_run, is_quantised
from sensorium.model.compiled import ready_to_compile, why_not_recorded
from sensorium.model.device import to_device
from sensorium.model.dropping import check_dropping
from sensorium.model.half_frozen import frozen_layers, half_frozen
from sensorium.model.laid_out import layout_bytes
from sensorium.model.learning import Learn, count_parameters, own_names, set_learning
from sensorium.model.multimodal import MultimodalModel
from sensorium.model.picture_size import pictures_of
from sensorium.model.recompute import can_recompute
from sensorium.processing.answers import encode_rows
from sensorium.processing.processor import Processor
from sensorium.training.config import Recipe, StageConfig
from sensorium.training.disk import bytes_of
from sensorium.training.distributed.held import WHOLE, Held
from sensorium.training.feature_use import describe_keeping
from sensorium.training.fitting import Fit, Need, choose_fit
from sensorium.training.media_in_data import check_media
from sensorium.training.memory import Memory, SavedTensors, activation_bytes, memory_of, state_bytes
from sensorium.training.objectives.counting import PerSample
from sensorium.training.objectives.owned import PREFIX, beside, own_seed
from sensorium.training.optimiser import group_parameters
from sensorium.training.plan import StagePlan
from sensorium.training.precision import Chosen, autocast, stage_precision

# An estimate is not a measurement: only what is beyond hope is refused.
HOPELESS = 2
# Rows of each source whose lengths tell how many samples a batch holds, and how full that is.
MEASURED, FILL = 64, 0.98


@dataclass(slots=True)
class StageParts:
    """A stage made ready: its data, order, processor and objective."""

    sources: list[Source]
    order: MixtureOrder
    processor: Processor
    objective: Any
    steps: int
    fit: Fit | None = None
    """How each batch goes through the model; known when the stage has been probed."""
    saved: set[str] = field(default_factory=set)
    """Names of the model's tensors that checkpoints hold when the stage begins, about: where a run starts from a trained model, all."""


def prepare_stage(stage: StageConfig, model: MultimodalModel, processor: Processor) -> StageParts:
    """Open the data and build the objective.

    Raises:
        ConfigError: a stage that cannot work; the message says why.
        DataError: data that is missing or malformed.
    """
    longest, limit = model.config.backbone.max_positions, model.config.longest_row
    if stage.max_length > limit:
        raise ConfigError(
            f"max_length {stage.max_length}", expected=f"at most {limit}, the LLM's positions" + " without the prefix's" * (limit < longest)
        )
    if is_quantised(model.config):
        check_quantised_run(model.device, [learn.part for learn in stage.learns])
    if any(s.loss_weight != 1 for s in stage.data) and not stage.objective.weighs_tokens:
        raise ConfigError(f"loss_weight of a source with objective {stage.objective.kind!r}",
                          expected="an objective whose loss is a sum over tokens: caption, instruct",
                          where=f"stages.{stage.name}.data", fix="leave loss_weight out")  # fmt: skip
    if stage.loss_per != "token" and not stage.objective.weighs_tokens:
        raise ConfigError(f"loss_per: {stage.loss_per} with objective {stage.objective.kind!r}",
                          expected="an objective whose loss is a sum over tokens: caption, instruct",
                          where=f"stages.{stage.name}.loss_per", fix="leave loss_per out")  # fmt: skip
    sources, weights = open_sources(stage.data)
    order = MixtureOrder([len(s) for s in sources], weights, stage.seed)
    template = stage.objective.template
    if stage.picture_px is not None:
        # The model's config is this stage's already (`pictures_of`).
        processor = Processor(model.config, processor.tokenizer, limits=processor.limits)
    mine = processor.with_template(template)
    if model.config.backbone.one_answer:
        if stage.pack:
            raise ConfigError("packed rows for an encoder-decoder", expected="one sample a row",
                              where=f"stages.{stage.name}.pack",
                              fix="pack: false, with a token_budget that fills batches with samples of like length")  # fmt: skip
        mine.splits_answers = True
    mine.weighs_answers = stage.objective.weighs_tokens
    with own_seed(stage.seed):
        objective = stage.objective.build(model, mine, sources)
    if stage.loss_per != "token":
        objective = PerSample(objective)
    samples = sum(len(s) for s in sources)
    steps = stage.steps
    if steps is None:
        per_step = _samples_a_batch(stage, sources, mine) * stage.accumulate
        steps = max(1, round((stage.epochs or 0) * samples / per_step))
    return StageParts(sources, order, mine, objective, steps)


def _samples_a_batch(stage: StageConfig, sources: list[Source], processor: Processor) -> float:
    """How many samples a batch holds, judged by the lengths of some of each source."""
    if not stage.pack and stage.token_budget is None:
        return stage.batch_size
    lengths: list[float] = []
    for source in sources:
        found: list[int] = []
        for i in range(0, len(source), max(1, len(source) // MEASURED)):
            try:
                found.append(sum(len(e) for e in encode_rows(
                    processor, source[i], max_length=stage.max_length, decode=False)))  # fmt: skip
            except DataError:
                continue  # Named, or skipped and listed, when training comes to this row.
        lengths += [sum(found) / len(found)] * len(source) if found else []
    if not lengths:
        return stage.batch_size
    room = stage.token_budget or stage.batch_size * stage.max_length
    return max(1.0, room / (sum(lengths) / len(lengths)) * FILL)


def loader_options(stage: StageConfig) -> LoaderOptions:
    """The loader's share of a stage's config."""
    return LoaderOptions(
        batch_size=stage.batch_size,
        max_length=stage.max_length,
        pack=stage.pack,
        max_pictures_per_row=stage.max_pictures_per_row,
        token_budget=stage.token_budget,
        loss_per=stage.loss_per,
        workers=stage.workers,
        seed=stage.seed,
        augment=tuple(source.augment for source in stage.data),
        loss_weights=tuple(source.loss_weight for source in stage.data),
        skip_bad=stage.on_bad_row == "skip",
        unsteered=stage.objective.prompts_left_out,
    )


def probe_stage(
    stage: StageConfig, parts: StageParts, model: MultimodalModel, chosen: Chosen, processes: int = 1,
    held: Held = WHOLE,
) -> StagePlan:  # fmt: skip
    """Run one real batch, or the first process's share of it, forward and describe the stage.

    Raises:
        ConfigError: nothing would learn, nothing is there to be learnt, or memory is far too
            small.
        AlignmentError: placeholders and features disagree.
    """
    groups = set_learning(model, stage.learns)
    learning = sum(held.size(p) for _, pairs in groups for _, p in pairs)
    if learning == 0:
        raise ConfigError("no parameter learns")
    if stage.dropout:
        check_dropping(model, stage.learns)
    loaded = _first_batch(stage, parts, processes)
    batch = to_device(loaded.batch, model.device)
    if stage.objective.runs_llm and not bool(batch.learn_BT.any()):
        raise ConfigError(
            "no token of the first batch is learned",
            expected="assistant messages in the data",
        )
    check_media(stage, parts.sources, batch)
    model.eval()
    halves = frozen_layers(model, parts.saved) if chosen.precision == "bf16" and not held.divided else []
    with half_frozen(halves):
        try:
            with SavedTensors(model) as saved, autocast(chosen.precision, model.device):
                losses = parts.objective(model, batch)
        except SensoriumError as error:
            raise error.at("first batch") from None
        state = state_bytes(model, learning, moments=0 if stage.optimiser == "adafactor" else 2)
    held.rest()
    loss = float(losses.total.detach()) / max(1, losses.count)
    memory = memory_of(model.device)
    fit = _fit(stage, model, batch, state + held.beside, activation_bytes(saved, model.device), memory)
    if chosen.precision == "fp32" and not held.divided:
        total = None if memory is None else memory.total
        fit = fit.with_copies(layout_bytes(model, total), total)
    return StagePlan(
        name=stage.name,
        number_format=chosen,
        steps=parts.steps,
        rows=sum(len(s) for s in parts.sources),
        parts=count_parameters(model),
        tokens=int((batch.segments_BT > 0).sum()),
        samples=loaded.samples,
        fit=fit,
        available_mb=_available_mb(model, fit.needed, memory),
        loss=loss,
        rates=_layer_rates(stage, groups),
        groups=group_parameters(groups),
        halved=sum(layer.weight.numel() for layer in halves),
        compiled=ready_to_compile(model) if stage.compile else 0,
        keeping=describe_keeping(stage, model),
        not_recorded=why_not_recorded(model, recompute=fit.recompute, processes=processes) if stage.record else None,
    )


def _first_batch(stage: StageConfig, parts: StageParts, processes: int) -> LoadedBatch:
    loader = Loader(parts.sources, parts.order, parts.processor, replace(loader_options(stage), world_size=processes))
    stream = loader.batches(parts.order.start())
    loaded = next(stream)
    while not loaded.samples:  # All of its rows were bad, which training will say.
        loaded = next(stream)
    stream.close()  # pyright: ignore[reportAttributeAccessIssue]
    return loaded


def _fit(
    stage: StageConfig, model: MultimodalModel, batch: Batch, state: int, activations: int, memory: Memory | None
) -> Fit:
    """How the stage's batches go through the model, judged by one of them."""
    layers, rows = model.config.backbone.num_layers, len(batch.input_ids_BT)
    inputs = layers * batch.input_ids_BT.numel() * model.config.backbone.d_model * 4
    return choose_fit(
        Need(state, activations, layers, inputs), rows, None if memory is None else memory.total,
        asked=stage.recompute, can_split=stage.objective.sums_over_rows, can_recompute=can_recompute(model),
    )  # fmt: skip


def _layer_rates(stage: StageConfig, groups: list[tuple[Learn, Any]]) -> list[tuple[str, list[float]]]:
    falling = [learn.part for learn in stage.learns if learn.layer_decay is not None]
    return [(part, [one.lr for one, _ in groups if one.part == part and one.layer_decay is not None])
            for part in dict.fromkeys(falling)]  # fmt: skip


def check_stages(
    recipe: Recipe,
    model: MultimodalModel,
    processor: Processor,
    on_plan: Callable[[StagePlan], None] | None = None,
    fast: Chosen | None = None,
    processes: int = 1,
    held: Held = WHOLE,
) -> tuple[list[StagePlan], list[StageParts]]:
    """Prepare and probe every stage, in order, before any of them trains.

    Args:
        fast: the number format that is fast here; None: it is measured.
        processes: how many share the rows of a batch; all of them probe the first one's share, and so decide alike.
        held: what this process holds of the model.

    Raises:
        SensoriumError: for whatever would make a stage fail.
    """
    plans: list[StagePlan] = []
    ready: list[StageParts] = []
    saved = set(model.state_dict()) if recipe.start else own_names(model)
    for stage in recipe.stages:
        try:
            chosen = stage_precision(stage, fast, model.device)
            _check_divisible(stage, processes)
            with pictures_of(model, stage.picture_px):
                parts = prepare_stage(stage, model, processor)
                parts.saved = set(saved)
                with beside(model, parts.objective):
                    plans.append(probe_stage(stage, parts, model, chosen, processes, held))
        except SensoriumError as error:
            raise error.at(f"stage {stage.name}") from None
        parts.fit = plans[-1].fit
        saved |= {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        ready.append(parts)
        if on_plan is not None:
            on_plan(plans[-1])
    return plans, ready


def largest_checkpoint(recipe: Recipe, model: MultimodalModel, ready: list[StageParts], kept: Collection[str]) -> int:
    """Bytes of the largest checkpoint that the stages will write.

    Args:
        kept: names of the tensors that are saved whatever learns.
    """
    names, largest = set(kept), 0
    for stage, parts in zip(recipe.stages, ready, strict=True):
        with beside(model, parts.objective):
            learning = {n: p for _, pairs in set_learning(model, stage.learns) for n, p in pairs}
            names |= set(learning)
            held = [v for n, v in model.state_dict().items() if n in names or n.startswith(PREFIX)]
            moments = 0 if stage.optimiser == "adafactor" else 2
            largest = max(largest, bytes_of(held) + moments * bytes_of(learning.values()))
    return largest


def _check_divisible(stage: StageConfig, processes: int) -> None:
    """A loss over pairs of rows is another one where each process sees some rows alone."""
    if processes > 1 and not stage.objective.sums_over_rows:
        raise ConfigError(f"objective {stage.objective.kind!r} on {processes} processes",
                          expected="an objective that takes each row alone: caption, instruct",
                          fix="train this recipe on one process")  # fmt: skip


def _available_mb(model: MultimodalModel, needed: int, memory: Memory | None) -> int | None:
    """What this program may have in all, its weights included.

    Raises:
        ConfigError: the stage needs far more than there is.
    """
    if memory is None:
        return None
    if needed > HOPELESS * memory.total:
        raise ConfigError(
            f"a step needs about {needed / 2**20:,.0f} MB of memory",
            expected=f"not far more than {memory.total / 2**20:,.0f} MB, all of {model.device.type}'s",
            fix="lower batch_size or max_length, or let fewer parts learn",
        )
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return round((memory.free + weights) / 2**20)
