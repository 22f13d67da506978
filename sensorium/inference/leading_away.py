"""What a generator is led away from by words: what the model itself would steer it by, were it asked for that.

Shape legend: D LLM width, L condition tokens, C condition width; there is one row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sensorium.core.hands import MadeKind
from sensorium.core.sample import Message, Part
from sensorium.inference.extending import extended
from sensorium.inference.regressing import embeddings_behind
from sensorium.model.device import to_device
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor


@torch.inference_mode()
def condition_of(model: MultimodalModel, processor: Processor, way: str, text: str) -> Tensor:
    """The condition that a text alone would be answered with, (1, L, C).

    Args:
        way: a kind of medium, or the name of its second way.
    """
    kind: MadeKind = model.config.ways[way].kind
    prompt, signals = processor.prompt((Message("user", (Part("text", text),)),)), processor.signals[kind]
    if model.config.ways[way].projector.feeds_back is not None:
        return embeddings_behind(model, extended(prompt, signals[:1]), kind, processor.tokenizer.pad_id)
    batch = to_device(collate([[extended(prompt, signals)]], processor.tokenizer.pad_id), model.device)
    hidden_1TD = model(batch).hidden_BTD
    return model.condition(way, hidden_1TD, batch.input_ids_BT, [(0, len(prompt))])
