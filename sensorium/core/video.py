"""How a model reads videos: as pictures one behind the other, which it takes by the ways that it has for pictures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sensorium.core.config import Config

PickName = Literal["segments", "middles"]


class VideoConfig(Config):
    """Which frames of a video are looked at, and what stands around them."""

    frames: int = Field(default=8, ge=1)
    """Of a video with fewer, see `pick`; a list of no more pictures is looked at whole."""
    pick: PickName = "segments"
    """`segments`: one of each of so many equal parts, beginning in the middle of the first (Emu); `middles`: the middle one of each, or all
    there are (SEED)."""
    pool: int = Field(default=1, ge=1)
    """Side of the squares of a frame's tokens that are averaged into one, in front of answers: Emu2-Chat reads 64 of a frame, 256 of a picture."""
    begin: tuple[str, ...] = ()
    """Control tokens in front of the first frame."""
    end: tuple[str, ...] = ()
    """Behind the last one."""
