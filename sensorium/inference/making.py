"""From an answer's tokens to its media. Signal tokens: one more forward pass over prompt and answer, the output projector,
the generator. Words between two markers, or the whole answer's: a generator that is told by text.

What fails is missing, and takes nothing else with it: the answer's text and its other media stay.

Shape legend: T tokens, D width, L condition tokens, C condition width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from sensorium.core.batch import Batch, Example
from sensorium.core.errors import DataError, SensoriumError
from sensorium.core.hands import CancelledError, GeneratorConfig, Made, MadeKind, Making, Speaks
from sensorium.core.masks import Mask
from sensorium.core.part import Origin
from sensorium.core.responder import Request
from sensorium.core.sample import MISSING, Part, Sample
from sensorium.inference.asked_media import Found, asked_media, why_cut, why_not_drawn
from sensorium.inference.cutting import box_masks, cuts_boxes
from sensorium.inference.extending import extended
from sensorium.inference.leading_away import condition_of
from sensorium.inference.regressing import Room, go_on, negative
from sensorium.inference.saying import words_to_say
from sensorium.media.image import load_image
from sensorium.model.device import to_device
from sensorium.model.hand_check import fed_kinds
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.masks import mask_part
from sensorium.processing.picture_words import Written
from sensorium.processing.processor import Processor
from sensorium.processing.signals import media_seen, own_signals
from sensorium.processing.spoken import spoken_parts
from sensorium.processing.videos import with_frames


@dataclass(slots=True)
class _Run:
    """An answer whose media are made. Its states are computed once, and only where a medium is made of them."""

    model: MultimodalModel
    prompt: Example
    ids: Sequence[int]
    asked: Sample
    pad_id: int
    fed: Sequence[torch.Tensor] = ()
    """Conditions of the media that were written embedding by embedding, in order; (1, L, C)."""
    seen: tuple[Batch, torch.Tensor] | None = None
    shown: list[str] = field(default_factory=list[str])
    """Ids of what was found, which is not to be found again."""

    def states(self) -> tuple[Batch, torch.Tensor]:
        """Prompt and answer as a batch, and the hidden states of its tokens (1, T, D)."""
        if self.seen is None:
            batch = to_device(collate([[extended(self.prompt, self.ids)]], self.pad_id), self.model.device)
            self.seen = batch, self.model(batch).hidden_BTD
        return self.seen


@dataclass(slots=True)
class Maker:
    """Makes the media of answers."""

    model: MultimodalModel
    processor: Processor
    making: Making = field(default_factory=Making)
    failed: dict[int, str] = field(default_factory=dict[int, str])
    """Why a picture that the LLM was writing broke off, by the `id` of its prompt; said once, in the part `missing`."""
    kinds: frozenset[MadeKind] | None = None
    """What is made; None: all. Media of other kinds are no parts of an answer, whose text stays as it is."""

    def follows(self) -> dict[tuple[int, ...], int]:
        """Which token must come behind each signal token but the last: half a signal means nothing. Behind those that are not the first
        the one before is looked at, too, for what stands between signals may be a space as in any text."""
        forced = {ids[max(0, i - 1) : i + 1]: token
                  for kind, ids in self.processor.signals.items() if not self._is_told(kind) for i, token in enumerate(ids[1:])}  # fmt: skip
        # What begins a picture that is written embedding by embedding ends the text: what follows is no token (`go_on`).
        return forced | {self.processor.signals[kind][:1]: min(self.processor.stop_ids) for kind in fed_kinds(self.model.config)}

    @property
    def answers_in_parts(self) -> bool:
        """Whether there may be more in an answer than text."""
        return bool(self.processor.signals) or self.processor.frames is not None or self.processor.box_format is not None

    def find(self, ids: Sequence[int]) -> list[Found]:
        """The media of an answer in order; the last of them may have been cut off by the answer's end."""
        return asked_media(self.processor, ids)

    def said(self, ids: Sequence[int]) -> list[int]:
        """An answer's ids without what generators are told."""
        inside = {i for one in self.find(ids) if one.told is not None for i in range(one.start, one.stop)}
        return [token for i, token in enumerate(ids) if i not in inside]

    def parts(
        self, prompt: Example, ids: Sequence[int], asked: Sample, *, speak: bool = False, room: Room = Room()
    ) -> tuple[Part, ...]:
        """The answer's parts in order: text, places in the pictures, and the media that it asks for. A medium that could not
        be made, was stopped or was cut off is a part `missing`.

        Args:
            asked: what `prompt` was made of; masks and edits are of its last picture.
            speak: end with the text as sound or, where there is none, with what there is, in words (`words_to_say`).
            room: what may follow a picture that ends `ids`, where the model reads what it makes; where there is none, a box that
                `ids` end in the midst of was cut off, and is `missing`, too.
        """
        return self.made(prompt, ids, asked, speak=speak, room=room)[1]

    def whole(self, prompt: Example, ids: Sequence[int], room: Room) -> tuple[list[int], list[torch.Tensor]]:
        """An answer with what goes on behind its pictures, where the model reads what it makes; and what it made, (1, L, C) each."""
        fed: list[torch.Tensor] = []
        for kind in fed_kinds(self.model.config):
            ids, fed = go_on(self.model, self.processor, kind, prompt, ids, room)
        return list(ids), fed

    def made(
        self, prompt: Example, ids: Sequence[int], asked: Sample, *, speak: bool = False, room: Room = Room()
    ) -> tuple[list[int], tuple[Part, ...]]:
        """The answer's parts (`parts`), behind all of its tokens."""
        said = len(ids)
        ids, fed = self.whole(prompt, ids, room)
        run = _Run(self.model, prompt, ids, asked, self.processor.tokenizer.pad_id, fed)
        wanted = enumerate(self.find(ids))
        there = [(found.start, found.stop, self._part(run, found, number) if self._makes(found.kind) else None) for number, found in wanted]
        parts: list[Part] = []
        place = 0
        for start, stop, part in sorted([*there, *self._drawn(prompt, ids)], key=lambda one: one[0]):
            parts += self.spoken(prompt, ids[place:start])
            parts += [] if part is None else [part]
            place = stop
        parts += self.spoken(prompt, ids[place:], cut=len(ids) - said >= room.tokens)
        if cuts_boxes(self.model) and self._makes("mask"):
            parts = [one for part in parts for one in (part, *(self._cut(part, asked) if part.type == "boxes" else ()))]
        if speak:
            text = words_to_say(parts, [seen.shape for seen in prompt.seen])
            parts.append(replace(self._attempt("audio", None, lambda: self._voiced(text)), prompt=text or None, speech=True))
        return ids, tuple(parts) or (Part("text", ""),)

    def _drawn(self, prompt: Example, ids: Sequence[int]) -> list[tuple[int, int, Part | None]]:
        """The pictures whose tokens an answer holds: where they begin and end, and each as a part; None: it is not to be made."""
        frames = self.processor.frames
        if frames is None:
            return []
        attempt = partial(self._attempt, "image", None) if self._makes("image") else lambda _: None
        found = [(one.start, one.stop, attempt(partial(self._decoded, one, number))) for number, one in enumerate(frames.written(ids))]
        if (begun := self._begun(ids)) is not None:
            found.append((begun, len(ids), attempt(partial(_broken, self.failed.pop(id(prompt), None)))))
        return found

    def _begun(self, ids: Sequence[int]) -> int | None:
        """Where a picture was to be written as tokens, of which there is the opening alone."""
        frames = self.processor.frames
        if frames is None:
            return None
        behind = max((one.stop for one in frames.written(ids)), default=0)
        return ids.index(frames.opening, behind) if frames.opening in ids[behind:] else None

    def cut_off(self, prompt: Example, ids: Sequence[int], *, full: bool) -> list[Part]:
        """What the end of an answer went through: the parts `missing` that `parts` has for it, but nothing is made.

        Args:
            full: the answer ended at its longest.
        """
        lost = [part for part in self.spoken(prompt, self.said(ids), cut=full) if part.type == MISSING]
        lost += [Part(MISSING, {"kind": one.kind, "error": str(why_cut(one, self.model.config))}, self._told(one))
                 for one in self.find(ids) if not one.whole]  # fmt: skip
        if self._begun(ids) is not None:
            lost.append(Part(MISSING, {"kind": "image", "error": str(why_not_drawn(self.failed.pop(id(prompt), None)))}))
        return lost

    @torch.inference_mode()
    def _decoded(self, one: Written, number: int) -> Part:
        codes_1N = torch.tensor([one.codes], device=self.model.device)
        making = replace(self.making, seed=self.making.seed + number)
        pixels_HWC = self.model.picture_tokenizer.decode(codes_1N, one.grid, making=making)[0].permute(1, 2, 0)
        return as_part(Made("image", pixels_HWC.cpu().numpy()), 0)

    def of(self, request: Request) -> Maker:
        """One that makes what a request wants to see, by a seed that is larger by the request's."""
        return replace(self, making=replace(self.making, seed=self.making.seed + request.seed), kinds=request.makes)

    def _makes(self, kind: MadeKind) -> bool:
        return self.kinds is None or kind in self.kinds

    def _is_told(self, kind: str) -> bool:
        return self.processor.config.hands[kind].told

    def spoken(self, prompt: Example, ids: Sequence[int], *, cut: bool = False) -> list[Part]:
        """Text and boxes of what is said, its signals left out; `cut`: the answer ended at its longest."""
        frames, added = self.processor.frames, self.processor.tokenizer.added
        signals = {token for ids in self.processor.signals.values() for token in own_signals(ids, added)}
        said = [i for i in ids if i not in signals and not (frames and frames.is_code(i))]
        return spoken_parts(said, prompt.seen, self.processor.box_format, self.processor.tokenizer, cut=cut)

    def _part(self, run: _Run, found: Found, number: int) -> Part:
        """A medium, or what says why there is none."""
        told = self._told(found)
        # Two pictures of one answer are two draws.
        making = replace(self.making, seed=self.making.seed + number)

        def make() -> Part:
            if not found.whole:
                raise why_cut(found, self.model.config)
            made = self._make(run, found, making) if told is None else self._tell(found.kind, told, making)
            return replace(as_part(made, len(run.prompt.seen)), prompt=told)

        return self._attempt(found.kind, told, make)

    def _told(self, found: Found) -> str | None:
        return None if found.told is None else self.processor.tokenizer.decode(found.told).strip()

    def _attempt(self, kind: MadeKind, prompt: str | None, make: Callable[[], Part]) -> Part:
        """What was made, or the part `missing` with the error: whatever it was, the rest of the answer is not lost by it."""
        try:
            if self.making.cancelled is not None and self.making.cancelled():
                raise CancelledError("stopped before it was begun")
            return make()
        except (SensoriumError, CancelledError) as error:
            reason = str(error) or "stopped"
        except Exception as error:
            reason = f"it failed ({type(error).__name__}: {str(error)[:300]})"
        return Part(MISSING, {"kind": kind, "error": reason}, prompt)

    @torch.inference_mode()
    def _make(self, run: _Run, found: Found, making: Making) -> Made:
        way: str = found.kind
        if found.kind in fed_kinds(self.model.config):
            # Media of other kinds, which are told by text, may stand before it.
            condition_BLC = run.fed[sum(one.kind == found.kind and one.start < found.start for one in self.find(run.ids))]
        else:
            batch, hidden_BTD = run.states()
            place = (0, len(run.prompt) + found.start)
            way = self.model.chosen(found.kind, hidden_BTD, place)
            condition_BLC = self.model.condition(way, hidden_BTD, batch.input_ids_BT, [place])
        making = replace(making, without=(*making.without, *run.shown))
        if self.model.config.ways[way].generator.looks:
            making = replace(making, pictures=(self._picture(run.asked),))
        generator, making = self.model.generators.on(way, self.model.device), _heeded(making, self.model.config.ways[way].generator)
        made = generator.generate(condition_BLC, negative_BLC=self._negative(way, making), making=making)[0]
        run.shown += [] if made.source is None else [made.source]
        return made

    @torch.inference_mode()
    def _tell(self, kind: MadeKind, text: str, making: Making) -> Made:
        making = _heeded(making, self.model.config.hands[kind].generator)
        return cast(Speaks, self.model.generators.on(kind, self.model.device)).speak(text, making)

    def _cut(self, said: Part, asked: Sample) -> list[Part]:
        """The masks of a part with boxes, or what says why there are none."""
        made: list[Part] = []

        def cut() -> Part:
            picture_HWC = self._picture(asked, cast(Any, said.value)["picture"] - 1)
            made.extend(box_masks(self.model, said, picture_HWC, self.making))
            return said

        tried = self._attempt("mask", None, cut)
        return made if tried is said else [tried]

    def _voiced(self, text: str) -> Part:
        # Its text alone decides how long speech is.
        making = replace(self.making, size=None, seconds=None)
        return as_part(self.model.generators.voice().speak(text, making), 0)

    def _negative(self, way: str, making: Making) -> torch.Tensor | None:
        """What words lead away from, or what a projector has learnt to; None: the generator's own."""
        if making.negative is not None:
            return condition_of(self.model, self.processor, way, making.negative)
        if self.model.config.ways[way].projector.feeds_back is not None:
            kind = self.model.config.ways[way].kind
            return negative(self.model, self.processor, kind) if self.making.guidance != 1 else None
        return self.model.negative(way, self.processor.signals[self.model.config.ways[way].kind])

    def _picture(self, asked: Sample, number: int = -1) -> np.ndarray[Any, Any]:
        """Of what the model looks at, (H, W, 3): one of its pictures, the last if none is named.

        Raises:
            DataError: there is none, so that nothing can be masked or edited.
        """
        shown = with_frames(asked, self.model.config.video, self.processor.makes, self.processor.limits)
        pictures = [part for _, part in media_seen(shown, self.processor.makes) if part.type == "image"]
        if not pictures:
            raise DataError("an answer with a mask or an edited picture to a conversation without one",
                            expected="a picture in front of the question")  # fmt: skip
        return load_image(pictures[number].value, root=asked.root, limits=self.processor.limits).pixels_HWC


def _heeded(making: Making, generator: GeneratorConfig) -> Making:
    """Without what a generator has no notion of: another of the same answer may have."""
    heeds = generator.heeds
    return replace(making, size=making.size if "size" in heeds else None, negative=making.negative if "negative" in heeds else None)


def _broken(reason: str | None) -> Part:
    raise why_not_drawn(reason)


def as_part(made: Made, picture: int) -> Part:
    """The part of a message: a picture as one of PIL's, a mask in run lengths, sound and video as they were made; of what was found,
    where it lies.

    Args:
        picture: number of the picture that a mask is of.
    """
    if made.kind == "mask":
        return mask_part(Mask.from_array(made.array), picture=picture)
    source = None if made.source is None else Origin(made.source, made.similarity)
    return Part(made.kind, Image.fromarray(np.ascontiguousarray(made.array)) if made.kind == "image" else made, source=source)
