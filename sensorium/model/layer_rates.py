"""A learning rate that falls from layer to layer, from a part's output to its input.

BEiT (arXiv:2106.08254; github.com/microsoft/unilm, beit/optim_factory.py): of L blocks, block i counted
from 1 learns at the rate times decay ** (L + 1 - i), what stands in front of the blocks at decay **
(L + 1), and what comes behind them at the rate itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn import Parameter

if TYPE_CHECKING:
    from sensorium.model.learning import Learn

Pairs = list[tuple[str, Parameter]]


def by_layer(learn: Learn, pairs: Pairs, part: nn.Module, blocks: list[nn.Module]) -> list[tuple[Learn, Pairs]]:
    """An entry of `learns` as one for each rate, from the input on.

    Args:
        pairs: what learns of the part.
        part: the whole part, whose parameters stand in the order of its computation.
        blocks: all of its blocks, from input to output.
    """
    depth_of = {id(p): i for i, block in enumerate(blocks, start=1) for p in block.parameters()}
    # Before the first parameter of a block, all belong to the input; behind it, to the output.
    seen = False
    for parameter in part.parameters():
        seen = seen or id(parameter) in depth_of
        depth_of.setdefault(id(parameter), len(blocks) + 1 if seen else 0)
    made: dict[int, Pairs] = {}
    for name, parameter in pairs:
        made.setdefault(depth_of[id(parameter)], []).append((name, parameter))
    decay = 1.0 if learn.layer_decay is None else learn.layer_decay
    return [
        (learn.model_copy(update={"lr": learn.lr * decay ** (len(blocks) + 1 - depth)}), made[depth])
        for depth in sorted(made)
    ]
