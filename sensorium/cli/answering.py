"""`ask`, where nothing is saved, and what it shares with `chat` and `ask --save`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sensorium.core.errors import ConfigError, GenerationError

if TYPE_CHECKING:
    from sensorium.core.sample import Part


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """Who answers, where, and how."""

    model: str
    device: str
    max_tokens: int
    """Longest answer."""
    temperature: float
    """0 answers greedily."""
    experts: tuple[str, ...] = ()
    """Who tells of pictures, which the model then does not see."""
    beams: int = 1
    """More than 1: a search with so many beams."""
    cache_features: bool = False
    """Keep what the encoder makes of pictures on disk."""


class Answerer:
    """A loaded model, and the experts that tell it of pictures."""

    def __init__(self, options: AnswerOptions, *, looks: bool = True) -> None:
        """Load both.

        Args:
            looks: whether there is, or may be, a picture to look at.

        Raises:
            ConfigError: a wrong option, an unknown expert, or a model that writes nothing.
            WeightsError: there is no such model.
        """
        from sensorium.api import load
        from sensorium.cli.evaluating import parse_experts
        from sensorium.inference.sampling import Sampling

        # Before the weights are read: a wrong option should not cost that time.
        self._sampling = Sampling(temperature=options.temperature, beams=options.beams)
        configs = parse_experts(options.experts)
        self.loaded = load(options.model, options.device)
        if options.cache_features:
            self.loaded.keep_features()
        config = self.loaded.network.config
        if config.text_frame is not None:
            raise ConfigError(
                "this model compares pictures with texts, and writes nothing",
                where=options.model,
                fix=f"sensorium match PICTURE TEXT TEXT ... --model {options.model}",
            )
        reads = bool(config.takes) or (config.picture_words is not None and config.picture_words.shared)
        if looks and not reads and not configs:
            raise ConfigError("this model takes no pictures", where=options.model,
                              fix="let an expert tell it of them: --expert captioner:model=nano")  # fmt: skip
        self._panel: Any = None
        if configs:
            from sensorium.experts.base import Panel

            self._panel = Panel.of(configs)
        self._max_tokens = options.max_tokens
        self.unmade: list[str] = []
        """Kinds of media that the last streamed answer asks for; only `ask --save` makes them."""
        self.missing: list[dict[str, Any]] = []
        """What the end of that answer went through, so that nobody can make it: kinds and errors."""
        self.boxes: list[str] = []
        """Where the boxes that it names lie, in words, for formats are for models to read."""
        self._last: Any = None
        """The last answer: what was asked, its prompt, its ids."""

    def told(self, messages: list[dict[str, Any]]) -> Any:
        """The conversation as the model is asked it: as it is, or with what the experts tell."""
        from sensorium.core.sample import parse_messages

        parsed = parse_messages(messages)
        return parsed if self._panel is None else self._panel.told(parsed, None)

    def stream(self, messages: list[dict[str, Any]]) -> Iterator[str]:
        """The answer in pieces; that of a search with beams in one, because only its end tells."""
        asked, self.unmade, self.missing, self.boxes = self.told(messages), [], [], []
        engine = self.loaded.engine
        prompt = self.loaded.processor.prompt(asked)
        if self._sampling.beams > 1:
            (found,) = engine.generate([prompt], max_tokens=self._max_tokens, sampling=self._sampling)
            ids = engine.completed(prompt, found, self._max_tokens, self._sampling)
            yield engine.text(ids)
        else:
            ids = yield from engine.stream(prompt, max_tokens=self._max_tokens, sampling=self._sampling)
        lost = engine.maker.cut_off(prompt, ids, full=len(ids) >= self._max_tokens)
        self._last, self.missing = (asked, prompt, ids, lost), [part.value for part in lost]
        self.unmade = self._media(ids)
        said = [part for part in engine.maker.spoken(prompt, ids) if part.type == "boxes"]
        self.boxes = [f"box on picture {part.value['picture']}: from ({left:.0f}, {top:.0f}) to ({right:.0f}, {bottom:.0f}), in pixels"
                      for part in said for left, top, right, bottom in part.value["places"]]  # fmt: skip

    def parts(self) -> tuple[Part, ...]:
        """The last streamed answer as the parts of a message: text, places, masks, which need no file, and what is missing."""
        from sensorium.core.sample import MISSING, Part, Sample
        from sensorium.inference.regressing import Room
        from sensorium.model.hand_check import fed_kinds

        asked, prompt, ids, lost = self._last
        maker = self.loaded.engine.maker
        if fed_kinds(self.loaded.network.config):
            # The maker would write anew what stands behind pictures.
            return (*(part for part in maker.spoken(prompt, ids) if part.type != MISSING), *lost)
        self.unmade = [kind for kind in self.unmade if kind != "mask"]
        room = Room(self._max_tokens - len(ids), self._sampling)
        parts = replace(maker, kinds=frozenset({"mask"})).parts(prompt, ids, Sample(asked), room=room)
        parts = (*(part for part in parts if part != Part("text", "")), *(part for part in lost if part not in parts))
        self.missing = [part.value for part in parts if part.type == MISSING]
        return parts or (Part("text", ""),)

    def _media(self, ids: Sequence[int]) -> list[str]:
        """The kinds of the media that an answer asks for, which its text does not show, and that could be made."""
        frames = self.loaded.processor.frames
        drawn = ["image"] if frames and frames.written(ids) else []
        return list(dict.fromkeys([*drawn, *(found.kind for found in self.loaded.engine.maker.find(ids) if found.whole)]))


def kind_of(file: str) -> str:
    """The kind of medium that a file's name says."""
    from sensorium.media.sound import SUFFIXES as SOUNDS
    from sensorium.media.video import SUFFIXES as VIDEOS

    name = file.lower()
    return "video" if name.endswith(VIDEOS) else "audio" if name.endswith(SOUNDS) else "image"


def asked_turn(picture: str, question: str | None) -> dict[str, Any]:
    """The user's message, of a picture, video or sound; where there is but one of them, it is a question without a picture.

    Raises:
        ConfigError: it is a picture without a question.
    """
    if question is None:
        # Unlike Path's, this answers for what is no name at all, such as a long question.
        if os.path.isfile(picture):
            raise ConfigError(f"a picture, {picture}, and no question about it", fix="write the question behind it")
        return {"role": "user", "content": [{"type": "text", "text": picture}]}
    kind = kind_of(picture)
    return {"role": "user", "content": [{"type": kind, kind: picture}, {"type": "text", "text": question}]}


def ask_command(picture: str, question: str | None, options: AnswerOptions, as_json: bool) -> None:
    """Answer one question, streaming to the terminal, or all at once as JSON, with the answer's parts.

    Raises:
        SystemExit: something is missing from the answer (9), such as a box that the token limit went through.
    """
    from sensorium.cli.main import print_json

    turn, started = asked_turn(picture, question), time.monotonic()
    answerer = Answerer(options, looks=question is not None)
    loaded, ready = answerer.loaded, time.monotonic()
    first: float | None = None
    text = ""
    stream = answerer.stream([turn])
    for piece in stream:
        first = first or time.monotonic()
        text += piece
        if not as_json:
            print(piece, end="", flush=True)
    done = time.monotonic()
    tokens = len(loaded.tokenizer.encode(text))
    parts = answerer.parts() if as_json else ()
    if not as_json:
        print()
    say_beside(answerer)
    if as_json:
        first = first or done
        print_json({
            "answer": words_of(parts),
            **described(parts, None if question is None else picture),
            "unmade": answerer.unmade,
            "missing": answerer.missing,
            "model": options.model,
            "device": str(loaded.network.device),
            "load_s": round(ready - started, 3),
            "first_token_s": round(first - ready, 3),
            "tokens": tokens,
            "tokens_per_s": round((tokens - 1) / (done - first), 2) if done > first else None,
        })  # fmt: skip
    if answerer.missing:
        sys.exit(GenerationError.exit_code)


def described(parts: Sequence[Part], picture: str | None, *, saved: bool = False) -> dict[str, Any]:
    """What `--json` says of an answer's parts, which are those of a Sample's message, and of the picture whose pixels their places are in.

    Args:
        picture: what was asked about; of a video or sound nothing is said.
        saved: media are names of files, and masks have files, too.
    """
    from sensorium.core.masks import read_mask
    from sensorium.media.header import image_shape

    content: list[dict[str, Any]] = []
    for number, part in enumerate(parts, start=1):
        value = part.to_json()
        if part.type == "mask":
            mask = read_mask({key: part.value[key] for key in ("size", "counts")}, "mask")
            value |= {"area_px": mask.area} | ({"file": f"part{number}.png"} if saved else {})
        content.append(value)
    shapes = [] if picture is None or kind_of(picture) != "image" else [(picture, image_shape(picture))]
    return {
        "content": content,
        "pictures": [{"image": name, "width_px": shape.width_px, "height_px": shape.height_px} for name, shape in shapes],
    }


def words_of(parts: Sequence[Part]) -> str:
    """The text of an answer; places, masks and media are no words."""
    return " ".join(part.value for part in parts if part.type == "text")


def say_missing(missing: Sequence[dict[str, Any]]) -> None:
    """What an answer lacks, on standard error, however the rest of it is shown."""
    for one in missing:
        print(f"error: no {one['kind']}: {one['error']}", file=sys.stderr, flush=True)


def say_beside(answerer: Answerer) -> None:
    """An answer whose media nobody makes is not to look like none, and where a box lies is to be read by people, too."""
    say_missing(answerer.missing)
    for line in answerer.boxes:
        print(line, file=sys.stderr, flush=True)
    if answerer.boxes:
        print("To have them drawn over it: sensorium ask --save FOLDER", file=sys.stderr, flush=True)
    for kind in answerer.unmade:
        print(f"{kind}: not made. To have it made: sensorium ask --save FOLDER", file=sys.stderr, flush=True)
