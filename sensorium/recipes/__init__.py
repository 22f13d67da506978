"""Systems as recipes: one short file each."""

from sensorium.core.tables import NameTable

RECIPES = NameTable(
    "recipe",
    {
        "nano": "sensorium.recipes.nano:nano",
        "demo": "sensorium.recipes.nano:demo",
        "tiny": "sensorium.recipes.tiny:tiny",
    },
)
