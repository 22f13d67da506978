"""Token ids, labels and pixel values of the samples, made once and without a clock, for the peers.

They are what our Processor makes of the same conversations, so that all sides train on the same tokens; pixel
values are ours too (scaled and normalised, as a peer's user would prepare them offline), so that no
side is measured by its image processor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sensorium.data.loader import make_example
from sensorium.data.source import JsonlSource
from sensorium.encoders.pixels import Normalise
from sensorium.interop.assemble import completed
from sensorium.interop.saved import read_model_config
from sensorium.processing.processor import Processor
from sensorium.text.tokenizer import Tokenizer

IGNORED = -100
IMAGE_ID = 3


def write_rows(work: Path) -> Path:
    """Rows for the peers, as a file of tensors."""
    config = read_model_config(work / "ours")
    processor = Processor(config, completed(Tokenizer.load(work / "hf"), config.backbone))
    normalise = Normalise(config.lanes["image"].encoder.preprocess())
    source = JsonlSource(work / "data" / "samples.jsonl")
    rows: list[dict[str, Any]] = []
    for i in range(len(source)):
        example = make_example(processor, source[i], f"row {i + 1}")
        ids = torch.tensor(example.input_ids)
        ids[list(example.slots["image"])] = IMAGE_ID
        labels = torch.where(torch.tensor(example.learn), ids, IGNORED)
        values = normalise(example.media["image"].pixels_NCHW)[0]
        rows.append({"input_ids": ids, "labels": labels, "pixel_values": values})
    torch.save(rows, work / "rows.pt")
    return work / "rows.pt"
