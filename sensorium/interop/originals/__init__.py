"""Layouts in which authors published their own checkpoints, told apart by their tensors' names."""

from sensorium.core.tables import NameTable

ORIGINALS = NameTable(
    "original layout",
    {
        "llava_repository": "sensorium.interop.originals.llava_repository:LlavaRepository",
        "lavis": "sensorium.interop.originals.lavis:Lavis",
        "openflamingo": "sensorium.interop.originals.openflamingo:OpenFlamingo",
        "mplug_owl": "sensorium.interop.originals.mplug_owl:MplugOwl",
    },
)
