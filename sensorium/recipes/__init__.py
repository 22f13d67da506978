"""Systems as recipes: one short file each."""

from sensorium.core.tables import NameTable

RECIPES = NameTable(
    "recipe",
    {
        "nano": "sensorium.recipes.nano:nano",
        "demo": "sensorium.recipes.nano:demo",
        "tiny": "sensorium.recipes.tiny:tiny",
        "llava-v1": "sensorium.recipes.llava_v1:llava_v1",
        "llava-1.5": "sensorium.recipes.llava_15:llava_15",
        "llava-1.5-13b": "sensorium.recipes.llava_15:llava_15_13b",
        "llava-1.5-lora": "sensorium.recipes.llava_15:llava_15_lora",
        "llava-med": "sensorium.recipes.llava_med:llava_med",
        "shikra": "sensorium.recipes.shikra:shikra",
        "blip2-opt": "sensorium.recipes.blip2_opt:blip2_opt",
        "instructblip": "sensorium.recipes.instructblip:instructblip",
        "minigpt4": "sensorium.recipes.minigpt4:minigpt4",
        "idefics-9b": "sensorium.recipes.idefics_9b:idefics_9b",
    },
)
# The same systems with every part shrunk, on the shipped pictures: `train llava-1.5/tiny`.
TINY_FORMS = NameTable(
    "tiny form",
    {
        "llava-v1": "sensorium.recipes.llava_v1:tiny",
        "llava-1.5": "sensorium.recipes.llava_15:tiny",
        "llava-1.5-lora": "sensorium.recipes.llava_15:tiny_lora",
        "llava-med": "sensorium.recipes.llava_med:tiny",
        "shikra": "sensorium.recipes.shikra:tiny",
        "blip2-opt": "sensorium.recipes.blip2_opt:tiny",
        "instructblip": "sensorium.recipes.instructblip:tiny",
        "minigpt4": "sensorium.recipes.minigpt4:tiny",
        "idefics-9b": "sensorium.recipes.idefics_9b:tiny",
    },
)
