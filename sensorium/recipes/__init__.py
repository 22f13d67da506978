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
        "llava-1.5-13b": "sensorium.recipes.llava_15_variants:llava_15_13b",
        "llava-1.5-lora": "sensorium.recipes.llava_15_variants:llava_15_lora",
        "llava-1.5-hd": "sensorium.recipes.llava_15_hd:llava_15_hd",
        "llava-next": "sensorium.recipes.llava_next:llava_next",
        "llava-next-mistral": "sensorium.recipes.llava_next:llava_next_mistral",
        "llava-onevision": "sensorium.recipes.llava_onevision:llava_onevision",
        "llava-onevision-0.5b": "sensorium.recipes.llava_onevision:llava_onevision_05b",
        "llava-med": "sensorium.recipes.llava_med:llava_med",
        "shikra": "sensorium.recipes.shikra:shikra",
        "chatspot": "sensorium.recipes.chatspot:chatspot",
        "blip2-opt": "sensorium.recipes.blip2_opt:blip2_opt",
        "blip2-t5": "sensorium.recipes.blip2_t5:blip2_t5",
        "dlp": "sensorium.recipes.dlp:dlp",
        "instructblip": "sensorium.recipes.instructblip:instructblip",
        "instructblip-t5": "sensorium.recipes.instructblip_t5:instructblip_t5",
        "minigpt4": "sensorium.recipes.minigpt4:minigpt4",
        "minigpt-v2": "sensorium.recipes.minigpt_v2:minigpt_v2",
        "mplug-owl": "sensorium.recipes.mplug_owl:mplug_owl",
        "idefics-9b": "sensorium.recipes.idefics_9b:idefics_9b",
        "llama-adapter": "sensorium.recipes.llama_adapter:llama_adapter",
    },
)
# The same systems with every part shrunk, on the shipped pictures: `train llava-1.5/tiny`.
TINY_FORMS = NameTable(
    "tiny form",
    {
        "llava-v1": "sensorium.recipes.llava_v1:tiny",
        "llava-1.5": "sensorium.recipes.llava_15:tiny",
        "llava-1.5-lora": "sensorium.recipes.llava_15_variants:tiny_lora",
        "llava-1.5-hd": "sensorium.recipes.llava_15_hd:tiny",
        "llava-next": "sensorium.recipes.llava_next:tiny",
        "llava-onevision": "sensorium.recipes.llava_onevision:tiny",
        "llava-med": "sensorium.recipes.llava_med:tiny",
        "shikra": "sensorium.recipes.shikra:tiny",
        "chatspot": "sensorium.recipes.chatspot:tiny",
        "blip2-opt": "sensorium.recipes.blip2_opt:tiny",
        "blip2-t5": "sensorium.recipes.blip2_t5:tiny",
        "dlp": "sensorium.recipes.dlp:tiny",
        "instructblip": "sensorium.recipes.instructblip:tiny",
        "instructblip-t5": "sensorium.recipes.instructblip_t5:tiny",
        "minigpt4": "sensorium.recipes.minigpt4:tiny",
        "minigpt-v2": "sensorium.recipes.minigpt_v2:tiny",
        "mplug-owl": "sensorium.recipes.mplug_owl:tiny",
        "idefics-9b": "sensorium.recipes.idefics_9b:tiny",
        "llama-adapter": "sensorium.recipes.llama_adapter:tiny",
    },
)
