"""Features that are added to the LLM's adaption prompts.

LLaMA-Adapter (arXiv:2303.16199, section 3.3): one global feature of a picture, added to every
vector of every prompt; LLaMA-Adapter V2 in the authors' repository: as many features as a prompt
has vectors, each added to its own. The prompts are the model's adapter (`adapter: {kind:
adaption_prompt}`); no token of the text stands for the picture, and all of them see it.

Shape legend: B rows, T tokens, M media of a row and one place for none, K features of a medium,
D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sensorium.core.batch import Features, MediaBatch
from sensorium.core.errors import AlignmentError, ConfigError
from sensorium.core.parts import FusionConfig
from sensorium.nn.prompt_media import PromptMedia


class VisualPromptConfig(FusionConfig):
    """Has no sizes of its own."""

    kind: Literal["visual_prompt"] = "visual_prompt"

    @classmethod
    def tiny(cls) -> VisualPromptConfig:
        return cls()

    @property
    def fills_slots(self) -> bool:
        return False

    @property
    def reaches_back(self) -> bool:
        return True

    def build(self, d_model: int, num_layers: int, d_media: int) -> VisualPrompt:
        """The module.

        Raises:
            ConfigError: features are not as wide as prompts.
        """
        if d_media != d_model:
            raise ConfigError(
                f"features of width {d_media} for prompts of width {d_model}",
                fix="set project: true on the projector",
            )
        return VisualPrompt()


@dataclass(frozen=True, slots=True)
class RowMedia:
    """Media by row, padded: `owner_BM` is the 1-based medium, counted over the whole batch; 0 at
    the place for none, -1 for padding."""

    added_BMKD: Tensor
    owner_BM: Tensor


class VisualPrompt(nn.Module):
    """Has no parameters: the prompts, which are the adapter, do the work."""

    def enter(
        self, embeds_BTD: Tensor, features: Mapping[str, Features], slots: Mapping[str, Tensor]
    ) -> Tensor:
        """The token sequence stays as it is."""
        return embeds_BTD

    def context(
        self, features: Mapping[str, Features], media: Mapping[str, MediaBatch], rows: int
    ) -> RowMedia | None:
        """Lay the media of each row side by side; None where there are none.

        Raises:
            AlignmentError: media have different numbers of features.
        """
        found = [
            (row, piece)
            for kind, feats in features.items()
            for row, piece in zip(media[kind].rows, feats.values_ND.split(feats.lengths), strict=True)
        ]
        if not found:
            return None
        counts = {len(piece) for _, piece in found}
        if len(counts) > 1:
            raise AlignmentError(
                f"media of {sorted(counts)} features each", expected="as many of every medium"
            )
        nothing = torch.zeros_like(found[0][1])
        added: list[list[Tensor]] = [[nothing] for _ in range(rows)]
        owner: list[list[int]] = [[0] for _ in range(rows)]
        for number, (row, piece) in enumerate(found, start=1):
            added[row].append(piece)
            owner[row].append(number)
        most = max(map(len, owner))
        added_BMKD = torch.stack([torch.stack(row + [nothing] * (most - len(row))) for row in added])
        padded = [row + [-1] * (most - len(row)) for row in owner]
        return RowMedia(added_BMKD, torch.tensor(padded, device=nothing.device))

    def inserter(
        self, context: RowMedia | None, media_index_BT: Tensor, slots: Mapping[str, Tensor]
    ) -> PromptMedia | None:
        """What the backbone hands to the prompts."""
        if context is None:
            return None
        return PromptMedia(
            context.added_BMKD, media_index_BT[:, :, None] == context.owner_BM[:, None, :]
        )
