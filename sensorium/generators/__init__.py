"""Generators: a condition -> pictures, sound, video."""

from sensorium.core.tables import NameTable

GENERATORS = NameTable(
    "generator",
    {
        "sam": "sensorium.generators.sam:SamConfig",
    },
)
