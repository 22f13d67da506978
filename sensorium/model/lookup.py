"""Visual tokens as weighted averages of the LLM's own word embeddings.

Source: AlignVLM (arXiv:2502.01341). A projected token scores every candidate word by its
scaled cosine with the word's embedding; the softmax of the scores weighs the embeddings. What
reaches the LLM lies among words it knows how to read, so little data teaches it to.

A word may take several tokens to spell. It is scored by the mean of their embeddings: by its
first token alone daffodil, daisy and dandelion would be one word.

Shape legend: N visual tokens, M items of L tokens (P in front of the map), D width, C candidate
words of up to K pieces (tokens), R best words in order, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Features, Grid
from sensorium.core.config import Config
from sensorium.core.errors import ConfigError
from sensorium.nn.ragged import map_items

UNUSED = -1
# With noise, ranked words are drawn from so many times their number.
POOL = 4


class LookupConfig(Config):
    """Room for `words` candidates; the vocabulary objective chooses them from its captions."""

    words: int = 8192
    pieces: int = Field(default=4, ge=1)
    """Longer words lose their end."""
    scale: float = 50.0
    """Cosines are multiplied by it: the larger, the fewer words share a token."""
    ranked: int = Field(default=0, ge=0)
    """Each token in front of the map becomes so many tokens: its best words spelt out, best
    first, as tags of the picture (RAM, arXiv:2306.03514); the last one may be cut. An average
    hides all but its heaviest words."""

    def out_grid(self, grid: Grid) -> Grid:
        """Layout after the lookup."""
        return Grid(grid.h, grid.w, grid.prefix * self.ranked) if self.ranked else grid


class VocabularyLookup(nn.Module):
    """Projected features -> averages of word embeddings; without candidates, what came in."""

    pieces_CK: Tensor

    def __init__(self, config: LookupConfig) -> None:
        super().__init__()
        self.config = config
        self._noise = 0.0
        room = torch.full((config.words, config.pieces), UNUSED, dtype=torch.long)
        self.register_buffer("pieces_CK", room)

    @contextmanager
    def noised(self, noise: float) -> Iterator[None]:
        """Make the order of ranked words less certain than it is, while the block lasts.

        Pictures that taught the words have the true ones in front, new ones often do not; a
        language model that saw only the former would take them at their word. Each picture's
        scores get Gumbel noise, drawn anew, so that words come in as many orders as a softmax
        would sample them (arXiv:1903.06059). Its strength is `noise` times a fourth power of a
        number between 0 and 1, mostly small and now and then large: of new pictures, too, most
        are either recognised or not at all.
        """
        before, self._noise = self._noise, noise
        try:
            yield
        finally:
            self._noise = before

    def _ranks(self, scores_MPC: Tensor) -> Tensor:
        """The best words of each token, best first, (M, P, R)."""
        ranked = self.config.ranked
        if not self._noise:
            return scores_MPC.topk(ranked, dim=-1).indices
        best = scores_MPC.topk(min(POOL * ranked, scores_MPC.shape[-1]), dim=-1)
        gumbel = -torch.log(-torch.log(torch.rand_like(best.values).clamp(1e-9, 1 - 1e-7)))
        strength_M11 = self._noise * torch.rand_like(best.values[:, :1, :1]) ** 4
        order_MPR = (best.values + strength_M11 * gumbel).topk(ranked, dim=-1).indices
        return best.indices.gather(-1, order_MPR)

    def choose(self, pieces_CK: Tensor) -> None:
        """Make these words, spelt in token ids and filled up with `UNUSED`, the candidates.

        Raises:
            ConfigError: there are more than the config has room for, or fewer than `ranked`.
        """
        count = len(pieces_CK)
        if count > self.config.words:
            raise ConfigError(
                f"{count} candidate words",
                expected=f"at most {self.config.words}",
                where="lookup.words",
                fix="raise lookup.words",
            )
        if count < self.config.ranked:
            raise ConfigError(
                f"{count} candidate words",
                expected=f"at least {self.config.ranked}, as many as a token becomes",
                where="lookup.ranked",
                fix="lower lookup.ranked, or give captions with more words",
            )
        self.pieces_CK.fill_(UNUSED)
        self.pieces_CK[:count, : pieces_CK.shape[1]] = pieces_CK.to(self.pieces_CK.device)

    def forward(self, features: Features, embedding_VD: Tensor) -> Features:
        """(N, D) tokens in any length -> (N, D) tokens among the words; with `ranked`, more."""
        used_CK = self.pieces_CK[self.pieces_CK[:, 0] != UNUSED]
        if not len(used_CK) and not self.config.ranked:
            return features
        if not len(used_CK):
            return map_items(features, self._repeated, self.config.out_grid)
        words_CD = word_vectors(used_CK, embedding_VD).to(features.values_ND.dtype)

        def look_up(items_MLD: Tensor, grid: Grid) -> Tensor:
            scores_MLC = word_scores(items_MLD, words_CD, self.config.scale)
            if not self.config.ranked:
                return scores_MLC.softmax(dim=-1) @ words_CD
            ranks_MPR = self._ranks(scores_MLC[:, : grid.prefix])
            spelt_MPRD = embedding_VD[spelt_out(used_CK, ranks_MPR)].to(words_CD.dtype)
            averages_MLD = scores_MLC[:, grid.prefix :].softmax(dim=-1) @ words_CD
            return torch.cat([spelt_MPRD.flatten(1, 2), averages_MLD], dim=1)

        return map_items(features, look_up, self.config.out_grid)

    def _repeated(self, items_MLD: Tensor, grid: Grid) -> Tensor:
        """Before words are chosen, a token stands in all the places that its words will have."""
        front_MPD = items_MLD[:, : grid.prefix].repeat_interleave(self.config.ranked, dim=1)
        return torch.cat([front_MPD, items_MLD[:, grid.prefix :]], dim=1)


def word_scores(tokens_ND: Tensor, words_CD: Tensor, scale: float) -> Tensor:
    """Scaled cosines, (..., C)."""
    return scale * F.normalize(tokens_ND, dim=-1, eps=1e-6) @ F.normalize(words_CD, dim=-1).T


def word_vectors(pieces_CK: Tensor, embedding_VD: Tensor) -> Tensor:
    """The mean embedding of each word's pieces, (C, D)."""
    used_CK1 = (pieces_CK != UNUSED)[..., None]
    pieces_CKD = embedding_VD[pieces_CK.clamp(min=0)] * used_CK1
    return pieces_CKD.sum(dim=1) / used_CK1.sum(dim=1)


def spelt_out(pieces_CK: Tensor, ranks_MPR: Tensor) -> Tensor:
    """The first R token ids of R words written one after another, (M, P, R)."""
    ids_MPS = pieces_CK[ranks_MPR].flatten(2)
    # A stable sort moves what is unused to the end and leaves the rest in order.
    used_first_MPS = (ids_MPS == UNUSED).to(torch.uint8).argsort(dim=-1, stable=True)
    return ids_MPS.gather(-1, used_first_MPS)[..., : ranks_MPR.shape[-1]]
