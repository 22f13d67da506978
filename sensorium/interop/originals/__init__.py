"""Layouts in which authors published their own checkpoints, told apart by their tensors' names; who uses another's names comes before it."""

from sensorium.core.tables import NameTable

ORIGINALS = NameTable(
    "original layout",
    {
        "lisa": "sensorium.interop.originals.lisa:Lisa",
        "mgie": "sensorium.interop.originals.mgie:Mgie",
        "emu": "sensorium.interop.originals.emu:Emu",
        "emu2": "sensorium.interop.originals.emu2:Emu2",
        "seed_llama": "sensorium.interop.originals.seed_llama:SeedLlama",
        "llava_repository": "sensorium.interop.originals.llava_repository:LlavaRepository",
        "llama_adapter": "sensorium.interop.originals.llama_adapter:LlamaAdapter",
        "fromage": "sensorium.interop.originals.fromage:Fromage",
        "gill": "sensorium.interop.originals.gill:Gill",
        "next_gpt_15": "sensorium.interop.originals.next_gpt_15:NextGpt15",
        "next_gpt": "sensorium.interop.originals.next_gpt:NextGpt",
        "minigpt5": "sensorium.interop.originals.minigpt5:MiniGpt5",
        "minigpt_v2": "sensorium.interop.originals.minigpt_v2:MiniGptV2",
        "lavis": "sensorium.interop.originals.lavis:Lavis",
        "openflamingo": "sensorium.interop.originals.openflamingo:OpenFlamingo",
        "mplug_owl": "sensorium.interop.originals.mplug_owl:MplugOwl",
    },
)
