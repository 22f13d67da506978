"""Pictures that an LLM writes as tokens: exactly one picture's between its markers, chosen among codes alone, led by guidance.

Text is written as ever, up to the token that opens a picture; then the picture is drawn with caches of its own, and text goes on
behind it. So the ordinary steps, batches and streams need to know nothing of it. (Chameleon's own program changes between two
decoders in the same way: github.com/facebookresearch/chameleon, chameleon/inference/chameleon.py.)

Shape legend: B rows (prompts of one picture), T tokens, D width, V vocabulary, C codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sensorium.core.batch import Example
from sensorium.core.errors import DataError
from sensorium.core.hands import CancelledError, Drawing, Making
from sensorium.core.responder import Answer, Request
from sensorium.core.sample import Message, Sample
from sensorium.inference.extending import extended
from sensorium.inference.regressing import Room
from sensorium.inference.sampling import Sampler, Sampling
from sensorium.processing.collate import collate
from sensorium.processing.picture_words import Frame, WordFrames
from sensorium.processing.unsteered import Unsteered

if TYPE_CHECKING:
    from sensorium.inference.engine import Engine


class Artist:
    """Draws for one Engine, whose model writes pictures as tokens."""

    def __init__(self, engine: Engine) -> None:
        frames = engine.processor.frames
        assert frames is not None, "an artist for a model that writes no pictures"
        self._engine = engine
        self._frames: WordFrames = frames
        self.opening = frames.opening
        """The token with which a picture begins."""
        self._blocked_V: Tensor | None = None
        self._unsteered = Unsteered(engine.processor)

    def prompt(self, messages: tuple[Message, ...], root: Path | None) -> Example:
        """The prompt of a conversation that is to be answered with a picture."""
        return self._unsteered.drawing.prompt(messages, root)

    def answer(self, request: Request) -> Answer:
        """The answer to who asks for a picture, which has the room that it takes; text may stand behind it."""
        engine, maker = self._engine, self._engine.maker.of(request)
        making = replace(maker.making, draw=True)
        prompt = self.prompt(request.messages, request.root)
        room = max(request.max_tokens, len(self._frames.sized(making.size)))
        (ids,) = engine.generate([prompt], max_tokens=room, making=making)
        ids, parts = maker.made(prompt, ids, Sample(request.messages, root=request.root), room=Room(room - len(ids)))
        return Answer(request.id, engine.text(maker.said(ids)), len(ids), parts)

    def text_alone(self, logits_BV: Tensor) -> Tensor:
        """Scores without those of codes, which stand in pictures alone."""
        if not self._frames.shape.shared:
            return logits_BV
        if self._blocked_V is None or self._blocked_V.device != logits_BV.device:
            self._blocked_V = torch.zeros(logits_BV.shape[-1], dtype=torch.bool, device=logits_BV.device)
            self._blocked_V[self._frames.words] = True
        return logits_BV.masked_fill(self._blocked_V, float("-inf"))

    def without_pictures(self, ids: Sequence[int]) -> list[int]:
        """The tokens of an answer that are text."""
        said = list(ids)
        for one in reversed(self._frames.written(said)):
            del said[one.start : one.stop]
        return [i for i in said if not self._frames.is_code(i)]

    def whole(self, ids: list[int]) -> list[int]:
        """An answer that was cut, up to the opening of the picture that the cut goes through."""
        stops = [one.stop for one in self._frames.written(ids)]
        behind = stops[-1] if stops else 0
        return ids[: ids.index(self.opening, behind) + 1] if self.opening in ids[behind:] else ids

    def finish(self, prompt: Example, said: list[int], max_tokens: int, sampling: Sampling, making: Making) -> list[int]:
        """The answer that goes on behind `said`: pictures where it opens one, and text.

        A picture for which no room is left, that is stopped or fails ends the answer: of it there is its opening alone.

        Raises:
            ConfigError: a size that the model does not draw.
            DataError: there is no room for the picture that is asked for (`making.draw`).
        """
        frame, number = self._frames.sized(making.size), 0
        room = min(max_tokens, self._engine.model.config.longest_row - len(prompt))
        if making.draw and room < len(frame):
            raise self._no_room(prompt, frame, max_tokens)
        said = [self.opening] if making.draw else said
        while said[-1:] == [self.opening] and len(said) - 1 + len(frame) <= room:
            try:
                # Two pictures of one answer are two draws.
                drawn = self.draw(extended(prompt, said[:-1]), frame, replace(making, seed=making.seed + number))
            except CancelledError:
                return said
            except Exception as error:
                # Whatever it was, text and pictures in front of it are not lost; the part `missing` says it.
                self._engine.maker.failed[id(prompt)] = f"it failed ({type(error).__name__}: {str(error)[:300]})"
                return said
            said, number = said[:-1] + drawn, number + 1
            left = room - len(said)
            if left > 0:
                said = said + self._engine.write([extended(prompt, said)], left, sampling)[0]
        return said

    def _no_room(self, prompt: Example, frame: Frame, max_tokens: int) -> DataError:
        limit = self._engine.model.config.longest_row
        return DataError(
            f"a picture of {len(frame)} tokens, a prompt of {len(prompt)} and {max_tokens} to answer",
            expected=f"max_tokens of at least {len(frame)}, and prompt and picture of at most {limit} together",
            fix="raise max_tokens, shorten the conversation, or ask for a smaller picture",
        )

    @torch.inference_mode()
    def draw(self, prompt: Example, frame: Frame, making: Making) -> list[int]:
        """The tokens of one picture behind a prompt."""
        engine, model = self._engine, self._engine.model
        how = making.drawing or self._frames.shape.drawing
        streams = [(extended(one, frame.before), weight) for one, weight in self._streams(prompt, how)]
        weights_B1 = torch.tensor([weight for _, weight in streams], device=model.device)[:, None]
        sampler = Sampler(Sampling(temperature=how.temperature, top_k=how.top_k, top_p=how.top_p, seed=making.seed), model.device)
        batch = collate([[one] for one, _ in streams], engine.processor.tokenizer.pad_id, pad_left=True)
        rows, hidden_BD = engine.prefill(batch, len(frame.body))
        drawn: list[int] = []
        for forced in frame.body:
            token = forced
            if token is None:
                scores_BC = model.code_scores(hidden_BD).float()
                code = int(sampler((scores_BC * weights_B1).sum(dim=0, keepdim=True), []))
                token = self._frames.words[code]
            drawn.append(token)
            if making.cancelled is not None and making.cancelled():
                raise CancelledError(f"stopped after {len(drawn)} of {len(frame.body)} tokens of a picture")
            if making.progress is not None:
                making.progress(len(drawn), len(frame.body))
            if len(drawn) < len(frame.body):
                hidden_BD = engine.step(rows, [token] * len(streams))
        return [*frame.before, *drawn, *frame.behind]

    def _streams(self, prompt: Example, how: Drawing) -> list[tuple[Example, float]]:
        """Prompts, and what the scores behind each are multiplied by before they are added up."""
        if how.away == "pictures":
            pictures = how.guidance if how.picture_guidance is None else how.picture_guidance
            alone, nothing = self._unsteered.pictures_alone(prompt), self._unsteered.nothing()
            found = [(prompt, how.guidance), (alone, pictures - how.guidance), (nothing, 1 - pictures)]
        else:
            away = self._unsteered.padded(prompt) if how.away == "pads" else self._unsteered.said(how.negative)
            found = [(prompt, how.guidance), (away, 1 - how.guidance)]
        return [(one, weight) for one, weight in found if weight]
