"""Layouts in which authors published their own checkpoints, told apart by their tensors' names; who uses another's names comes before it."""

from sensorium.core.tables import NameTable

ORIGINALS = NameTable(
    "original layout",
    {
        "llava_repository": "sensorium.interop.originals.llava_repository:LlavaRepository",
        "llama_adapter": "sensorium.interop.originals.llama_adapter:LlamaAdapter",
        "fromage": "sensorium.interop.originals.fromage:Fromage",
        "gill": "sensorium.interop.originals.gill:Gill",
        "next_gpt": "sensorium.interop.originals.next_gpt:NextGpt",
        "minigpt5": "sensorium.interop.originals.minigpt5:MiniGpt5",
        "minigpt_v2": "sensorium.interop.originals.minigpt_v2:MiniGptV2",
        "lavis": "sensorium.interop.originals.lavis:Lavis",
        "openflamingo": "sensorium.interop.originals.openflamingo:OpenFlamingo",
        "mplug_owl": "sensorium.interop.originals.mplug_owl:MplugOwl",
    },
)
