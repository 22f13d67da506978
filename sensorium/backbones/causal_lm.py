"""Any transformers causal language model behind one small interface.

Shape legend: B rows, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from sensorium.backbones.adaption_prompt import GateName, add_prompts
from sensorium.backbones.arch_file import transformers_config, with_arch
from sensorium.backbones.inserting import Inserted, inserted
from sensorium.backbones.logit_quirks import logit_quirks
from sensorium.backbones.mrope_lm import MROPE_TYPES, mrope_lm
from sensorium.backbones.packed_mask import packed_mask
from sensorium.backbones.prefix import Prefix, build_prefix
from sensorium.backbones.quantised import quantise
from sensorium.backbones.recorded import Recorded
from sensorium.backbones.segments import can_segment, run_segments, segments_on
from sensorium.backbones.shared_beginnings import share_beginnings
from sensorium.backbones.token_experts import check_experts
from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError
from sensorium.core.parts import BackboneConfig
from sensorium.nn.pretrained import from_config, from_folder
from sensorium.nn.segment_attention import layout_of
from sensorium.nn.token_experts import LayerWork, TokenExperts


class CausalLMConfig(BackboneConfig):
    """`arch` is the model's own config.json as transformers writes it."""

    kind: Literal["causal_lm"] = "causal_lm"
    arch: dict[str, Any]
    """Left out: that of the folder of `weights`."""
    quantise: Literal["nf4"] | None = None
    """Linear layers in four bits, frozen, for an adapter to learn beside them (`backbones/quantised.py`)."""
    stretched_beyond: int | None = Field(default=None, ge=2)
    """Of the first Qwen: tokens of a row beyond which answers are read with a larger rotary base and sharper queries (`backbones/stretching.py`)."""

    @model_validator(mode="before")
    @classmethod
    def _arch_of_folder(cls, values: Any) -> Any:
        return with_arch(values)

    @classmethod
    def tiny(cls) -> CausalLMConfig:
        return cls(
            tokenizer="bytes",
            arch={
                "model_type": "llama",
                "vocab_size": 512,
                "hidden_size": 48,
                "intermediate_size": 96,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 512,
                "tie_word_embeddings": True,
            }
        )

    @property
    def d_model(self) -> int:
        return self._number("word_embed_proj_dim", "hidden_size", "n_embd", "d_model")

    @property
    def vocab_size(self) -> int:
        return self._number("vocab_size")

    @property
    def num_layers(self) -> int:
        return self._number("num_hidden_layers", "n_layer", "n_layers")

    @property
    def mrope(self) -> bool:
        return self.arch.get("model_type") in MROPE_TYPES

    @property
    def max_positions(self) -> int:
        return self._number("max_position_embeddings", "n_positions", "max_seq_len")

    def _number(self, *names: str) -> int:
        for name in names:
            if isinstance(self.arch.get(name), int):
                return int(self.arch[name])
        # The file may leave out what equals the class default.
        config = transformers_config(self.arch)
        for name in names:
            if isinstance(getattr(config, name, None), int):
                return int(getattr(config, name))
        raise ConfigError(f"backbone config has none of {', '.join(names)}")

    def build(self, folder: Path | None = None) -> CausalLM:
        return CausalLM(self, folder)


class CausalLM(nn.Module):
    """embed -> decoder layers -> logits, with optional work between the layers."""

    def __init__(self, config: CausalLMConfig, folder: Path | None = None) -> None:
        super().__init__()
        self.config = config
        hf_config = transformers_config(config.arch)
        self.lm: Any = self._language_model(hf_config, folder)
        if config.quantise is not None:
            quantise(self.lm, sourced=folder is not None)
        if config.stretched_beyond is not None:
            self._stretch(config.stretched_beyond)
        self.logit_scale, self.logit_softcap = logit_quirks(hf_config)
        self.prefix_tuning: Prefix | None = None
        self.recorded: Recorded | None = None

    def _stretches(self, batch: Batch) -> bool:
        """Whether a row is read otherwise because it is long."""
        length = self.config.stretched_beyond
        return length is not None and not self.lm.training and int(batch.positions_BT.max()) >= length

    def _stretch(self, length: int) -> None:
        from sensorium.backbones.stretching import stretch

        if self.lm.config.model_type != "qwen2":
            raise ConfigError(f"stretched_beyond for a {self.lm.config.model_type}", expected="qwen2", where="backbone.stretched_beyond")
        stretch(self.lm, length)

    def _language_model(self, hf_config: Any, folder: Path | None) -> Any:
        """The transformers model, with the weights in `folder` or random ones."""
        from transformers import AutoModelForCausalLM

        if self.config.mrope:
            return from_config(mrope_lm(self.config.arch["model_type"]), hf_config, folder)
        if folder is None:
            return AutoModelForCausalLM.from_config(hf_config)
        if not self.config.added_tokens:
            return from_folder(AutoModelForCausalLM, hf_config, folder)
        stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
        smaller = transformers_config(self.config.arch | {"vocab_size": stored})
        lm = from_folder(AutoModelForCausalLM, smaller, folder)
        lm.resize_token_embeddings(self.config.vocab_size, mean_resizing=False)
        return lm

    @property
    def decoder(self) -> nn.Module:
        return self.lm.base_model

    @property
    def embedding(self) -> nn.Embedding:
        return self.lm.get_input_embeddings()

    def decoder_layers(self) -> list[nn.Module]:
        """The decoder layers in order."""
        inner: Any = getattr(self.decoder, "decoder", self.decoder)
        for name in ("layers", "h", "blocks"):
            if isinstance(getattr(inner, name, None), nn.ModuleList):
                return list(getattr(inner, name))
        raise ConfigError(f"no list of decoder layers in {type(self.decoder).__name__}", fix="use fusion: splice with this language model")

    def trainable_blocks(self) -> list[nn.Module]:
        """Layers from input to output, for training only the last few."""
        return self.decoder_layers()

    def add_prompts(self, layers: int, length: int, gate: GateName) -> None:
        """Give each of the last layers an adaption prompt.

        Raises:
            ConfigError: the language model cannot have them.
        """
        add_prompts(self.lm.config.model_type, self.decoder_layers(), layers, length, gate)

    def add_prefix(self, length: int, hidden: int | None) -> None:
        """Put learned keys and values in front of every row.

        Raises:
            ConfigError: the language model cannot have them.
        """
        self.prefix_tuning = build_prefix(self.lm.config, length, hidden, self.embedding.weight)

    def layers_for_experts(self) -> list[nn.Module]:
        """The decoder layers, whose linear layers get experts.

        Raises:
            ConfigError: the language model cannot have them.
        """
        check_experts(self.lm.config)
        return self.decoder_layers()

    def embed(self, ids_BT: Tensor) -> Tensor:
        """(B, T) -> (B, T, D)."""
        return self.embedding(ids_BT)

    def new_cache(self) -> Any:
        """An empty cache for one batch of answers."""
        from transformers import DynamicCache

        if self.config.stretched_beyond is not None:
            from sensorium.backbones.stretching import StretchedCache

            return StretchedCache()
        return DynamicCache()

    def teacher_forced(self, embeds_BTD: Tensor, batch: Batch, insert: Inserted = None) -> Tensor:
        """Hidden states of whole rows, answers included, (B, T, D)."""
        plain = insert is None and batch.places_3BT is None and self.prefix_tuning is None
        wanted_BT = batch.in_front_of_learned() if plain and batch.answers_only else None
        if plain and self.recorded is not None and self.recorded.fits(embeds_BTD, batch.branches_BT):
            return self.recorded.run(embeds_BTD, batch.positions_BT, batch.segments_BT, wanted_BT)
        if plain and not self._stretches(batch) and can_segment(self.lm) and segments_on(self.lm, embeds_BTD, batch.branches_BT):
            layout = share_beginnings(self.lm, layout_of(batch.segments_BT, batch.branches_BT, wanted_BT), embeds_BTD, batch)
            return run_segments(self.lm, embeds_BTD, batch.positions_BT, layout)
        return self(
            embeds_BTD,
            positions_BT=batch.positions_BT,
            places_3BT=batch.places_3BT,
            segments_BT=batch.segments_BT if batch.packed else None,
            branches_BT=batch.branches_BT if batch.packed else None,
            # Causal attention hides what stands behind a token, and so padding on the right.
            mask_BT=(batch.segments_BT > 0).long() if batch.padded_left else None,
            insert=insert,
        )

    def forward(
        self,
        embeds_BTD: Tensor,
        *,
        positions_BT: Tensor,
        places_3BT: Tensor | None = None,
        segments_BT: Tensor | None = None,
        branches_BT: Tensor | None = None,
        mask_BT: Tensor | None = None,
        cache: Any = None,
        insert: Inserted = None,
    ) -> Tensor:
        """Last hidden states, after the final norm.

        Args:
            places_3BT: time, row and column of each token, for an LLM with M-RoPE. Without them all
                three are `positions_BT`.
            segments_BT: given where rows hold several samples; attention stays inside one.
            branches_BT: given with it; attention stays inside one of a sample's separate turns
                and what they share, which is 0.
            mask_BT: given where rows are padded on the left: 1 for real tokens, covering
                cached positions too.
            cache: a transformers cache to read and extend.
            insert: work between the layers, what media add to the adaption prompts, or experts.

        Raises:
            ConfigError: rows hold several samples and some layers are not attention.
        """
        mask: Any = mask_BT
        if segments_BT is not None:
            mask = self._packed_mask(segments_BT, positions_BT, branches_BT)
        elif mask is None and positions_BT.shape[1] > 1 and isinstance(insert, TokenExperts | LayerWork):
            # Without a mask transformers takes equal positions for the begin of another sample.
            # Several tokens at once are whole rows: nothing is cached in front of them.
            mask = torch.ones_like(positions_BT)
        # In transformers' order: what masks go by, then what queries and keys are turned by.
        position_ids = positions_BT if places_3BT is None else torch.cat([positions_BT[None], places_3BT])
        if self.prefix_tuning is not None:
            position_ids = position_ids + self.prefix_tuning.length
            cache = self.prefix_tuning.filled(cache, embeds_BTD)
            if segments_BT is None and mask is not None:
                mask = self.prefix_tuning.in_front(mask)
        with inserted(insert, self.lm, self.decoder_layers):
            return self._decode(embeds_BTD, position_ids, mask, cache)

    def _decode(self, embeds_BTD: Tensor, position_ids: Tensor, mask: Any, cache: Any) -> Tensor:
        """Run the decoder; the mask is that of `forward`, or the one of packed rows."""
        return self.decoder(
            inputs_embeds=embeds_BTD, position_ids=position_ids, attention_mask=mask,
            past_key_values=cache, use_cache=cache is not None,
        ).last_hidden_state  # fmt: skip

    def _packed_mask(
        self, segments_BT: Tensor, positions_BT: Tensor, branches_BT: Tensor | None
    ) -> Tensor | dict[str, Tensor]:
        """One mask, or one for each type of layer where a decoder mixes several."""
        config = self.lm.config.get_text_config()
        found = packed_mask(config, segments_BT, positions_BT, branches_BT)
        if self.prefix_tuning is not None:
            found = {kind: self.prefix_tuning.in_front(allowed) for kind, allowed in found.items()}
        masks = {kind: self._native(allowed) for kind, allowed in found.items()}
        # Decoders of one type throughout take the mask itself, not all of them a dict.
        return masks if len(masks) > 1 else next(iter(masks.values()))

    def _native(self, allowed: Tensor) -> Tensor:
        """Families without a fused kernel add their mask to the scores."""
        if getattr(self.lm.config, "_attn_implementation", None) != "eager":
            return allowed
        dtype = self.embedding.weight.dtype
        blocked = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=allowed.device)
        return torch.where(allowed, torch.zeros_like(blocked), blocked)

    @property
    def head(self) -> tuple[Tensor, float] | None:
        """The matrix (V, D) that makes logits, and their scale; None: there is more to it, such as an
        adapter, a bias or a soft cap."""
        head = self.lm.get_output_embeddings()
        if type(head) is not nn.Linear or head.bias is not None or self.logit_softcap is not None:
            return None
        return head.weight, self.logit_scale

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        logits = self.lm.get_output_embeddings()(hidden)
        if self.logit_scale != 1.0:
            logits = logits * self.logit_scale
        if self.logit_softcap is not None:
            logits = torch.tanh(logits / self.logit_softcap) * self.logit_softcap
        return logits
