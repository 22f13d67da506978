"""BLIP's two BERTs for questions: one reads the question over the picture, the other writes the answer
over what came of it.

Source: BLIP (arXiv:2201.12086), through transformers' `BlipTextModel` and `BlipTextLMHeadModel`. How
rows are cut into question and answer is Seq2SeqLM's.

Shape legend: B rows, S tokens of questions, A tokens of answers and the start, D width of one BERT, V
vocabulary.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sensorium.backbones.causal_lm import transformers_config
from sensorium.backbones.cross_lm import BlipTextBackbone, grown_mask, no_prompts, only_media
from sensorium.backbones.inserting import Inserted
from sensorium.backbones.seq2seq_lm import Seq2SeqLM
from sensorium.core.errors import ConfigError
from sensorium.nn.bert_layers import embedded, run_layers
from sensorium.nn.cross_media import CrossMedia
from sensorium.nn.pretrained import load_part


class CrossSeq2SeqConfig(BlipTextBackbone):
    """Both have the same sizes."""

    kind: Literal["cross_seq2seq"] = "cross_seq2seq"

    @property
    def one_answer(self) -> bool:
        return True

    def check(self) -> None:
        """Refuse media that are not as wide as the text.

        Raises:
            ConfigError: both widths.
        """
        if self.d_media != self.d_model:
            raise ConfigError(
                f"media of width {self.d_media} beside a text of width {self.d_model}",
                expected="one width, because both BERTs have the same sizes, and one attends to the other",
                where="backbone.arch.encoder_hidden_size",
            )

    def build(self, folder: Path | None = None) -> CrossSeq2Seq:
        return CrossSeq2Seq(self, folder)


class Pair(nn.Module):
    """The two models, under transformers' names."""

    def __init__(self, arch: Any) -> None:
        super().__init__()
        from transformers import BlipTextLMHeadModel, BlipTextModel

        self.text_encoder = BlipTextModel(arch, add_pooling_layer=False)
        self.text_decoder = BlipTextLMHeadModel(arch)
        self.config = arch


class CrossSeq2Seq(Seq2SeqLM):
    """embed -> encoder over questions and pictures, decoder over answers -> logits."""

    def __init__(self, config: CrossSeq2SeqConfig, folder: Path | None = None) -> None:
        """Build both.

        Raises:
            ConfigError: the media are not as wide as the text.
        """
        nn.Module.__init__(self)
        self.config = config
        config.check()
        self.lm: Any = Pair(transformers_config(config.arch))
        if folder is not None:
            for name, module in self.lm.named_children():
                load_part(module, folder, f"{name}.")

    @property
    def embedding(self) -> nn.Embedding:
        return self.lm.text_encoder.get_input_embeddings()

    def trainable_blocks(self) -> list[nn.Module]:
        """Layers from input to output: the encoder's, then the decoder's."""
        return [*self.lm.text_encoder.encoder.layer, *self.lm.text_decoder.bert.encoder.layer]

    def add_prompts(self, layers: int, length: int, gate: str) -> None:
        """BERTs have no place for adaption prompts.

        Raises:
            ConfigError: always.
        """
        raise no_prompts(layers, length)

    def embed(self, ids_BT: Tensor) -> Tensor:
        """(B, T) -> (B, T, 2 D): of the encoder's table and of the decoder's, side by side, because
        only later is it known who reads a token."""
        tables = (self.embedding, self.lm.text_decoder.get_input_embeddings())
        return torch.cat([table(ids_BT) for table in tables], dim=-1)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        return self.lm.text_decoder.cls(hidden)

    def _media(self, insert: Inserted | CrossMedia) -> CrossMedia | None:
        return only_media(insert)

    def _encode(self, embeds_BSD: Tensor, mask_BS: Tensor, media: CrossMedia | None) -> Tensor:
        words_BSD, _ = embeds_BSD.chunk(2, dim=-1)
        real_BS = mask_BS > 0
        places_BS = (real_BS.cumsum(dim=1) - 1).clamp(min=0)
        mask_B1SS = (real_BS[:, None, :] & real_BS[:, :, None]) | torch.eye(
            mask_BS.shape[1], dtype=torch.bool, device=mask_BS.device
        )
        encoder = self.lm.text_encoder
        hidden_BSD = embedded(encoder.embeddings, words_BSD, places_BS)
        return run_layers(encoder.encoder.layer, hidden_BSD, mask_B1SS[:, None], media)

    def _decode(
        self, inputs_BAD: Tensor, encoded_BSD: Tensor, mask_BS: Tensor, cache: Any = None
    ) -> Tensor:
        _, words_BAD = inputs_BAD.chunk(2, dim=-1)
        count, done = words_BAD.shape[1], 0 if cache is None else cache.get_seq_length()
        places_BA = torch.arange(done, done + count, device=words_BAD.device).expand(len(words_BAD), -1)
        sees_BAS = (mask_BS > 0)[:, None, :].expand(-1, count, -1)
        decoder = self.lm.text_decoder.bert
        hidden_BAD = embedded(decoder.embeddings, words_BAD, places_BA)
        mask_B1AK = grown_mask(words_BAD, None, cache)
        return run_layers(decoder.encoder.layer, hidden_BAD, mask_B1AK, CrossMedia(encoded_BSD, sees_BAS), cache)

    def _start(self, count: int) -> Tensor:
        """The start token of `count` answers, (B, 1, 2 D)."""
        start = torch.full((count, 1), self.lm.config.bos_token_id, device=self.embedding.weight.device)
        return self.embed(start)
