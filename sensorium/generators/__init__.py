"""Generators: a condition, or picture tokens -> pictures, sound, video."""

from sensorium.core.tables import NameTable

GENERATORS = NameTable("generator", {})

PICTURE_TOKENIZERS = NameTable(
    "picture tokenizer",
    {
        "vq": "sensorium.generators.vq:VqConfig",
    },
)
