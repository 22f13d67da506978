"""Bytes -> Media, limits, and how pictures are cut into encoder inputs."""

from sensorium.core.tables import NameTable

RESOLUTIONS = NameTable(
    "resolution",
    {
        "fixed": "sensorium.media.resolution:FixedResolution",
        "anyres": "sensorium.media.anyres:AnyResolution",
        "native": "sensorium.media.native:NativeResolution",
    },
)
