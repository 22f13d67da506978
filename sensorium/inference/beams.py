"""Beam search: several answers grow side by side, and the likeliest per token wins.

The rules are those of transformers' `generate(num_beams=...)` with its defaults.

Shape legend: P prompts, W beams of each, C candidates, V vocabulary; R = P W rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

Step = Callable[[list[int], Tensor], Tensor]
"""The last token of every row, and which row each grew from -> scores of the next, (R, V)."""


@dataclass(slots=True)
class _Prompt:
    """The beams of one prompt, best first, and what has ended."""

    width: int
    ids: list[list[int]]
    scores: list[float]
    ended: list[tuple[float, list[int]]] = field(default_factory=list[tuple[float, list[int]]])
    done: bool = False

    def grow(self, found: list[tuple[float, int, int]], stops: Collection[int]) -> list[int]:
        """Take the best candidates, each a score, a beam and a token.

        Returns:
            The beam that each new one grew from.
        """
        grown: list[tuple[float, int, int]] = []
        for rank, (score, beam, token) in enumerate(found):
            if token not in stops:
                grown.append((score, beam, token))
            elif rank < self.width and not self.done:
                # The end counts as a token, but is not kept.
                self.ended.append((score / (len(self.ids[beam]) + 1), self.ids[beam]))
        self.ended = sorted(self.ended, key=lambda one: -one[0])[: self.width]
        chosen = grown[: self.width]
        self.ids = [[*self.ids[beam], token] for _, beam, token in chosen]
        self.scores = [score for score, _, _ in chosen]
        best = self.scores[0] / len(self.ids[0])
        self.done = self.done or (len(self.ended) == self.width and best <= self.ended[-1][0])
        return [beam for _, beam, _ in chosen]

    def best(self) -> list[int]:
        """The answer: of what ended and, where there was no room to go on, of what did not."""
        growing = [] if self.done else [(s / max(1, len(i)), i) for s, i in zip(self.scores, self.ids, strict=True)]
        return max([*self.ended, *growing], key=lambda one: one[0])[1]


def beam_search(
    first_RV: Tensor, step: Step, *, width: int, max_tokens: int, stops: Collection[int]
) -> list[list[int]]:
    """Token ids of the best answer to every prompt, without its stop token.

    Args:
        first_RV: scores of the first token; each prompt has `width` rows, one behind the other.
        width: beams of each prompt.
    """
    prompts = [_Prompt(width, [[] for _ in range(width)], [0.0, *[-1e9] * (width - 1)])
               for _ in range(len(first_RV) // width)]  # fmt: skip
    logits_RV = first_RV
    for count in range(max_tokens):
        sums_R = torch.tensor([score for one in prompts for score in one.scores], device=logits_RV.device)
        totals_RV = logits_RV.float().log_softmax(dim=-1) + sums_R[:, None]
        vocabulary = totals_RV.shape[1]
        # If every beam could end at once, as many go on.
        best = totals_RV.view(len(prompts), -1)
        best = best.topk(min(best.shape[1], (1 + max(1, len(stops))) * width), dim=1)
        rows: list[int] = []
        for p, one in enumerate(prompts):
            places, scores = best.indices[p].tolist(), best.values[p].tolist()
            found = [(s, at // vocabulary, at % vocabulary) for s, at in zip(scores, places, strict=True)]
            rows += [p * width + beam for beam in one.grow(found, stops)]
        if all(one.done for one in prompts) or count == max_tokens - 1:
            break
        last = [ids[-1] for one in prompts for ids in one.ids]
        logits_RV = step(last, torch.tensor(rows, device=logits_RV.device))
    return [one.best() for one in prompts]
