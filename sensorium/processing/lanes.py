"""The ways that media take into a model: what of a Sample goes through which lane, and what it becomes there."""

from __future__ import annotations

from sensorium.core.batch import Grid, TilePlan
from sensorium.core.errors import ConfigError
from sensorium.core.parts import LaneShape, ModelShape
from sensorium.core.sample import Part
from sensorium.core.shelf import Shelf
from sensorium.media.limits import ImageLimits
from sensorium.processing.clips import Clips
from sensorium.processing.pictures import Pictures
from sensorium.processing.question import looked_for
from sensorium.processing.sample_media import Inputs, SampleMedia, prepared
from sensorium.text.tokenizer import Tokenizer


class Lanes:
    """Makes media ready for the encoders of one model."""

    def __init__(self, config: ModelShape, tokenizer: Tokenizer, limits: ImageLimits) -> None:
        self._config, self._tokenizer = config, tokenizer
        self._tiles = {kind: lane.tile_grid() for kind, lane in config.lanes.items()}
        self._pictures = {kind: Pictures(kind, lane, limits) for kind, lane in config.lanes.items() if kind == "image"}
        self._clips = {kind: Clips(kind, lane.encoder, limits) for lane in config.lanes.values() for kind in lane.encoder.clips()}

    @property
    def kinds(self) -> set[str]:
        """Types of parts that go through a lane."""
        return {*self._pictures, *self._clips}

    def lane(self, kind: str) -> LaneShape:
        """The lane of a kind of media.

        Raises:
            ConfigError: the model has none.
        """
        return self._config.lanes[self._config.lane_of(kind)]

    def tile(self, kind: str, plan: TilePlan) -> Grid:
        """Tokens of one encoder input, or of a picture of its own size."""
        return self.lane(kind).tile_grid(plan.patches) if plan.patches else self._tiles[self._config.lane_of(kind)]

    def inputs(self, part: Part, media: SampleMedia, shelf: Shelf | None) -> Inputs:
        """A medium made ready.

        Raises:
            MediaError: it cannot be read or decoded.
            ConfigError: the model takes none of its kind.
        """
        lane = self.lane(part.type)
        if part.type in self._clips:
            clips, root = self._clips[part.type], media.sample.root
            made, seen = clips.prepare(part.value, root, shelf) if media.decoded else clips.measure(part.value, root), None
        elif part.type in self._pictures:
            made, seen = prepared(part, self._pictures[part.type], media, shelf)
        else:
            raise ConfigError(f"a lane {part.type} whose encoder, of kind {lane.encoder.kind}, takes pictures", expected="one that takes clips of it",
                              where=f"model.lanes.{part.type}.encoder", fix="imagebind takes clips of video and audio")  # fmt: skip
        return Inputs(made, seen, looked_for(media.question(), lane, self._tokenizer, media.sample))
