"""Which augmentation a pick of a mixture gets: a pure function of the seed and the pick."""

from __future__ import annotations

import random

from pydantic import Field

from sensorium.core.config import Config
from sensorium.core.hashing import stable_int
from sensorium.data.mixture import Pick
from sensorium.media.augment import Augmentation


class AugmentConfig(Config):
    """Pictures of a source are changed at random."""

    mirror: bool = False
    """Left and right may be swapped: only where no answer speaks of them."""
    views: int | None = Field(default=None, ge=1)
    """A picture is seen in so many ways and no more, which lets features be cached; None:
    anew each time."""

    def of(self, seed: int, pick: Pick) -> Augmentation:
        """The augmentation of one pick."""
        # With views, the row and the pass over the source decide; otherwise every pick differs.
        key = (pick.number,) if self.views is None else (pick.source, pick.row, pick.epoch % self.views)
        number = stable_int("augment", seed, *key)
        return Augmentation(random.Random(number), self.mirror, None if self.views is None else number)
