"""BLIP's text encoder: it reads a text alone, for one vector of it, or over a picture, to say whether
they belong together.

Source: BLIP (arXiv:2201.12086), through transformers' `BlipTextModel`.

Shape legend: B rows, T tokens, D width, N texts, J width of the space shared with pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from sensorium.backbones.causal_lm import transformers_config
from sensorium.backbones.cross_lm import BlipTextBackbone, no_prompts, only_media
from sensorium.backbones.inserting import Inserted
from sensorium.backbones.text_tower import WritesNothing
from sensorium.core.batch import Batch
from sensorium.core.parts import TextFrame
from sensorium.nn.attention import segment_mask
from sensorium.nn.bert_layers import embedded, run_layers
from sensorium.nn.cross_media import CrossMedia
from sensorium.nn.pretrained import load_part


class CrossTowerConfig(BlipTextBackbone):
    """A BERT with two heads."""

    kind: Literal["cross_tower"] = "cross_tower"
    joint: int = 256

    @property
    def text_frame(self) -> TextFrame:
        return TextFrame(self.max_positions)

    def build(self, folder: Path | None = None) -> CrossTower:
        return CrossTower(self, folder)


class Encoder(nn.Module):
    """The model and its heads, under transformers' names."""

    def __init__(self, arch: Any, joint: int) -> None:
        super().__init__()
        from transformers import BlipTextModel

        self.text_encoder = BlipTextModel(arch, add_pooling_layer=False)
        self.text_proj = nn.Linear(arch.hidden_size, joint)
        self.itm_head = nn.Linear(arch.hidden_size, 2)
        self.config = arch


class CrossTower(WritesNothing, nn.Module):
    """embed -> layers over text, and over media where there are any -> hidden states."""

    def __init__(self, config: CrossTowerConfig, folder: Path | None = None) -> None:
        super().__init__()
        self.config = config
        self.lm: Any = Encoder(transformers_config(config.arch), config.joint)
        if folder is not None:
            for name, module in self.lm.named_children():
                load_part(module, folder, f"{name}.")

    @property
    def embedding(self) -> nn.Embedding:
        return self.lm.text_encoder.get_input_embeddings()

    def trainable_blocks(self) -> list[nn.Module]:
        """Layers from input to output, for training only the last few."""
        return list(self.lm.text_encoder.encoder.layer)

    def add_prompts(self, layers: int, length: int, gate: str) -> None:
        """BERT has no place for adaption prompts.

        Raises:
            ConfigError: always.
        """
        raise no_prompts(layers, length)

    def embed(self, ids_BT: Tensor) -> Tensor:
        """(B, T) -> (B, T, D)."""
        return self.embedding(ids_BT)

    def teacher_forced(
        self, embeds_BTD: Tensor, batch: Batch, insert: Inserted | CrossMedia = None
    ) -> Tensor:
        """Hidden states of all texts, (B, T, D); over media, if any are inserted."""
        mask_B1TT = segment_mask(batch.segments_BT)
        mask_B1TT = mask_B1TT | mask_B1TT.transpose(2, 3)
        hidden_BTD = embedded(self.lm.text_encoder.embeddings, embeds_BTD, batch.positions_BT)
        return run_layers(self.trainable_blocks(), hidden_BTD, mask_B1TT, only_media(insert))

    def pooled(self, hidden_BTD: Tensor, batch: Batch) -> Tensor:
        """The vector of every text in reading order, (N, J), of states of texts alone."""
        return self.lm.text_proj(firsts(hidden_BTD, batch))

    def matched(self, hidden_BTD: Tensor, batch: Batch) -> Tensor:
        """Scores of no match and of a match for every text in reading order, (N, 2), of states of
        texts over media."""
        return self.lm.itm_head(firsts(hidden_BTD, batch))

    def matches(self, batch: Batch, media: CrossMedia) -> Tensor:
        """Scores of no match and of a match for every text in reading order, (N, 2)."""
        return self.matched(self.teacher_forced(self.embed(batch.input_ids_BT), batch, media), batch)


def firsts(hidden_BTD: Tensor, batch: Batch) -> Tensor:
    """The state of each text's first token, (N, D)."""
    return hidden_BTD[(batch.segments_BT > 0) & (batch.positions_BT == 0)]
