"""Families of foreign checkpoints: config both ways, and the key map."""

from sensorium.core.tables import NameTable

FAMILIES = NameTable(
    "model family",
    {
        "llava": "sensorium.interop.families.llava:Llava",
        "llava_next": "sensorium.interop.families.llava_next:LlavaNext",
        "llava_onevision": "sensorium.interop.families.llava_onevision:LlavaOnevision",
        "blip": "sensorium.interop.families.blip:Blip",
        "blip-2": "sensorium.interop.families.blip2:Blip2",
        "instructblip": "sensorium.interop.families.instructblip:InstructBlip",
        "qwen2_vl": "sensorium.interop.families.qwen2_vl:Qwen2Vl",
        "qwen2_5_vl": "sensorium.interop.families.qwen25_vl:Qwen25Vl",
        "clip": "sensorium.interop.families.clip:Clip",
        "siglip": "sensorium.interop.families.clip:Siglip",
        "kosmos-2": "sensorium.interop.families.kosmos2:Kosmos2",
        "openflamingo": "sensorium.interop.families.openflamingo:OpenFlamingo",
        "llavaonevision1_5": "sensorium.interop.families.llava_onevision_15:LlavaOnevision15",
        "qwen": "sensorium.interop.families.qwen_vl:QwenVl",
        "idefics": "sensorium.interop.families.idefics:Idefics",
        "cogvlm": "sensorium.interop.families.cogvlm:CogVlm",
        "chameleon": "sensorium.interop.families.chameleon:Chameleon",
        "janus": "sensorium.interop.families.janus:Janus",
        "emu3": "sensorium.interop.families.emu3:Emu3",
        "cogagent": "sensorium.interop.families.cogagent:CogAgent",
    },
)
