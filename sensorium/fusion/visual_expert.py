"""Features in the places of placeholders, and second weights of the LLM for them.

CogVLM (arXiv:2311.03079; github.com/THUDM/CogVLM, utils/models/mixin.py): a picture's tokens run
through copies of all matrices of all decoder layers, which start equal to the LLM's; attention, causal
over the picture too, and norms are shared. A picture stands between two learned tokens, `boi` and
`eoi`: the first is an expert's token, the second is not. All tokens between them have one position.

Shape legend: B rows, T tokens, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sensorium.core.parts import FusionConfig
from sensorium.fusion.splice import Splice
from sensorium.nn.token_experts import LayerWork, TokenExperts, linear_paths


class VisualExpertConfig(FusionConfig):
    """The sizes are the LLM's."""

    kind: Literal["visual_expert"] = "visual_expert"
    ends: bool = True
    """Whether the projector puts two learned tokens around a picture (`ends` of `glu`)."""

    @classmethod
    def tiny(cls) -> VisualExpertConfig:
        return cls()

    @property
    def fills_slots(self) -> bool:
        return True

    def same_position(self, count: int) -> range:
        return range(2, count - 1) if self.ends else range(1, count)

    def build(self, d_model: int, num_layers: int, d_media: int) -> VisualExpert:
        return VisualExpert(self)


class VisualExpert(Splice):
    """Holds the experts; the backbone runs them."""

    def __init__(self, config: VisualExpertConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList()

    def adopt(self, layers: Sequence[nn.Module]) -> None:
        """Copy all linear layers of the decoder layers."""
        self.layers = nn.ModuleList(map(_copied, layers))

    def inserter(
        self, context: Any, media_index_BT: Tensor, slots: Mapping[str, Tensor]
    ) -> TokenExperts | LayerWork | None:
        """The experts and their tokens; None where there are none."""
        return self.experts(media_index_BT, slots)

    def experts(self, media_index_BT: Tensor, slots: Mapping[str, Tensor]) -> TokenExperts | None:
        """The experts and their tokens; None where there are none."""
        if not slots:
            return None
        mask_BT = torch.stack(list(slots.values())).any(dim=0)
        if self.config.ends:
            # The last token of each medium is the LLM's own.
            goes_on_BT = mask_BT[:, 1:] & (media_index_BT[:, 1:] == media_index_BT[:, :-1])
            mask_BT = mask_BT & torch.cat([goes_on_BT, torch.zeros_like(mask_BT[:, :1])], dim=1)
        return TokenExperts(self.layers, mask_BT)


def _copied(layer: nn.Module) -> nn.Module:
    """The linear layers of a decoder layer alone, at the same paths."""
    copied = nn.Module()
    for path in linear_paths(layer):
        *parents, name = path.split(".")
        home = copied
        for parent in parents:
            if parent not in dict(home.named_children()):
                home.add_module(parent, nn.Module())
            home = home.get_submodule(parent)
        home.add_module(name, copy.deepcopy(layer.get_submodule(path)))
    return copied
