"""Experts: what they say about a picture stands in its place, so that any language model can be asked."""

from sensorium.core.tables import NameTable

EXPERTS = NameTable(
    "expert",
    {
        "captioner": "sensorium.experts.captioner:CaptionerConfig",
        "ocr": "sensorium.experts.ocr:OcrConfig",
    },
)
