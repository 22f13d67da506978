"""Answers chosen from a list: by the likelihood of their first token some are kept, by that of all of it one is chosen.

Source: BLIP (arXiv:2201.12086), github.com/salesforce/BLIP, models/blip_vqa.py and configs/vqa.yaml: of 3,128 answers
the 128 whose first tokens are likeliest; its losses spread a tenth of each target over the vocabulary, here too.

Shape legend: C candidates, K of them kept, B rows, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.core.batch import Example, MediaBatch
from sensorium.core.config import Config
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.picture_words import CODES
from sensorium.core.responder import Answer, Request
from sensorium.core.sample import Message, Part, Sample
from sensorium.inference.engine import Engine
from sensorium.model.device import media_to_device, to_device
from sensorium.processing.collate import collate


class Ranking(Config):
    """How answers are chosen from a list."""

    kept: int = 128
    """How many are read whole, the likeliest by their first token."""
    smoothing: float = 0.0
    """Share of each target that is spread over the vocabulary; BLIP ranks with the 0.1 that it learns with."""
    batch_size: int = 16
    """Candidates that are read at a time."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The candidates that were read whole, best first."""

    places: list[int]
    """In the list that was given."""
    scores: list[float]
    """Logarithms of likelihoods, of whole answers with their ends."""


class Ranker:
    """A Responder that chooses one of each request's choices."""

    def __init__(self, engine: Engine, config: Ranking | None = None) -> None:
        """Take an engine.

        Raises:
            ConfigError: its model writes nothing, or a number makes no sense.
        """
        self.engine, self.config = engine, config or Ranking()
        if self.config.kept < 1 or self.config.batch_size < 1 or not 0 <= self.config.smoothing < 1:
            raise ConfigError(f"ranking with {self.config.to_dict()}", where="ranking",
                              expected="kept and batch_size of at least 1, smoothing from 0 to below 1")  # fmt: skip
        self._ids: dict[tuple[str, ...], list[list[int]]] = {}

    def respond(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """The likeliest of each request's choices.

        Raises:
            DataError: a request has none.
        """
        for request in requests:
            if not request.choices:
                raise DataError(f"request {request.id!r} lists no answers to choose from",
                                expected="choices", fix="leave --rank out, or name a file of answers")  # fmt: skip
            best = self.rank(self.engine.processor.prompt(request.messages, request.root), request.choices).places[0]
            yield Answer(request.id, request.choices[best], len(self._tokens(request.choices)[best]))

    @torch.inference_mode()
    def rank(self, prompt: Example, choices: Sequence[str]) -> Ranked:
        """The choices that are kept, the likeliest answer to the prompt first.

        Raises:
            DataError: an answer has no tokens, or is too long.
        """
        answers, prompt = self._tokens(tuple(choices)), self._seen(prompt)
        longest = max(map(len, answers))
        # The same refusals as for what is written.
        self.engine.check([prompt], longest)
        hidden_BTD, _ = self._read([prompt])
        first_V = self.engine.model.logits(hidden_BTD[0, -1]).float().softmax(dim=-1)
        heads_C = torch.tensor([ids[0] for ids in answers], device=first_V.device)
        # Of answers that begin alike, the first in the list are kept.
        kept = first_V[heads_C].sort(descending=True, stable=True).indices[: self.config.kept].tolist()
        scores: list[float] = []
        for start in range(0, len(kept), self.config.batch_size):
            scores += self._scores(prompt, [answers[i] for i in kept[start : start + self.config.batch_size]])
        order = sorted(range(len(kept)), key=lambda i: -scores[i])
        return Ranked([kept[i] for i in order], [scores[i] for i in order])

    def _tokens(self, choices: tuple[str, ...]) -> list[list[int]]:
        """What the model would learn of each answer, its end included."""
        if choices not in self._ids:
            self._ids[choices] = [self._learned(text) for text in choices]
        return self._ids[choices]

    def _learned(self, text: str) -> list[int]:
        asked = (Message("user", (Part("text", "?"),)), Message("assistant", (Part("text", text),)))
        example = self.engine.processor.encode(Sample(messages=asked))
        found = [i for i, learn in zip(example.input_ids, example.learn, strict=True) if learn]
        if not found or not text.strip():
            raise DataError(f"answer {text!r} to choose from", expected="a text")
        return found

    def _seen(self, prompt: Example) -> Example:
        """The prompt with what the encoders make of its media, or with the words of their codes, so that each is encoded once."""
        model = self.engine.model
        if CODES in prompt.media:
            read = model.read(to_device(collate([[prompt]], self.engine.processor.tokenizer.pad_id), model.device))
            rest, slots = ({kind: one for kind, one in of.items() if kind != CODES} for of in (prompt.media, prompt.slots))
            prompt = replace(prompt, input_ids=read.input_ids_BT[0].tolist(), media=rest, slots=slots)
        made = {kind: model.encode(kind, one) for kind, one in media_to_device(prompt.media, model.device).items()}
        media = {kind: replace(one, pixels_NCHW=self._still_needed(kind, one), features=made[kind], kept=())
                 for kind, one in prompt.media.items()}
        return replace(prompt, media=media)

    def _still_needed(self, kind: str, media: MediaBatch) -> Tensor:
        """The pixels that are looked at when the features are there: all or none."""
        places = self.engine.model.config.lane(kind).places
        return media.pixels_NCHW if places is not None and places.glance else media.pixels_NCHW[:0]

    def _read(self, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """(B, T, D) hidden states and (B, T) tokens."""
        model = self.engine.model
        rows = [[one] for one in examples]
        batch = to_device(collate(rows, self.engine.processor.tokenizer.pad_id), model.device)
        return model(batch).hidden_BTD, batch.input_ids_BT

    def _scores(self, prompt: Example, answers: Sequence[list[int]]) -> list[float]:
        begin = len(prompt)
        hidden_BTD, ids_BT = self._read([_with_answer(prompt, ids) for ids in answers])
        out: list[float] = []
        for hidden_TD, ids_T, answer in zip(hidden_BTD, ids_BT, answers, strict=True):
            place = slice(begin - 1, begin - 1 + len(answer))
            # Of an answer's places alone: logits of the whole prompt are most of the work.
            logits_TV = self.engine.model.logits(hidden_TD[place])
            loss = F.cross_entropy(logits_TV.float(), ids_T[begin : begin + len(answer)], reduction="sum",
                                   label_smoothing=self.config.smoothing)  # fmt: skip
            out.append(-float(loss))
        return out


def _with_answer(prompt: Example, ids: list[int]) -> Example:
    """The Example of a prompt and its answer, as the Processor would make it."""
    last = max((max(place) for place in prompt.places), default=0)
    places = [(last + i, last + i, last + i) for i in range(1, len(ids) + 1)] if prompt.places else []
    return replace(
        prompt,
        input_ids=[*prompt.input_ids, *ids],
        learn=[*prompt.learn, *[True] * len(ids)],
        media_index=[*prompt.media_index, *[prompt.media_index[-1] if prompt.media_index else 0] * len(ids)],
        places=[*prompt.places, *places],
    )
