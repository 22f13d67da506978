"""The training loader: planned picks -> Examples -> Batches, ahead of the model.

Threads measure and decode in parallel; the plan (`data/window.py`) does not depend on how many there
are. Every rank makes the whole plan and decodes its own share of the rows of each batch. A row
that turns out bad when it is decoded leaves a gap, so that the plan stays the same for all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from sensorium.core.batch import Batch, Example
from sensorium.core.errors import DataError, SensoriumError
from sensorium.core.hashing import stable_int
from sensorium.core.sample import Sample
from sensorium.data.augmenting import AugmentConfig
from sensorium.data.inline import Submit, helpers
from sensorium.data.mixture import MixtureOrder, MixtureState, Pick
from sensorium.data.plan import Size
from sensorium.data.source import Source, place_of, read_row
from sensorium.data.window import Coming, Planned, PlanOptions, Windows
from sensorium.media.augment import Augmentation
from sensorium.processing.answers import encode_rows
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.processing.unsteered import Unsteered

SIZES_KEPT = 1 << 18
"""Rows whose lengths are remembered from one epoch to the next, some 50 MB."""


def make_example(
    processor: Processor,
    sample: Sample,
    where: str,
    *,
    max_length: int | None = None,
    augmentation: Augmentation | None = None,
) -> Example:
    """The Example of a row's Sample, as training and `data check` make it.

    Raises:
        DataError: the row cannot be used; the message begins with `where`.
        ConfigError: no row like this one can be used.
    """
    try:
        return processor.encode(sample, max_length=max_length, augmentation=augmentation)
    except SensoriumError as error:
        raise error.at(where) from None


@dataclass(frozen=True, slots=True)
class LoaderOptions:
    """How batches are made."""

    batch_size: int
    """Samples a batch where rows are not packed, rows where they are; of all ranks together."""
    max_length: int
    pack: bool = False
    max_pictures_per_row: int | None = None
    token_budget: int | None = None
    """Rows times the longest of them: what a batch may have at most, in place of `batch_size`."""
    loss_per: Literal["token", "sample", "question"] = "token"
    workers: int = 2
    """Threads; 0: the calling thread."""
    seed: int = 0
    augment: Sequence[AugmentConfig | None] = ()
    """Per source: how pictures are augmented."""
    loss_weights: Sequence[float] = ()
    """Per source: what its tokens' losses are multiplied by; none: 1 for all."""
    skip_bad: bool = False
    """Report a bad row and go on instead of stopping."""
    unsteered: float = 0.0
    """Share of rows answered with one picture, written as tokens, that stand behind a prompt which guidance leads away from."""
    rank: int = 0
    world_size: int = 1
    """The rows of a batch are dealt out to so many ranks; this is one of them."""
    turn: int = 0
    turns: int = 1
    """Of so many batches in a row only one is made, the one of this number; others make the rest."""


@dataclass(slots=True)
class LoadedBatch:
    """A batch and the state to resume after it.

    Where a rank's share of the rows is empty, or all of them are bad, the batch is a row of padding
    from which nothing is learned, and `samples` is 0: every rank makes as many batches.
    """

    batch: Batch
    state: MixtureState
    samples: int
    problems: list[str]
    picks: list[int] = field(default_factory=list[int])
    """Numbers of the picks in it."""


class Loader:
    """An endless stream of batches from a mixture."""

    def __init__(
        self,
        sources: Sequence[Source],
        order: MixtureOrder,
        processor: Processor,
        options: LoaderOptions,
        transform: Callable[[Example, Pick], Example] | None = None,
    ) -> None:
        self.sources = sources
        self.order = order
        self.processor = processor
        self.options = options
        self.transform = transform
        self._unsteered = Unsteered(processor) if options.unsteered else None
        self._sizes: dict[tuple[int, int], Size] = {}

    def examples(self, pick: Pick) -> list[Example]:
        """What one pick becomes: one Example, or one for each answer.

        Raises:
            DataError: the row cannot be used.
        """
        made = self._encode(pick, decode=True)
        options = self.options
        weight = options.loss_weights[pick.source] if options.loss_weights else 1.0
        if options.loss_per == "sample":
            made = per_sample(made, weight)
        elif weight != 1:
            made = [replace(e, loss_weight=e.loss_weight * weight) for e in made]
        if options.loss_per == "question":
            made = [replace(e, loss_count=1 / len(made)) for e in made]
        if self.transform is None:
            return made
        try:
            return [self.transform(e, pick) for e in made]
        except SensoriumError as error:
            source = self.sources[pick.source]
            raise error.at(place_of(source, pick.row)) from None

    def size(self, pick: Pick) -> Size:
        """What a pick takes, without decoding.

        Raises:
            DataError: the row cannot be used.
        """
        known = self._sizes.get((pick.source, pick.row))
        if known is not None:
            return known
        made = self._encode(pick, decode=False)
        pictures = max(sum(len(m.plans) for m in e.media.values()) for e in made)
        size = Size(tuple(len(e) for e in made), pictures)
        # A row is as long in every epoch, unless its pictures change or prompts are left out.
        still = self._unsteered is None and not (self.options.augment and self.options.augment[pick.source])
        if still and len(self._sizes) < SIZES_KEPT:
            self._sizes[pick.source, pick.row] = size
        return size

    def _encode(self, pick: Pick, *, decode: bool) -> list[Example]:
        source = self.sources[pick.source]
        config = self.options.augment[pick.source] if self.options.augment else None
        augmentation = None if config is None else config.of(self.options.seed, pick)
        sample, length = read_row(source, pick.row), self.options.max_length
        try:
            alone = self._without_prompt(sample, pick, augmentation, decode=decode)
            if alone is not None:
                return [alone]
            return encode_rows(self.processor, sample, max_length=length, augmentation=augmentation, decode=decode)
        except SensoriumError as error:
            raise error.at(place_of(source, pick.row)) from None

    def _without_prompt(self, sample: Sample, pick: Pick, augmentation: Augmentation | None, *, decode: bool) -> Example | None:
        """The row behind a prompt that does not say what is drawn, if its turn to be so has come: the seed and the pick decide."""
        if self._unsteered is None:
            return None
        chance, share = stable_int("unsteered", self.options.seed, pick.number) / 2**63, self.options.unsteered
        if chance >= share:
            return None
        # Where a prompt's pictures are led away from, too, half of these rows keep them.
        return self._unsteered.row(sample, pictures=chance < share / 2, max_length=self.options.max_length,
                                   augmentation=augmentation, decode=decode)  # fmt: skip

    def batches(self, state: MixtureState) -> Generator[LoadedBatch]:
        """Batches from `state` on; `state` itself is not changed.

        Close the stream when it is done with: it ends threads, for which the garbage collector
        is the wrong place.

        Raises:
            DataError: a row cannot be used and `skip_bad` is off.
        """
        options, bad_in_row = self.options, 0
        with helpers(options.workers) as submit:
            for planned, coming in self._decoding(state, submit):
                # What planning found, every rank found: the first one tells.
                problems = list(planned.problems) if options.rank == 0 else []
                picks = list[int]()
                rows: list[list[Example]] = []
                for row in coming:
                    examples: list[Example] = []
                    for pick, one in row:
                        try:
                            made = one.result()
                        except DataError as error:
                            if not options.skip_bad:
                                raise
                            problems.append(str(error))
                            bad_in_row += 1
                            if bad_in_row > sum(self.order.lengths):
                                raise DataError(
                                    f"every row of the mixture is bad; the last: {error}"
                                ) from None
                            continue
                        bad_in_row = 0
                        picks.append(pick.number)
                        examples += made
                    rows += [examples] if options.pack else [[e] for e in examples]
                rows = [row for row in rows if row] or [[self.nothing()]]
                batch = collate(rows, self.processor.tokenizer.pad_id)
                yield LoadedBatch(batch, planned.state, len(picks), problems, picks)

    def _decoding(
        self, state: MixtureState, submit: Submit
    ) -> Generator[tuple[Planned, list[list[tuple[Pick, Coming[list[Example]]]]]]]:
        """Planned batches whose rows are being decoded, this rank's alone; one more is under way."""
        options = self.options
        plan = PlanOptions(
            options.batch_size, options.max_length, options.pack, options.max_pictures_per_row,
            options.token_budget, options.seed, options.skip_bad,
        )  # fmt: skip
        windows = Windows(self.order, plan, lambda pick: submit(self.size, pick))
        waiting: deque[tuple[Planned, list[list[tuple[Pick, Coming[list[Example]]]]]]] = deque()
        stop: DataError | None = None
        stream, number = windows.batches(state), -1
        while stop is None or waiting:
            while stop is None and len(waiting) < (2 if options.workers else 1):
                try:
                    planned = next(stream)
                except DataError as error:
                    # Batches in front of it are whole.
                    stop = error
                    break
                number += 1
                if number % options.turns != options.turn:
                    continue
                mine = planned.rows[options.rank :: options.world_size]
                coming = [[(pick, submit(self.examples, pick)) for pick in row] for row in mine]
                waiting.append((planned, coming))
            if waiting:
                yield waiting.popleft()
        raise stop

    def nothing(self) -> Example:
        """A row of padding, from which nothing is learned."""
        pad = self.processor.tokenizer.pad_id
        places = [(0, 0, 0), (1, 1, 1)] if self.processor.config.backbone.mrope else []
        count = None if self.options.loss_per == "token" else 0.0
        return Example([pad, pad], [False, False], media_index=[0, 0], places=places, loss_count=count)


def per_sample(made: Sequence[Example], weight: float) -> list[Example]:
    """The Examples of one Sample with `weight` shared evenly by all tokens that are learned."""
    # Of a row's first token nothing is learned: there is nothing in front of it.
    learned = [sum(example.learn[1:]) for example in made]
    total = sum(learned)
    return [replace(e, loss_weight=e.loss_weight * weight / max(1, total), loss_count=n / max(1, total))
            for e, n in zip(made, learned, strict=True)]  # fmt: skip
