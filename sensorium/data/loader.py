"""The training loader: picks -> Examples -> packed Batches, ahead of the model.

Threads decode and tokenise in parallel; results are consumed in the order of the picks,
so the batches do not depend on how many there are. A batch's state is the mixture state
after its last sample: restoring it continues with the next sample.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from sensorium.core.batch import Batch, Example
from sensorium.core.errors import DataError, SensoriumError
from sensorium.core.sample import Sample
from sensorium.data.augmenting import AugmentConfig
from sensorium.data.mixture import MixtureOrder, MixtureState, Pick
from sensorium.data.source import Source, place_of, read_row
from sensorium.media.augment import Augmentation
from sensorium.processing.answers import encode_rows
from sensorium.processing.collate import collate, pack
from sensorium.processing.processor import Processor


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
    """Samples a batch where rows are not packed; at most this many rows where they are."""
    max_length: int
    pack: bool = False
    workers: int = 2
    seed: int = 0
    augment: Sequence[AugmentConfig | None] = ()
    """Per source: how pictures are augmented."""
    loss_weights: Sequence[float] = ()
    """Per source: what its tokens' losses are multiplied by; none: 1 for all."""
    skip_bad: bool = False
    """Report a bad row and go on instead of stopping."""


@dataclass(slots=True)
class LoadedBatch:
    """A batch and the state to resume after it."""

    batch: Batch
    state: MixtureState
    samples: int
    problems: list[str]


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

    def examples(self, pick: Pick) -> list[Example]:
        """What one pick becomes: one Example, or one for each answer.

        Raises:
            DataError: the row cannot be used.
        """
        source = self.sources[pick.source]
        config = self.options.augment[pick.source] if self.options.augment else None
        augmentation = None if config is None else config.of(self.options.seed, pick)
        where = place_of(source, pick.row)
        sample = read_row(source, pick.row)
        try:
            made = encode_rows(
                self.processor, sample, max_length=self.options.max_length, augmentation=augmentation
            )
            if self.options.loss_weights:
                weight = self.options.loss_weights[pick.source]
                made = [replace(e, loss_weight=e.loss_weight * weight) for e in made]
            return made if self.transform is None else [self.transform(e, pick) for e in made]
        except SensoriumError as error:
            raise error.at(where) from None

    def batches(self, state: MixtureState) -> Generator[LoadedBatch]:
        """Batches from `state` on; `state` itself is not changed.

        Close the stream when it is done with: it ends threads, for which the garbage collector
        is the wrong place.

        Raises:
            DataError: a row cannot be used and `skip_bad` is off.
        """
        ahead = state.copy()
        waiting: deque[tuple[MixtureState, Future[list[Example]]]] = deque()
        depth = max(4, 2 * self.options.batch_size)
        ready: list[tuple[MixtureState, list[Example]]] = []
        problems: list[str] = []
        bad_in_row = 0
        with ThreadPoolExecutor(max(1, self.options.workers)) as pool:
            try:
                while True:
                    while len(waiting) < depth:
                        pick = self.order.next(ahead)
                        waiting.append((ahead.copy(), pool.submit(self.examples, pick)))
                    after, future = waiting.popleft()
                    try:
                        ready.append((after, future.result()))
                        bad_in_row = 0
                    except DataError as error:
                        if not self.options.skip_bad:
                            raise
                        problems.append(str(error))
                        bad_in_row += 1
                        if bad_in_row > sum(self.order.lengths):
                            raise DataError(
                                f"every row of the mixture is bad; the last: {error}"
                            ) from None
                        continue
                    made = self._try_batch(ready)
                    if made is None:
                        continue
                    batch, count = made
                    yield LoadedBatch(batch, ready[count - 1][0], count, problems)
                    ready, problems = ready[count:], []
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _try_batch(
        self, ready: Sequence[tuple[MixtureState, list[Example]]]
    ) -> tuple[Batch, int] | None:
        examples = [example for _, made in ready for example in made]
        pad_id = self.processor.tokenizer.pad_id
        if not self.options.pack:
            if len(ready) < self.options.batch_size:
                return None
            return collate([[e] for e in examples], pad_id), len(ready)
        rows, count = pack(examples, self.options.max_length, self.options.batch_size)
        # Complete only when one more Example fitted nowhere; it stays for the next batch.
        if count == len(examples):
            return None
        # What one pick became stays together: the state behind a batch is that behind a whole pick.
        picks = taken = 0
        while taken + len(ready[picks][1]) <= count:
            taken += len(ready[picks][1])
            picks += 1
        if not picks:
            made = ready[0][1]
            rows, picks = pack(made, self.options.max_length, len(made))[0], 1
        elif taken < count:
            rows = pack(examples[:taken], self.options.max_length, self.options.batch_size)[0]
        return collate(rows, pad_id), picks

