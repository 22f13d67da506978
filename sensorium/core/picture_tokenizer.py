"""The promises of picture tokenizers: pictures <-> rows of code numbers.

Shape legend: B pictures, C colours, H/W pixels, N picture tokens of a picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from sensorium.core.batch import Grid
from sensorium.core.errors import WeightsError
from sensorium.core.parts import PartConfig
from sensorium.core.weights import WeightSource

if TYPE_CHECKING:
    from torch import Tensor

    from sensorium.core.hands import Asked, Making


class PictureTokenizer(Protocol):
    """Pictures <-> rows of code numbers, which an LLM can read and write as tokens."""

    @property
    def size_px(self) -> int:
        """Side of the square pictures that it is meant for."""
        ...

    @property
    def grid(self) -> Grid:
        """Layout of such a picture's codes, which are in reading order."""
        ...

    @property
    def codes(self) -> int:
        """Entries of the codebook: ids are 0 to codes - 1."""
        ...

    def encode(self, pixels_BCHW: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> ids_BN, int64.

        Raises:
            ConfigError: pixels of another type, or sides that its stride does not divide.
        """
        ...

    def decode(self, ids_BN: Tensor, grid: Grid | None = None, *, making: Making | None = None) -> Tensor:
        """ids_BN -> (B, 3, H, W) uint8.

        Args:
            grid: layout of the codes of pictures that are not square or of another size; None: its own.
            making: seed, progress and stopping, where a picture is drawn in steps (SEED); others have no use for it.

        Raises:
            CancelledError: somebody asked to stop.
            ConfigError: other than a grid's worth of ids, or ids outside the codebook.
            WeightsError: the published weights hold no decoder.
        """
        ...


class PictureTokenizerConfig(PartConfig):
    """A picture <-> ids of a codebook: a generator whose condition is ids."""

    trains: ClassVar[bool] = False
    """Whether `sensorium tokenizer train` teaches one."""
    weights: tuple[WeightSource, ...] = ()
    """Where pretrained weights may come from; the first that is reachable wins."""
    size_px: int
    codes: int

    @property
    def heeds(self) -> frozenset[Asked]:
        """What of a `Making` makes a difference to how it decodes codes; of most, nothing."""
        return frozenset()

    @property
    def stride(self) -> int:
        """Pixels of a side that one code stands for."""
        raise TypeError(f"{type(self).__name__} does not define stride")

    @property
    def whole(self) -> bool:
        """True: ids are of a whole picture, a square of `size_px`, and lie on no map (SEED)."""
        return False

    def grid(self) -> Grid:
        """Layout of the codes of a square picture of `size_px`."""
        side = self.size_px // self.stride
        return Grid(side, side)

    @property
    def published_as(self) -> str | None:
        """The hub id of published weights of these very sizes, whose codes random ones do not mean; None: there are none."""
        return None

    def fetch(self, path: str) -> str | None:
        """What brings weights to this path, a command where they are published; None: nothing is known."""
        del path
        return None

    def refuse_random(self) -> None:
        """Refuse to go without weights where those are published.

        Raises:
            WeightsError: saying which, and how to name them.
        """
        if self.published_as is not None:
            raise WeightsError("no folder, and codes of random weights mean nothing", where=f"picture tokenizer {self.kind}",
                               fix=f"name a folder or hub id in `weights`, such as {self.published_as}: {self.fetch('FOLDER')}")  # fmt: skip

    def build(self, folder: Path | None = None) -> PictureTokenizer:
        """The tokenizer, with the weights that lie in `folder` in the part's native layout, or random ones (`blank`) where none are
        published.

        Raises:
            ConfigError: sizes that do not fit together.
            WeightsError: the folder or tensors are missing, left over, or of another shape; or `refuse_random`.
        """
        raise TypeError(f"{type(self).__name__} does not define build()")

    def blank(self) -> PictureTokenizer:
        """The tokenizer with random weights of whatever size, for weights that are learnt, or filled in afterwards."""
        return self.build()
