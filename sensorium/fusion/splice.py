"""Token-level fusion: features take the places of placeholder tokens.

Shape legend: B rows, T tokens, D width, N features laid end to end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from sensorium.core.batch import Features, MediaBatch
from sensorium.core.errors import AlignmentError
from sensorium.core.parts import FusionConfig


class SpliceConfig(FusionConfig):
    """LLaVA and all its relatives."""

    kind: Literal["splice"] = "splice"

    @classmethod
    def tiny(cls) -> SpliceConfig:
        return cls()

    @property
    def fills_slots(self) -> bool:
        return True

    def build(self, d_model: int, num_layers: int, d_media: int) -> Splice:
        return Splice()


class Splice(nn.Module):
    """Has no parameters and inserts nothing between layers."""

    def enter(
        self, embeds_BTD: Tensor, features: Mapping[str, Features], slots: Mapping[str, Tensor]
    ) -> Tensor:
        """The embeddings with each kind's features in its slots."""
        for kind, feats in features.items():
            embeds_BTD = splice(embeds_BTD, feats.values_ND, slots[kind], kind)
        return embeds_BTD

    def context(
        self, features: Mapping[str, Features], media: Mapping[str, MediaBatch], rows: int
    ) -> Any:
        """Nothing is kept for later layers."""

    def inserter(
        self, context: Any, media_index_BT: Tensor, slots: Mapping[str, Tensor]
    ) -> Any:
        """Nothing runs between layers."""
        return None


def splice(embeds_BTD: Tensor, feats_ND: Tensor, slots_BT: Tensor, kind: str = "image") -> Tensor:
    """Put the n-th feature into the n-th slot, in reading order.

    Raises:
        AlignmentError: the counts differ.
    """
    num_slots, num_feats = int(slots_BT.sum()), len(feats_ND)
    if num_slots != num_feats:
        raise AlignmentError(
            f"{num_slots} {kind} placeholder tokens but {num_feats} {kind} features",
            expected="equal counts",
            fix="build the batch with the Processor of this very model "
            "(it expands each medium by the projector's num_tokens)",
        )
    return embeds_BTD.masked_scatter(slots_BT.unsqueeze(-1), feats_ND.to(embeds_BTD.dtype))
