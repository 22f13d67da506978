"""A plain, correct generator: cached, batched, streaming.

Shape legend: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from sensorium.backbones.llama_steps import LlamaSteps, LlamaWeights, can_step
from sensorium.backbones.prefix import PREFIX_NAME
from sensorium.backbones.text_tower import no_words
from sensorium.core.batch import Batch, Example
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.hands import Making
from sensorium.core.responder import Answer, Redrawn, Request
from sensorium.core.sample import Sample
from sensorium.inference.beams import beam_search
from sensorium.inference.drawing import Artist
from sensorium.inference.finding import Finder
from sensorium.inference.making import Maker
from sensorium.inference.redrawing import redrawn
from sensorium.inference.regressing import Room
from sensorium.inference.sampling import Sampler, Sampling
from sensorium.model.device import to_device
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor


@dataclass(slots=True)
class _Rows:
    """The state of a batch of growing answers."""

    cache: Any
    mask_BT: torch.Tensor | None
    positions_B: torch.Tensor
    media_index_B: torch.Tensor
    context: Any
    steps: LlamaSteps | None
    """A faster way to run single tokens, where the language model allows it."""

    def insert(self, model: MultimodalModel) -> Any:
        """What runs inside the layers for the next token of each row, which is text."""
        return model.fusion.inserter(self.context, self.media_index_B[:, None], {})


@dataclass(frozen=True, slots=True)
class Answering:
    """A Responder that writes with settings of its own."""

    engine: Engine
    sampling: Sampling

    def respond(self, requests: Sequence[Request]) -> Iterator[Answer]:
        yield from self.engine.respond(requests, sampling=self.sampling)


class Engine:
    """Answers conversations with one model."""

    def __init__(self, model: MultimodalModel, processor: Processor, *, plain_steps: bool = False) -> None:
        """Take a model, on whatever device it is; its weights must not change afterwards.

        Args:
            plain_steps: always use the language model's own forward pass.
        """
        self.model = model.eval()
        self.processor = processor
        self.maker = Maker(model, processor)
        self.artist = Artist(self) if processor.frames else None
        self.finder = Finder(model, processor)
        lm = model.backbone.lm
        # The fused steps know nothing of a prefix.
        plain_steps = plain_steps or getattr(model.backbone, PREFIX_NAME, None) is not None
        self._fast = LlamaWeights(lm) if not plain_steps and can_step(lm) else None

    def respond(
        self, requests: Sequence[Request], *, batch_size: int = 8, sampling: Sampling | None = None
    ) -> Iterator[Answer]:
        """Answers in the order of the requests, greedy ones where nothing else is said."""
        if any(request.pictures or (request.draws and self.artist) for request in requests):
            yield from self._one_by_one(requests, batch_size, sampling)
            return
        searches = sampling is not None and sampling.beams > 1
        for start in range(0, len(requests), batch_size):
            group = requests[start : start + batch_size]
            # What a search finds depends on the room that it has: each length is searched by itself.
            lengths = sorted({r.max_tokens for r in group}) if searches else [max(r.max_tokens for r in group)]
            found: dict[int, list[int]] = {}
            prompts: dict[int, Example] = {}
            for length in lengths:
                places = [i for i, r in enumerate(group) if not searches or r.max_tokens == length]
                examples = [self.processor.prompt(group[i].messages, group[i].root) for i in places]
                prompts |= dict(zip(places, examples, strict=True))
                texts = self.generate(examples, max_tokens=length, sampling=sampling, making=self.maker.making, seeds=[group[i].seed for i in places])
                found |= dict(zip(places, texts, strict=True))
            for i, request in enumerate(group):
                kept = found[i][: request.max_tokens]
                kept = self.artist.whole(kept) if self.artist else kept
                asked, room = Sample(request.messages, root=request.root), Room(request.max_tokens - len(kept), sampling)
                maker = self.maker.of(request)
                kept, parts = maker.made(prompts[i], kept, asked, room=room) if maker.answers_in_parts else (kept, ())
                yield Answer(request.id, self.text(self.maker.said(kept)), len(kept), parts)

    def _one_by_one(self, requests: Sequence[Request], batch_size: int, sampling: Sampling | None) -> Iterator[Answer]:
        """Answers to requests some of which have pictures to choose from, or ask for one that is written as tokens."""
        for request in requests:
            if request.pictures:
                yield from self.finder.respond([request])
            elif self.artist is not None and request.draws:
                yield self.artist.answer(request)
            else:
                yield from self.respond([request], batch_size=batch_size, sampling=sampling)

    def redraw(self, pictures: Sequence[Any]) -> Redrawn | None:
        """See `core.responder.Redraws`."""
        return redrawn(self.model, pictures)

    def text(self, ids: Sequence[int]) -> str:
        """The answer's text, without pictures."""
        return self.processor.tokenizer.decode(self.artist.without_pictures(ids) if self.artist else ids).strip()

    def generate(
        self, prompts: Sequence[Example], *, max_tokens: int, sampling: Sampling | None = None, making: Making | None = None, seeds: Sequence[int] = ()
    ) -> list[list[int]]:
        """Token ids of all answers, without their stop tokens; a picture that an answer holds as tokens is whole.

        Args:
            making: how pictures are drawn, by models that write them as tokens.
            seeds: of each prompt, what is added to the seed of its pictures; none: nothing.

        Raises:
            ConfigError: a picture is asked for that the model cannot draw, or of a search with beams.
            DataError: a prompt and its answer, or the picture that is asked for, are too long.
        """
        if sampling is not None and sampling.beams > 1 and prompts:
            if making is not None and making.draw:
                raise ConfigError(f"a picture of a search with {sampling.beams} beams, which writes text alone", where="draw", fix="beams: 1")
            return self._search(prompts, max_tokens, sampling.beams)
        making, sampling = making or Making(), sampling or Sampling()
        if self.artist is None:
            if making.draw:
                raise ConfigError("a picture of a model that writes none as tokens", where="draw", fix="leave draw out")
            return self.write(prompts, max_tokens, sampling)
        # One that is to begin with a picture writes nothing before it.
        answers = [[] for _ in prompts] if making.draw else self.write(prompts, max_tokens, sampling)
        makings = [replace(making, seed=making.seed + more) for more in seeds or [0] * len(prompts)]
        return [self.artist.finish(prompt, said, max_tokens, sampling, how) for prompt, said, how in zip(prompts, answers, makings, strict=True)]

    def completed(self, prompt: Example, said: list[int], max_tokens: int, sampling: Sampling | None) -> list[int]:
        """What goes on behind a picture that `said` ends with; the answer as it is where it ends with none."""
        if self.artist is not None and said[-1:] == [self.artist.opening]:
            said = self.artist.finish(prompt, said, max_tokens, sampling or Sampling(), self.maker.making)
        return self.maker.whole(prompt, said, Room(max_tokens - len(said), sampling))[0]

    def write(self, prompts: Sequence[Example], max_tokens: int, sampling: Sampling) -> list[list[int]]:
        """Text behind prompts; one that wants to go on with a picture ends with the token that opens it."""
        answers: list[list[int]] = [[] for _ in prompts]
        done = [False] * len(prompts)
        for tokens in self._run(prompts, max_tokens, sampling, answers, done):
            del tokens
        return answers

    @torch.inference_mode()
    def _search(self, prompts: Sequence[Example], max_tokens: int, beams: int) -> list[list[int]]:
        """Every prompt stands in as many rows as it has beams; only their caches change places."""
        self.check(prompts, max_tokens)
        repeated = [[prompt] for prompt in prompts for _ in range(beams)]
        batch = collate(repeated, self.processor.tokenizer.pad_id, pad_left=True)
        rows, first_RV = self._prefill(batch, max_tokens, fast=False)

        def step(tokens: list[int], source_R: torch.Tensor) -> torch.Tensor:
            rows.cache.reorder_cache(source_R)
            return self._step(rows, tokens)

        # A search writes text alone.
        stops = self.processor.stop_ids | ({self.artist.opening} if self.artist else set[int]())
        return beam_search(first_RV, step, width=beams, max_tokens=max_tokens, stops=stops)

    def stream(self, prompt: Example, *, max_tokens: int, sampling: Sampling | None = None) -> Generator[str, None, list[int]]:
        """Pieces of one answer's text as they are made; at their end the answer's ids.

        Raises:
            ConfigError: a search with beams, whose answer is known at its end only.
        """
        if sampling is not None and sampling.beams > 1:
            raise ConfigError("an answer of a search with beams, piece by piece", fix="stream nothing, or beams: 1")
        answers: list[list[int]] = [[]]
        shown = ""
        for _ in self._run([prompt], max_tokens, sampling or Sampling(), answers, [False]):
            text = self.processor.tokenizer.decode(answers[0]).lstrip()
            # A character whose last byte is still to come decodes to the replacement mark.
            if text.endswith("\ufffd"):
                continue
            if text.startswith(shown) and len(text) > len(shown):
                yield text[len(shown) :]
                shown = text
        # A picture is whole before text goes on.
        whole = self.completed(prompt, answers[0], max_tokens, sampling)
        if whole != answers[0] and (text := self.text(whole)).startswith(shown):
            yield text[len(shown) :]
        return whole

    @torch.inference_mode()
    def _run(
        self,
        prompts: Sequence[Example],
        max_tokens: int,
        sampling: Sampling,
        answers: list[list[int]],
        done: list[bool],
    ) -> Iterator[list[int]]:
        """Extend `answers` by one token a turn until all are done."""
        if not prompts or not max_tokens:
            return
        self.check(prompts, max_tokens)
        sampler = Sampler(sampling, self.model.device)
        batch = collate([[p] for p in prompts], self.processor.tokenizer.pad_id, pad_left=True)
        rows, logits_BV = self._prefill(batch, max_tokens)
        follows = self.maker.follows()
        for count in range(max_tokens):
            chosen: list[int] = sampler(logits_BV, answers).tolist()
            if follows:
                chosen = [follows.get(tuple(said[-2:]), follows.get(tuple(said[-1:]), token)) for said, token in zip(answers, chosen, strict=True)]
            for b, token in enumerate(chosen):
                if not done[b] and token in self.processor.stop_ids:
                    done[b] = True
                if not done[b]:
                    answers[b].append(token)
                    done[b] = self.artist is not None and token == self.artist.opening
            yield chosen
            if all(done) or count == max_tokens - 1:
                return
            logits_BV = self._step(rows, chosen)

    def check(self, prompts: Sequence[Example], max_tokens: int) -> None:
        """Whether the model writes, and has room.

        Raises:
            ConfigError: it does not write, or less than nothing is to be written.
            DataError: a prompt and its answer are too long.
        """
        if self.model.config.text_frame is not None:
            raise no_words()
        if max_tokens < 0:
            raise ConfigError(f"an answer of {max_tokens} tokens", where="max_tokens", expected="1 or more")
        limit = self.model.config.longest_row
        longest = max(len(p) for p in prompts)
        if longest + max_tokens > limit:
            raise DataError(f"a prompt of {longest} tokens and {max_tokens} to answer", expected=f"at most {limit} together",
                            fix="shorten the conversation or lower max_tokens")  # fmt: skip

    def _prefill(self, batch: Batch, room: int, *, fast: bool = True) -> tuple[_Rows, torch.Tensor]:
        rows, hidden_BD = self.prefill(batch, room, fast=fast)
        return rows, self._scores(hidden_BD)

    def _scores(self, hidden_BD: torch.Tensor) -> torch.Tensor:
        """Scores of words of text: codes of pictures stand in pictures alone."""
        logits_BV = self.model.logits(hidden_BD)
        return logits_BV if self.artist is None else self.artist.text_alone(logits_BV)

    def prefill(self, batch: Batch, room: int, *, fast: bool = True) -> tuple[_Rows, torch.Tensor]:
        """Rows that can go on, and the last hidden state of each, (B, D)."""
        model = self.model
        # Read before the batch moves: a question about a GPU's tensor waits for the GPU.
        padded = not bool((batch.segments_BT > 0).all())
        batch = model.read(to_device(batch, model.device))
        embeds_BTD = model.embed(batch.input_ids_BT)
        features = model.features(batch.media)
        embeds_BTD = model.fusion.enter(embeds_BTD, features, batch.slots)
        context: Any = model.fusion.context(features, batch.media, len(embeds_BTD))
        rows = _Rows(
            cache=model.backbone.new_cache(),
            mask_BT=(batch.segments_BT > 0).long() if padded else None,
            positions_B=batch.last_positions(),
            media_index_B=batch.media_index_BT[:, -1],
            context=context,
            steps=None,
        )
        hidden_BTD = model.backbone(
            embeds_BTD,
            positions_BT=batch.positions_BT,
            places_3BT=batch.places_3BT,
            mask_BT=rows.mask_BT,
            cache=rows.cache,
            insert=model.fusion.inserter(context, batch.media_index_BT, batch.slots),
        )
        if fast and self._fast is not None and rows.insert(model) is None:
            if not self._fast.current():
                self._fast = LlamaWeights(model.backbone.lm)
            rows.steps = LlamaSteps(self._fast, rows.cache, room, rows.mask_BT)
            rows.cache = None
        return rows, hidden_BTD[:, -1]

    def _step(self, rows: _Rows, tokens: list[int]) -> torch.Tensor:
        return self._scores(self.step(rows, tokens))

    def step(self, rows: _Rows, tokens: list[int]) -> torch.Tensor:
        """The hidden state of each row's next token, (B, D)."""
        model = self.model
        embeds_B1D = model.embed(torch.tensor(tokens, device=model.device)[:, None])
        rows.positions_B = rows.positions_B + 1
        if rows.steps is not None:
            return rows.steps.step(embeds_B1D, rows.positions_B)[:, -1]
        if rows.mask_BT is not None:
            rows.mask_BT = torch.cat([rows.mask_BT, rows.mask_BT.new_ones(len(tokens), 1)], dim=1)
        hidden_BTD = model.backbone(
            embeds_B1D,
            positions_BT=rows.positions_B[:, None],
            mask_BT=rows.mask_BT,
            cache=rows.cache,
            insert=rows.insert(model),
        )
        return hidden_BTD[:, -1]
