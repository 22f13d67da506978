"""Pictures blended in pairs, as features, with their targets.

Source: mixup (arXiv:1710.09412), applied to hidden features (arXiv:1806.05236). What is between
two pictures must be told as what is between their words, which small sets do not teach by heart.

Shape legend: M pictures of L tokens, D width.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from sensorium.core.batch import Features
from sensorium.core.errors import ConfigError


def draw_blend(count: int, strength: float, like: Tensor) -> Tensor:
    """Rows that say what each picture becomes: the larger part itself, the rest another one.

    Args:
        strength: both parameters of the Beta distribution that the parts are drawn from.

    Returns:
        (M, M), rows sum to 1, on the device and in the type of `like`.
    """
    beta = torch.distributions.Beta(strength, strength)
    drawn_M = beta.sample((count,))
    own_M = torch.maximum(drawn_M, 1 - drawn_M)
    other_MM = torch.eye(count)[torch.randperm(count)]
    return (torch.diag(own_M) + (1 - own_M)[:, None] * other_MM).to(like)


def blend_features(features: Features, blend_MM: Tensor) -> Features:
    """The features of blended pictures, token by token.

    Raises:
        ConfigError: the pictures have features of several layouts.
    """
    if len(set(features.grids)) > 1:
        raise ConfigError(
            f"features of {len(set(features.grids))} layouts in a batch",
            expected="one, to blend pictures",
            where="objective.mix",
            fix="mix: 0, or fixed resolution",
        )
    items_MLD = features.values_ND.unflatten(0, (len(features.grids), -1))
    mixed_MLD = torch.einsum("mn,nld->mld", blend_MM, items_MLD)
    return dataclasses.replace(features, values_ND=mixed_MLD.flatten(0, 1))
