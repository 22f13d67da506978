"""Encoder-decoder language models of the T5 kind behind the interface of `CausalLM`.

A row of tokens is read in two parts: what stands in front of its answer goes through the encoder,
the answer through the decoder, which begins with a start token of its own. Hidden states are laid out as
those of a decoder-only model are: the one at a token scores the token behind it.

Source: T5 (arXiv:1910.10683); BLIP-2 (arXiv:2301.12597) feeds it visual tokens in front of the prompt.

Shape legend: B rows, T tokens, S tokens of prompts, A tokens of answers and the start, D width, V
vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from sensorium.backbones.arch_file import with_arch
from sensorium.backbones.causal_lm import transformers_config
from sensorium.backbones.inserting import Inserted
from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.parts import BackboneConfig
from sensorium.nn.cross_media import CrossMedia
from sensorium.nn.pretrained import from_folder

FAMILIES = ("t5", "mt5", "umt5")
# Positions are counted relative to each other, without end.
NO_LIMIT = 1 << 20


class Seq2SeqLMConfig(BackboneConfig):
    """`arch` is the model's own config.json as transformers writes it."""

    kind: Literal["seq2seq_lm"] = "seq2seq_lm"
    arch: dict[str, Any]
    """Left out: that of the folder of `weights`."""

    @model_validator(mode="before")
    @classmethod
    def _arch_of_folder(cls, values: Any) -> Any:
        return with_arch(values)

    @classmethod
    def tiny(cls) -> Seq2SeqLMConfig:
        return cls(
            tokenizer="bytes",
            arch={
                "model_type": "t5", "vocab_size": 512, "d_model": 48, "d_kv": 12, "d_ff": 96,
                "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4, "dropout_rate": 0.0,
                "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
            },
        )  # fmt: skip

    @property
    def d_model(self) -> int:
        return int(transformers_config(self.arch).d_model)

    @property
    def vocab_size(self) -> int:
        return int(transformers_config(self.arch).vocab_size)

    @property
    def num_layers(self) -> int:
        return int(transformers_config(self.arch).num_decoder_layers)

    @property
    def max_positions(self) -> int:
        return NO_LIMIT

    @property
    def one_answer(self) -> bool:
        return True

    def build(self, folder: Path | None = None) -> Seq2SeqLM:
        return Seq2SeqLM(self, folder)


@dataclass(slots=True)
class Seq2SeqCache:
    """What growing answers need: the encoded prompts, once, and the decoder's keys and values."""

    decoder: Any
    encoded_BSD: Tensor | None = None
    mask_BS: Tensor | None = None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Have every row be what another one was; rows of one prompt share what was encoded."""
        self.decoder.reorder_cache(beam_idx)


class Seq2SeqLM(nn.Module):
    """embed -> encoder over prompts, decoder over answers -> logits."""

    def __init__(self, config: Seq2SeqLMConfig, folder: Path | None = None) -> None:
        super().__init__()
        from transformers import AutoModelForSeq2SeqLM

        self.config = config
        hf_config = transformers_config(config.arch)
        if hf_config.model_type not in FAMILIES:
            raise ConfigError(
                f"an encoder-decoder of type {hf_config.model_type!r}",
                expected=", ".join(FAMILIES),
                where="backbone.arch.model_type",
            )
        if folder is None:
            self.lm: Any = AutoModelForSeq2SeqLM.from_config(hf_config)
        else:
            self.lm = from_folder(AutoModelForSeq2SeqLM, hf_config, folder)
        tied = getattr(hf_config, "scale_decoder_outputs", False)
        self.logit_scale = hf_config.d_model**-0.5 if tied else 1.0

    @property
    def embedding(self) -> nn.Embedding:
        return self.lm.get_input_embeddings()

    def trainable_blocks(self) -> list[nn.Module]:
        """Layers from input to output: the encoder's, then the decoder's."""
        return [*self.lm.encoder.block, *self.lm.decoder.block]

    def add_prompts(self, layers: int, length: int, gate: str) -> None:
        """Encoder-decoders have no place for adaption prompts.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"{length} adaption prompts in {layers} layers of an encoder-decoder",
            expected="a decoder-only language model",
            where="model.adapter",
            fix="use adapter: {kind: lora}, with targets q and v",
        )

    def layers_for_experts(self) -> list[nn.Module]:
        """Encoder-decoders have no place for experts.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "a visual expert in an encoder-decoder",
            expected="a decoder-only language model",
            where="model.fusion",
            fix="use fusion: {kind: splice}",
        )

    def embed(self, ids_BT: Tensor) -> Tensor:
        """(B, T) -> (B, T, D)."""
        return self.embedding(ids_BT)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        return self.lm.get_output_embeddings()(hidden * self.logit_scale)

    def new_cache(self) -> Seq2SeqCache:
        """An empty cache for one batch of answers."""
        from transformers import DynamicCache, EncoderDecoderCache

        return Seq2SeqCache(EncoderDecoderCache(DynamicCache(), DynamicCache()))

    def teacher_forced(self, embeds_BTD: Tensor, batch: Batch, insert: Inserted | CrossMedia = None) -> Tensor:
        """Hidden states of whole rows, answers included.

        Returns:
            (B, T, D): from the last token of a row's prompt on, those of the decoder; before
            it nothing is predicted, and they are 0. A row without an answer is all prompt.

        Raises:
            ConfigError: rows hold several samples, or layers are to be inserted.
            DataError: something that is not learned stands behind the beginning of an answer.
        """
        media = self._media(insert)
        if batch.packed:
            raise ConfigError(
                "several samples in a row for an encoder-decoder",
                expected="one, because prompts and answers go different ways",
                fix="pack: false, with a token_budget that fills batches with samples of like length, and no separate_turns",
            )
        real_BT, places_T = batch.segments_BT > 0, torch.arange(embeds_BTD.shape[1], device=embeds_BTD.device)
        begin_B = _answers_begin(batch, real_BT)
        prompt_BT = real_BT & (places_T < begin_B[:, None])
        answer_BT = real_BT & (places_T >= begin_B[:, None])
        longest = int(begin_B.max())
        if media is not None:
            media = CrossMedia(media.media_BKE, media.sees_BTK[:, :longest])
        encoded_BSD = self._encode(embeds_BTD[:, :longest], prompt_BT[:, :longest], media)
        # Column j of the decoder's input is what stands j - 1 behind the answer's beginning.
        steps_A = torch.arange(int(answer_BT.sum(dim=1).max()) + 1, device=places_T.device)
        places_BA = begin_B[:, None] - 1 + steps_A
        last = embeds_BTD.shape[1] - 1
        inputs_BAD = embeds_BTD.gather(1, _wide(places_BA.clamp(max=last), embeds_BTD))
        inputs_BAD = torch.cat([self._start(len(begin_B)), inputs_BAD[:, 1:]], dim=1)
        hidden_BAD = self._decode(inputs_BAD, encoded_BSD, prompt_BT[:, :longest])
        # One more column takes what runs over the end of a row.
        out = hidden_BAD.new_zeros(len(begin_B), last + 2, hidden_BAD.shape[-1])
        return out.scatter(1, _wide(places_BA.clamp(max=last + 1), out), hidden_BAD)[:, : last + 1]

    def forward(
        self,
        embeds_BTD: Tensor,
        *,
        positions_BT: Tensor,
        places_3BT: Tensor | None = None,
        mask_BT: Tensor | None = None,
        cache: Seq2SeqCache,
        insert: Inserted | CrossMedia = None,
    ) -> Tensor:
        """One step of growing answers.

        Args:
            embeds_BTD: with an empty cache the prompts, then one token of each answer.
            positions_BT, places_3BT: not used; places are relative.
            mask_BT: with an empty cache, 1 for real tokens of prompts padded on the left.

        Returns:
            (B, 1, D), the state that scores the next token.
        """
        del positions_BT, places_3BT
        media = self._media(insert)
        inputs_B1D = embeds_BTD
        if cache.encoded_BSD is None:
            cache.mask_BS = mask_BT if mask_BT is not None else embeds_BTD.new_ones(embeds_BTD.shape[:2]).long()
            cache.encoded_BSD = self._encode(embeds_BTD, cache.mask_BS, media)
            inputs_B1D = self._start(len(embeds_BTD))
        assert cache.mask_BS is not None
        return self._decode(inputs_B1D, cache.encoded_BSD, cache.mask_BS, cache.decoder)

    def _media(self, insert: Inserted | CrossMedia) -> CrossMedia | None:
        """What the encoder's own cross-attention reads; T5 has none."""
        _refuse_insert(insert)
        return None

    def _encode(self, embeds_BSD: Tensor, mask_BS: Tensor, media: CrossMedia | None) -> Tensor:
        """Hidden states of prompts."""
        del media
        output = self.lm.encoder(inputs_embeds=embeds_BSD, attention_mask=mask_BS.long())
        return output.last_hidden_state

    def _decode(
        self, inputs_BAD: Tensor, encoded_BSD: Tensor, mask_BS: Tensor, cache: Any = None
    ) -> Tensor:
        """Hidden states of answers."""
        return self.lm.decoder(
            inputs_embeds=inputs_BAD,
            encoder_hidden_states=encoded_BSD,
            encoder_attention_mask=mask_BS.long(),
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state

    def _start(self, count: int) -> Tensor:
        """The start token of `count` answers, (B, 1, D)."""
        config = self.lm.config
        start: int | None = getattr(config, "decoder_start_token_id", None)
        # T5 starts from padding where its config does not say.
        weight_VD = self.embedding.weight
        return weight_VD[config.pad_token_id if start is None else start].expand(count, 1, -1)


def _answers_begin(batch: Batch, real_BT: Tensor) -> Tensor:
    """Place of each row's first learned token, or the one behind its end, (B,)."""
    end_B = (real_BT * torch.arange(1, real_BT.shape[1] + 1, device=real_BT.device)).amax(dim=1)
    learn_BT = batch.learn_BT & real_BT
    begin_B = torch.where(learn_BT.any(dim=1), learn_BT.int().argmax(dim=1), end_B)
    if bool((learn_BT.sum(dim=1) != end_B - begin_B).any()):
        raise DataError(
            "a conversation with several answers",
            expected="one answer, at the end, for an encoder-decoder",
            fix="split the conversation, or skip such rows with on_bad_row: skip",
        )
    return begin_B


def _wide(places_BA: Tensor, like: Tensor) -> Tensor:
    """The same index for every dimension, (B, A, D)."""
    return places_BA[..., None].expand(-1, -1, like.shape[-1])


def _refuse_insert(insert: Inserted | CrossMedia) -> None:
    if insert is not None:
        raise ConfigError(
            "layers inserted into an encoder-decoder",
            fix="use fusion: splice with this language model",
        )
