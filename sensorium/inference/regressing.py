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
from typing import Any

import torch
from torch import Tensor

from sensorium.core.batch import Example
from sensorium.core.hands import MadeKind
from sensorium.inference.extending import extended
from sensorium.inference.sampling import Sampler, Sampling
from sensorium.model.device import to_device
from sensorium.model.fed_back import as_input
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.continuous import continuous_embeddings
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor


@dataclass(frozen=True, slots=True)
class Room:
    """What text may follow a picture: so many tokens, and how they are chosen (greedily where nothing is said, or a search was)."""

    tokens: int = 0
    sampling: Sampling | None = None


class Row:
    """One row that grows by embeddings."""

    def __init__(self, model: MultimodalModel, example: Example, pad_id: int) -> None:
        self.model = model
        self.cache: Any = model.backbone.new_cache()
        batch = to_device(collate([[example]], pad_id), model.device)
        features = model.features(batch.media)
        embeds_1TD = model.fusion.enter(model.backbone.embed(batch.input_ids_BT), features, batch.slots)
        self.last = int(batch.positions_BT[0, -1])
        hidden_1TD = model.backbone(embeds_1TD, positions_BT=batch.positions_BT, cache=self.cache)
        self.hidden_1D: Tensor = hidden_1TD[:, -1]
        """The state at the end."""

    def read(self, embeds_1D: Tensor) -> Tensor:
        """Add one, and give the state at it."""
        self.last += 1
        positions_11 = torch.full((1, 1), self.last, device=embeds_1D.device)
        self.hidden_1D = self.model.backbone(embeds_1D[:, None], positions_BT=positions_11, cache=self.cache)[:, -1]
        return self.hidden_1D

    def say(self, token: int) -> Tensor:
        """Add a token, and give the state at it."""
        return self.read(self.model.backbone.embed(torch.tensor([token], device=self.hidden_1D.device)))

    def picture(self, kind: MadeKind) -> Tensor:
        """The embeddings that follow, (1, N, C); the row has read all of them then."""
        count = self.model.config.ways[kind].reads
        made = list(continuous_embeddings(self.model.hands[kind], lambda x: self.read(as_input(self.model, kind, x)), self.hidden_1D, count))
        self.read(as_input(self.model, kind, made[-1]))
        return torch.stack(made, dim=1)


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
    row = Row(model, extended(prompt, said), processor.tokenizer.pad_id)
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
    return Row(model, nothing, processor.tokenizer.pad_id).picture(kind)
