"""Text towers: they embed a text instead of going on with it.

CLIP's reads from left to right and ends in the state of the last token; SigLIP's reads both ways
and takes the last of always as many tokens, padding included. Sources: arXiv:2103.00020,
arXiv:2303.15343. The towers come from transformers; packed texts do not see each other.

Shape legend: B rows, T tokens, D width, N texts, J width of the space shared with pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sensorium.backbones.causal_lm import transformers_config
from sensorium.backbones.inserting import Insert
from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError
from sensorium.core.parts import BackboneConfig, TextFrame
from sensorium.nn.attention import segment_mask
from sensorium.nn.pretrained import from_config
from sensorium.nn.prompt_media import PromptMedia


@dataclass(frozen=True, slots=True)
class TowerKind:
    """What towers of one family are called in transformers."""

    class_name: str
    body: str
    """The module in it that reads; empty: itself."""
    head: str
    """The linear map into the shared space."""
    width: str
    """The config's name for the width of that space."""
    causal: bool
    frame: TextFrame
    """`longest` is replaced by the tower's own number of positions."""
    beside: tuple[str, ...]
    """Modules that a whole checkpoint holds beside the tower."""


KINDS = {
    "clip_text_model": TowerKind(
        "CLIPTextModelWithProjection", "text_model", "text_projection", "projection_dim",
        causal=True, frame=TextFrame(0),
        beside=("vision_model", "visual_projection", "logit_scale"),
    ),
    "siglip_text_model": TowerKind(
        "SiglipTextModel", "", "head", "projection_size",
        causal=False, frame=TextFrame(0, fill=True, bare=True),
        beside=("vision_model", "logit_scale", "logit_bias"),
    ),
}  # fmt: skip


class TextTowerConfig(BackboneConfig):
    """`arch` is the tower's own config as transformers writes it."""

    kind: Literal["text_tower"] = "text_tower"
    arch: dict[str, Any]

    @classmethod
    def tiny(cls) -> TextTowerConfig:
        return cls(
            tokenizer="bytes",
            arch={
                "model_type": "clip_text_model", "vocab_size": 512, "hidden_size": 48,
                "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
                "max_position_embeddings": 77, "projection_dim": 32,
            },
        )  # fmt: skip

    @property
    def tower_kind(self) -> TowerKind:
        """The family.

        Raises:
            ConfigError: it is not known.
        """
        name = self.arch.get("model_type")
        if name not in KINDS:
            raise ConfigError(
                f"a text tower of type {name!r}",
                expected=", ".join(KINDS),
                where="backbone.arch.model_type",
            )
        return KINDS[name]

    @property
    def d_model(self) -> int:
        return int(transformers_config(self.arch).hidden_size)

    @property
    def d_media(self) -> int:
        return int(getattr(transformers_config(self.arch), self.tower_kind.width))

    @property
    def vocab_size(self) -> int:
        return int(transformers_config(self.arch).vocab_size)

    @property
    def num_layers(self) -> int:
        return int(transformers_config(self.arch).num_hidden_layers)

    @property
    def max_positions(self) -> int:
        return int(transformers_config(self.arch).max_position_embeddings)

    @property
    def text_frame(self) -> TextFrame:
        frame = self.tower_kind.frame
        return TextFrame(self.max_positions, frame.fill, frame.bare)

    def build(self, folder: Path | None = None) -> TextTower:
        return TextTower(self, folder)


class WritesNothing:
    """What towers of texts answer where a language model would write."""

    def logits(self, hidden: Tensor) -> Tensor:
        """A text tower has no scores of words.

        Raises:
            ConfigError: always.
        """
        raise no_words()

    def new_cache(self) -> Any:
        """A text tower writes nothing.

        Raises:
            ConfigError: always.
        """
        raise no_words()


class TextTower(WritesNothing, nn.Module):
    """embed -> layers -> hidden states; and of these one embedding for each text."""

    def __init__(self, config: TextTowerConfig, folder: Path | None = None) -> None:
        super().__init__()
        import transformers

        self.config = config
        kind = config.tower_kind
        self.causal = kind.causal
        self.lm: Any = from_config(
            getattr(transformers, kind.class_name), transformers_config(config.arch), folder,
            beside=kind.beside,
        )  # fmt: skip

    @property
    def body(self) -> Any:
        """What reads: embeddings, layers and a norm."""
        return self.lm.get_submodule(self.config.tower_kind.body)

    @property
    def embedding(self) -> nn.Embedding:
        return self.lm.get_input_embeddings()

    def trainable_blocks(self) -> list[nn.Module]:
        """Layers from input to output, for training only the last few."""
        return list(self.body.encoder.layers)

    def add_prompts(self, layers: int, length: int, gate: str) -> None:
        """Text towers have no place for adaption prompts.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"{length} adaption prompts in {layers} layers of a text tower",
            expected="a language model",
            where="model.adapter",
            fix="use adapter: {kind: lora}, with the tower's own targets",
        )

    def embed(self, ids_BT: Tensor) -> Tensor:
        """(B, T) -> (B, T, D)."""
        return self.embedding(ids_BT)

    def teacher_forced(
        self, embeds_BTD: Tensor, batch: Batch, insert: Insert | PromptMedia | None = None
    ) -> Tensor:
        """Hidden states of all texts after the final norm, (B, T, D).

        Raises:
            ConfigError: layers are to be inserted.
        """
        if insert is not None:
            raise ConfigError(
                "layers inserted into a text tower", fix="use fusion: apart with this backbone"
            )
        body = self.body
        mask_B1TT = segment_mask(batch.segments_BT)
        if not self.causal:
            mask_B1TT = mask_B1TT | mask_B1TT.transpose(2, 3)
        # Not by the module's own forward pass, which takes no row longer than one text.
        hidden_BTD = embeds_BTD + body.embeddings.position_embedding(batch.positions_BT)
        hidden_BTD = body.encoder(inputs_embeds=hidden_BTD, attention_mask=mask_B1TT)
        return body.final_layer_norm(hidden_BTD.last_hidden_state)

    def pooled(self, hidden_BTD: Tensor, batch: Batch) -> Tensor:
        """The embedding of every text in reading order, (N, J): its last token's state, mapped."""
        follows_BT = torch.zeros_like(batch.segments_BT)
        follows_BT[:, :-1] = batch.segments_BT[:, 1:]
        last_BT = (batch.segments_BT > 0) & (follows_BT != batch.segments_BT)
        return self.lm.get_submodule(self.config.tower_kind.head)(hidden_BTD[last_BT])


def no_words() -> ConfigError:
    """The error for whoever wants text from such a model."""
    return ConfigError(
        "this model embeds pictures and texts, and writes nothing",
        expected="a model with a language model",
        fix="compare with `similarity`, or name with `classify`, of what sensorium.load returns",
    )
