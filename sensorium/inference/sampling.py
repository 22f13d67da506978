"""From logits to the next token.

Shape legend: B rows, V vocabulary.
"""

from __future__ import annotations

import torch
from pydantic import model_validator
from torch import Tensor

from sensorium.core.config import Config
from sensorium.core.errors import ConfigError


class Sampling(Config):
    """temperature 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    """0: all words."""
    repetition_penalty: float = 1.0
    beams: int = 1
    """More than 1: a search with so many beams, without chance."""
    seed: int = 0

    @model_validator(mode="after")
    def _in_range(self) -> Sampling:
        # Built by hand more often than read from a file, and refused alike in both ways.
        fits = {
            "temperature": (self.temperature >= 0, "0 (greedy) or more"),
            "beams": (self.beams >= 1, "1 (no search) or more"),
            "top_p": (0 < self.top_p <= 1, "more than 0, at most 1"),
            "top_k": (self.top_k >= 0, "0 (all words) or more"),
            "repetition_penalty": (self.repetition_penalty > 0, "more than 0; 1 changes nothing"),
        }
        for name, (good, expected) in fits.items():
            if not good:
                raise ConfigError(
                    f"{name} {getattr(self, name)}",
                    expected=expected,
                    where="sampling",
                    fix=f"choose another {name}",
                )
        if self.beams > 1 and (self.temperature > 0 or self.repetition_penalty != 1.0):
            raise ConfigError("a search with beams, and chance or a penalty", expected="one of them",
                              where="sampling", fix="temperature: 0, repetition_penalty: 1")  # fmt: skip
        return self


class Sampler:
    """Draws tokens with its own random numbers, so that equal seeds give equal answers."""

    def __init__(self, config: Sampling, device: torch.device) -> None:
        self.config = config
        self._generator = torch.Generator(device=device).manual_seed(config.seed)

    def __call__(self, logits_BV: Tensor, previous: list[list[int]]) -> Tensor:
        """(B, V) and the tokens of each answer so far -> (B,)."""
        logits_BV = logits_BV.float()
        if self.config.repetition_penalty != 1.0:
            logits_BV = self._penalise(logits_BV.clone(), previous)
        if self.config.temperature <= 0:
            return logits_BV.argmax(dim=-1)
        logits_BV = logits_BV / self.config.temperature
        if self.config.top_k:
            floor = logits_BV.topk(min(self.config.top_k, logits_BV.shape[-1]), dim=-1).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < floor, float("-inf"))
        probs_BV = logits_BV.softmax(dim=-1)
        if self.config.top_p < 1.0:
            probs_BV = self._nucleus(probs_BV)
        return torch.multinomial(probs_BV, 1, generator=self._generator)[:, 0]

    def _penalise(self, logits_BV: Tensor, previous: list[list[int]]) -> Tensor:
        """CTRL's rule (arXiv:1909.05858): shrink the logits of tokens already said."""
        for row, said in zip(logits_BV, previous, strict=True):
            if said:
                ids = torch.tensor(sorted(set(said)), device=row.device)
                values = row[ids]
                penalty = self.config.repetition_penalty
                row[ids] = torch.where(values > 0, values / penalty, values * penalty)
        return logits_BV

    def _nucleus(self, probs_BV: Tensor) -> Tensor:
        """Keep the smallest set of tokens whose mass reaches top_p."""
        ordered, index = probs_BV.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered
        ordered = ordered.masked_fill(before >= self.config.top_p, 0.0)
        kept = torch.zeros_like(probs_BV).scatter(-1, index, ordered)
        return kept / kept.sum(dim=-1, keepdim=True)
