"""Pictures that are found, not made: the condition is a vector, and the index has the nearest (FROMAGe, arXiv:2301.13823;
GILL, arXiv:2305.17216).

Shape legend: B items, L condition tokens (one), C condition width.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sensorium.core.errors import ConfigError, DataError, MediaError, WeightsError
from sensorium.core.hands import (
    CancelledError,
    ConditionShape,
    GeneratorConfig,
    Made,
    MadeKind,
    Making,
)
from sensorium.generators.retrieval_index import BRING_BACK, Hit, RetrievalIndex, named
from sensorium.media.image import Image, load_image

BUILD = "sensorium index build MODEL PICTURES"
NAMED = 5
"""Damaged pictures that are named."""


class RetrievalIndexConfig(GeneratorConfig):
    """The folder of `weights` is that of an index; without one, it is looked for beside the model."""

    kind: Literal["retrieval_index"] = "retrieval_index"
    width: int = 256
    """Of the vectors; FROMAGe's and GILL's have 256."""

    @classmethod
    def tiny(cls) -> RetrievalIndexConfig:
        return cls(width=16)

    @property
    def makes(self) -> MadeKind:
        return "image"

    @property
    def needs_folder(self) -> bool:
        return True

    @property
    def condition(self) -> ConditionShape:
        return ConditionShape(1, self.width)

    def build(self, folder: Path | None = None) -> FoundPictures:
        """The pictures of an index.

        Raises:
            WeightsError: there is none.
            DataError: a file of it is missing or damaged, or all pictures that it lists are gone.
            ConfigError: its vectors have another width.
        """
        if folder is None:
            raise WeightsError("no index of pictures to find one in", where="generator retrieval_index",
                               fix=f"make one: {BUILD}, or name its folder in `weights`")  # fmt: skip
        return FoundPictures(self, RetrievalIndex.open(folder))


class FoundPictures:
    """A generator whose media lie in files."""

    def __init__(self, config: RetrievalIndexConfig, index: RetrievalIndex) -> None:
        """Take an index; of pictures that are gone, standard error says so once.

        Raises:
            DataError, ConfigError: as `RetrievalIndexConfig.build`.
        """
        if index.vectors_NC.shape[1] != config.width:
            raise ConfigError(f"an index of vectors of width {index.vectors_NC.shape[1]}", expected=str(config.width),
                              where="generator retrieval_index", fix=f"make one with this model: {BUILD}")  # fmt: skip
        if index.root is None:
            raise DataError("an index that does not say where its pictures lie", where="generator retrieval_index",
                            fix=f"make it again: {BUILD}")  # fmt: skip
        self.config, self.index, self.root = config, index, index.root
        self.lost = index.lost_files(self.root)
        """Pictures that are gone or cannot be read, in whose place the next best is found."""
        self._damaged = 0
        if self.lost:
            print(f"{self.root}: {len(self.lost)} of the index's {len(index.ids)} files are gone, and are passed over: {named(self.lost)}. "
                  f"To mend it: {BRING_BACK}", file=sys.stderr, flush=True)  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write the index, which names its pictures and does not hold them."""
        self.index.save(folder)

    def generate(self, condition_BLC: Tensor, *, negative_BLC: Tensor | None = None, making: Making = Making()) -> list[Made]:
        """The nearest picture of each item, as it is: size, steps and seed change nothing. Items of one call get
        different pictures, and none of `making.without`, nor one that is gone or cannot be read: of such a one standard error
        says so, once, and the next best is found.

        Raises:
            ConfigError: a condition of another shape, or something to lead away from.
            CancelledError: somebody asked to stop.
            DataError: no picture is left.
        """
        if condition_BLC.ndim != 3 or condition_BLC.shape[1:] != (1, self.config.width):
            raise ConfigError(f"a condition of shape {tuple(condition_BLC.shape)}", expected=f"(items, 1, {self.config.width})",
                              where="generator retrieval_index")  # fmt: skip
        if negative_BLC is not None:
            raise ConfigError("a negative condition where pictures are found", where="generator retrieval_index")
        made: list[Made] = []
        shown = list(making.without)
        for condition_1C in condition_BLC.detach().float().cpu().numpy():
            if making.cancelled is not None and making.cancelled():
                raise CancelledError("stopped before a picture was looked for")
            hit, picture = self._nearest(condition_1C, shown)
            shown.append(hit.id)
            made.append(Made("image", picture.pixels_HWC, source=hit.id, similarity=hit.score))
        return made

    def _nearest(self, condition_1C: NDArray[np.float32], shown: Sequence[str]) -> tuple[Hit, Image]:
        """The nearest picture that can be read and is not shown yet."""
        while hits := self.index.search(condition_1C, 1, without=[*shown, *self.lost])[0]:
            try:
                return hits[0], load_image(hits[0].id, root=self.root)
            except MediaError as error:
                self.lost.append(hits[0].id)
                self._say_damaged(error)
        left = len(self.index.ids) - len(self.lost)
        if not left:
            raise DataError(f"none of the index's {len(self.lost)} files can be read: {named(self.lost)}", where=str(self.root), fix=BRING_BACK)
        raise DataError(f"all {left} pictures of the index are shown already", where=str(self.root))

    def _say_damaged(self, error: MediaError) -> None:
        """The first few by name, which stands in the error: a whole folder may have been damaged."""
        self._damaged += 1
        if self._damaged <= NAMED:
            print(f"passed over for the next best: {error}. To mend it: {BRING_BACK}", file=sys.stderr, flush=True)
        elif self._damaged == NAMED + 1:
            print("passed over for the next best: more that cannot be read, which are not named here", file=sys.stderr, flush=True)
