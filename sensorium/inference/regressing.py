"""Answers with pictures that are written embedding by embedding: the LLM reads each before it makes the next.

A picture begins where the LLM says the first of its two signals. From there on nothing is a token until the picture is whole; the
second signal then ends it, and text goes on behind what was made. One row at a time, from a cache.

Source: Emu (arXiv:2307.05222) and Emu2 (arXiv:2312.13286), github.com/baaivision/Emu, `generate_image` in
Emu1/models/modeling_emu.py and Emu2/emu/emu.py. What a decoder is led away from is what the LLM makes behind no text at all
(Emu1/models/pipeline.py, Emu2/emu/diffusion.py).

Shape legend: T tokens, N embeddings, C their width, D LLM width; there is one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sensorium.core.batch import Example
from sensorium.core.hands import MadeKind
from sensorium.inference.extending import extended
from sensorium.inference.sampling import Sampler, Sampling
from sensorium.model.device import to_device
from sensorium.model.fed_back import Row
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor


@dataclass(frozen=True, slots=True)
class Room:
    """What text may follow a picture: so many tokens, and how they are chosen (greedily where nothing is said, or a search was)."""

    tokens: int = 0
    sampling: Sampling | None = None


def _row(model: MultimodalModel, example: Example, pad_id: int) -> Row:
    batch = to_device(collate([[example]], pad_id), model.device)
    embeds_1TD = model.fusion.enter(model.backbone.embed(batch.input_ids_BT), model.features(batch.media), batch.slots)
    return Row(model, embeds_1TD, batch.positions_BT)


@torch.inference_mode()
def go_on(
    model: MultimodalModel, processor: Processor, kind: MadeKind, prompt: Example, ids: Sequence[int], room: Room
) -> tuple[list[int], list[Tensor]]:
    """An answer from its first picture on.

    Args:
        ids: the answer so far. What stands behind the begin of a picture was written without having read it, and is written anew.

    Returns:
        All tokens, each picture as its two signals, and the embeddings of the pictures, (1, N, C). One without room ends the
        answer with its first signal.
    """
    begin, end = processor.signals[kind]
    said = list(ids)
    if begin not in said:
        return said, []
    said = said[: said.index(begin) + 1]
    left = room.tokens + len(ids) - len(said)
    count = model.config.ways[kind].reads + 1
    limit = model.config.longest_row
    if len(prompt) + len(said) + count > limit:
        return said, []
    row = _row(model, extended(prompt, said), processor.tokenizer.pad_id)
    sampler = Sampler(room.sampling or Sampling(), model.device)
    pictures: list[Tensor] = []
    while True:
        pictures.append(row.picture(kind))
        said.append(end)
        row.say(end)
        while True:
            token = int(sampler(model.logits(row.hidden_1D), [said])) if left and row.last + 1 < limit else min(processor.stop_ids)
            if token in processor.stop_ids:
                return said, pictures
            said.append(token)
            if token == begin and row.last + 1 + count >= limit:
                return said, pictures
            left -= 1
            row.say(token)
            if token == begin:
                break


@torch.inference_mode()
def negative(model: MultimodalModel, processor: Processor, kind: MadeKind) -> Tensor:
    """The embeddings of a picture behind no text, (1, N, C)."""
    bos = processor.tokenizer.bos_id
    ids = [*([bos] if processor.template.bos and bos is not None else []), processor.signals[kind][0]]
    nothing = Example(input_ids=ids, learn=[False] * len(ids), media_index=[0] * len(ids))
    return embeddings_behind(model, nothing, kind, processor.tokenizer.pad_id)


@torch.inference_mode()
def embeddings_behind(model: MultimodalModel, begun: Example, kind: MadeKind, pad_id: int) -> Tensor:
    """The embeddings of a picture behind what ends with its first signal, (1, N, C)."""
    return _row(model, begun, pad_id).picture(kind)
