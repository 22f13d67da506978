"""Whether videos and sound can go through a lane as clips, beside its pictures."""

from __future__ import annotations

from sensorium.core.errors import ConfigError
from sensorium.model.config import ModelConfig


def check_clips(config: ModelConfig) -> None:
    """Does each kind of clips have one way into the LLM, and a fusion that it can take?

    Raises:
        ConfigError: what stands in the way.
    """
    ways: dict[str, list[str]] = {}
    for name, lane in config.lanes.items():
        for kind in dict.fromkeys((name, *lane.encoder.clips())):
            ways.setdefault(kind, []).append(name)
        more = [part for part in ("detail", "places") if getattr(lane, part) is not None]
        if lane.encoder.clips() and more:
            raise ConfigError(f"{more[0]} in a lane that takes clips, which are no pictures", where=f"model.lanes.{name}.{more[0]}",
                              fix=f"leave {more[0]} out, or {' and '.join(lane.encoder.clips())} of the encoder")  # fmt: skip
        # Fusions that look inside layers number the media of a row kind by kind.
        if lane.encoder.clips() and not config.fusion.fills_slots:
            raise ConfigError(f"clips with fusion {config.fusion.kind}", expected="one whose features stand in the row: splice or visual_expert",
                              where="model.fusion", fix=f"leave {' and '.join(lane.encoder.clips())} of the encoder out")  # fmt: skip
    for kind, names in ways.items():
        if len(names) > 1:
            raise ConfigError(f"{kind} in {len(names)} lanes, {', '.join(names)}", expected="one", where="model.lanes")
    cut = [name for name, lane in config.lanes.items() if "video" in lane.encoder.clips()]
    if cut and config.video is not None:
        raise ConfigError("videos as frames and as clips", expected="one of them", where="model.video",
                          fix=f"leave it out, or lanes.{cut[0]}.encoder.video")  # fmt: skip
