"""Losses between the condition that a projector makes and the one it should make, one number for each item.

Sources: `l2` is GILL's (gill/losses.py) and NExT-GPT's (nextgpt_llama.py) function of that name: the Euclidean norm of
each token's difference, not squared, averaged over tokens; `mse` is MiniGPT-5's of caption features (model.py). Both
originals average over items, too.

Shape legend: B items, L condition tokens, C condition width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

ConditionLossName = Literal["l2", "mse", "cosine"]


def token_norm_loss(made_BLC: Tensor, wanted_BLC: Tensor) -> Tensor:
    """Mean length of the tokens' differences, (B,). Where there is no difference, the gradient is zero; the
    originals' is not a number there."""
    return torch.linalg.vector_norm(_difference(made_BLC, wanted_BLC), dim=-1).mean(dim=-1)


def mse_loss(made_BLC: Tensor, wanted_BLC: Tensor) -> Tensor:
    """Mean squared difference of all values, (B,)."""
    return _difference(made_BLC, wanted_BLC).square().mean(dim=(-2, -1))


def cosine_loss(made_BLC: Tensor, wanted_BLC: Tensor) -> Tensor:
    """One minus the mean cosine of the tokens, (B,)."""
    _same_shape(made_BLC, wanted_BLC)
    return 1 - F.cosine_similarity(made_BLC.float(), wanted_BLC.float(), dim=-1).mean(dim=-1)


CONDITION_LOSSES: Mapping[ConditionLossName, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": token_norm_loss,
    "mse": mse_loss,
    "cosine": cosine_loss,
}


def _difference(made_BLC: Tensor, wanted_BLC: Tensor) -> Tensor:
    _same_shape(made_BLC, wanted_BLC)
    return made_BLC.float() - wanted_BLC.float()


def _same_shape(made_BLC: Tensor, wanted_BLC: Tensor) -> None:
    """Shapes that differ would be broadcast, and the loss be that of something else.

    Raises:
        ValueError: they differ.
    """
    if made_BLC.shape != wanted_BLC.shape:
        raise ValueError(f"a condition of shape {tuple(made_BLC.shape)} beside a target of {tuple(wanted_BLC.shape)}")
