"""States measured against their own mean and deviation over texts.

What an LLM makes of two texts differs by a tenth of what both share; a norm over one state's numbers leaves that so.

Shape legend: B items, K tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class StandardStates(nn.Module):
    """(B, K, D) -> (B, K, D). An item of zeros, which stands for nothing, stays zeros and counts for no mean."""

    def __init__(self, tokens: int, width: int, noise: float = 0.0) -> None:
        """
        Args:
            noise: deviation of what is added while it learns, of the states' own = 1.
        """
        super().__init__()
        self.standard = nn.BatchNorm1d(tokens * width, affine=False)
        self.noise = noise

    def forward(self, states_BKD: Tensor) -> Tensor:
        states_BX = states_BKD.flatten(1)
        given_B = states_BX.any(1)
        out_BX = torch.zeros_like(states_BX)
        out_BX[given_B] = self._standard(states_BX[given_B])
        return out_BX.view_as(states_BKD)

    def _standard(self, states_BX: Tensor) -> Tensor:
        norm = self.standard
        # A single item has no mean to be measured against but that of those before it.
        if not self.training or len(states_BX) < 2:
            return F.batch_norm(states_BX, norm.running_mean, norm.running_var, eps=norm.eps)
        standard_BX = norm(states_BX)
        return standard_BX + torch.randn_like(standard_BX) * self.noise if self.noise else standard_BX
