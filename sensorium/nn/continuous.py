"""Continuous embeddings one after another: the LLM reads each that it has made before it makes the next.

Source: Emu (arXiv:2307.05222) and Emu2 (arXiv:2312.13286), github.com/baaivision/Emu, `generate_image` in
Emu1/models/modeling_emu.py and Emu2/emu/emu.py. There everything is computed anew for each embedding; attention looks
back only, so that going on from a cache gives the same.

Shape legend: B items, N embeddings, D LLM width, C width of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor


def continuous_embeddings(
    head: Callable[[Tensor], Tensor], step: Callable[[Tensor], Tensor], hidden_BD: Tensor, count: int
) -> Iterator[Tensor]:
    """Yield `count` embeddings, (B, C) each.

    Args:
        head: a state (B, D) -> the embedding (B, C) that it predicts.
        step: an embedding (B, C) -> the LLM's state (B, D) after reading it. Emu2's brings it to the LLM's width
            first. It is not called for the last one.
        hidden_BD: the state at the token that begins the picture.
    """
    for left in range(count, 0, -1):
        embedding_BC = head(hidden_BD)
        yield embedding_BC
        if left > 1:
            hidden_BD = step(embedding_BC)
