"""Visual tokens as weighted averages of the LLM's own word embeddings.

Source: AlignVLM (arXiv:2502.01341). A projected token scores every candidate word by its
scaled cosine with the word's embedding; the softmax of the scores weighs the embeddings. What
reaches the LLM lies among words it knows how to read, so little data teaches it to.

A word may take several tokens to spell. It is scored by the mean of their embeddings: by its
first token alone daffodil, daisy and dandelion would be one word.

Shape legend: N visual tokens, M items of L tokens (P in front of the map), D width, C candidate
words of up to K pieces (tokens), R best words in order, V vocabulary, S rank of their correction.
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
SHIFT_STD = 0.3


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
    whiten: float = Field(default=0.0, ge=0)
    """Above 0, words are told apart by whitened embeddings (`whitened`), with so many mean
    variances as ridge: embeddings of cat and dog are closer than pictures of them."""
    shift: int = Field(default=0, ge=0)
    """Rank of a learned correction of what words are told apart by, trained as the part
    `lookups.KIND`. What the LLM reads is unchanged: its own embeddings."""

    def out_grid(self, grid: Grid) -> Grid:
        """Layout after the lookup."""
        return Grid(grid.h, grid.w, grid.prefix * self.ranked) if self.ranked else grid


class VocabularyLookup(nn.Module):
    """Projected features -> averages of word embeddings; without candidates, what came in."""

    pieces_CK: Tensor

    def __init__(self, config: LookupConfig, width: int = 0) -> None:
        """Args:
            width: of embeddings, D; needed with `shift` only.
        """
        super().__init__()
        self.config = config
        self._noise = 0.0
        room = torch.full((config.words, config.pieces), UNUSED, dtype=torch.long)
        self.register_buffer("pieces_CK", room)
        self._whitened: tuple[tuple[int, ...], Tensor] | None = None
        if config.shift:
            # One side starts at zero, so that training starts from the embeddings themselves.
            self.shift_CS = nn.Parameter(torch.zeros(config.words, config.shift))
            self.basis_SD = nn.Parameter(torch.randn(config.shift, width) * SHIFT_STD)

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
        return self.blurred(scores_MPC, ranked).topk(ranked, dim=-1).indices

    def blurred(self, scores: Tensor, ranked: int, share: float = 1.0) -> Tensor:
        """Scores of words, (M, ..., C), while `noised` lasts with each picture's noise on the best of them, from which so many are
        to be ranked, and with no other ones.

        Args:
            share: of the noise.
        """
        if not self._noise:
            return scores
        best = scores.topk(min(POOL * ranked, scores.shape[-1]), dim=-1)
        gumbel = -torch.log(-torch.log(torch.rand_like(best.values).clamp(1e-9, 1 - 1e-7)))
        first = best.values[(slice(None), *(slice(0, 1),) * (scores.ndim - 1))]
        strength = share * self._noise * torch.rand_like(first) ** 4
        return torch.full_like(scores, -torch.inf).scatter(-1, best.indices, best.values + strength * gumbel)

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
        before_CK = self.pieces_CK.clone()
        self.pieces_CK.fill_(UNUSED)
        self.pieces_CK[:count, : pieces_CK.shape[1]] = pieces_CK.to(self.pieces_CK.device)
        if self.config.shift:
            self._move_shift(before_CK)

    @torch.no_grad()
    def _move_shift(self, before_CK: Tensor) -> None:
        """What was learnt about a word follows it to its new row."""
        row = {tuple(pieces): c for c, pieces in enumerate(before_CK.tolist())}
        old_CS = self.shift_CS.clone()
        self.shift_CS.zero_()
        for c, pieces in enumerate(self.pieces_CK.tolist()):
            if pieces[0] != UNUSED and tuple(pieces) in row:
                self.shift_CS[c] = old_CS[row[tuple(pieces)]]

    def keys(self, embedding_VD: Tensor) -> Tensor:
        """What visual tokens are compared with, one row for each word in use, (C, D)."""
        used_CK = self.pieces_CK[self.pieces_CK[:, 0] != UNUSED]
        words_CD = word_vectors(used_CK, embedding_VD)
        if self.config.whiten:
            words_CD = self._whiten_once(words_CD, embedding_VD)
        if not self.config.shift:
            return words_CD
        unit_CD = F.normalize(words_CD, dim=-1, eps=1e-6)
        return unit_CD + self.shift_CS[: len(used_CK)] @ self.basis_SD

    def _whiten_once(self, words_CD: Tensor, embedding_VD: Tensor) -> Tensor:
        """Whitened words, computed again only when words or embeddings have changed."""
        now = (embedding_VD.data_ptr(), embedding_VD._version, self.pieces_CK._version, len(words_CD))
        if self._whitened is None or self._whitened[0] != now:
            self._whitened = (now, whitened(words_CD.detach(), self.config.whiten))
        return self._whitened[1]

    def forward(self, features: Features, embedding_VD: Tensor) -> Features:
        """(N, D) tokens in any length -> (N, D) tokens among the words; with `ranked`, more."""
        used_CK = self.pieces_CK[self.pieces_CK[:, 0] != UNUSED]
        if not len(used_CK) and not self.config.ranked:
            return features
        if not len(used_CK):
            return map_items(features, self._repeated, self.config.out_grid)
        words_CD = word_vectors(used_CK, embedding_VD).to(features.values_ND.dtype)
        keys_CD = self.keys(embedding_VD).to(features.values_ND.dtype)

        def look_up(items_MLD: Tensor, grid: Grid) -> Tensor:
            scores_MLC = word_scores(items_MLD, keys_CD, self.config.scale)
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


def whitened(words_CD: Tensor, ridge: float) -> Tensor:
    """Words less their mean, spread evenly in all directions (ZCA, arXiv:1512.00809).

    Args:
        ridge: added to each direction's variance, in mean variances; the smaller, the more even.
    """
    centred_CD = (words_CD - words_CD.mean(dim=0)).double()
    variance_D, axes_DD = torch.linalg.eigh(centred_CD.T @ centred_CD / len(centred_CD))
    scale_D = (variance_D + ridge * variance_D.mean()).rsqrt()
    return (centred_CD @ (axes_DD * scale_D) @ axes_DD.T).to(words_CD.dtype)


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
