"""Media that last, cut into clips of a few seconds: how ImageBind takes videos and sound."""

from __future__ import annotations

from fractions import Fraction

from pydantic import Field

from sensorium.core.config import Config


class ClipsConfig(Config):
    """Which clips are taken: the first begins with the medium, the last ends with it, the others lie evenly between."""

    clips: int = Field(default=1, ge=1)
    seconds: int = Field(default=2, ge=1)
    """Of each; of a medium that is shorter, all there is."""

    def starts(self, lasts_s: float) -> list[Fraction]:
        """When each clip begins, in seconds.

        Args:
            lasts_s: seconds of the whole medium.
        """
        last = Fraction(max(lasts_s - self.seconds, 0))
        return [last / max(self.clips - 1, 1) * i for i in range(self.clips)]


class FrameClips(ClipsConfig):
    """Clips of a video as some of their frames, each cut out in several places: left, middle and right, or top, middle and bottom."""

    clips: int = Field(default=5, ge=1)
    frames: int = Field(default=2, ge=1)
    """Of each clip: its first, its last, the others evenly between."""
    crops: int = Field(default=3, ge=1)
    """Squares of each frame, from end to end of its longer side; one is the middle."""


class MelClips(ClipsConfig):
    """Clips of a sound as the logarithms of mel bands, by Kaldi's arithmetic."""

    clips: int = Field(default=3, ge=1)
    rate_hz: int = Field(default=16000, ge=1000)
    bands: int = Field(default=128, ge=1)
    rows: int = Field(default=204, ge=1)
    """Of each clip; what a clip has more is cut off, what it lacks is 0 before `mean` is taken away."""
    mean: float = -4.268
    deviation: float = Field(default=9.138, gt=0)
