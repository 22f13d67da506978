"""`ask --save`: an answer as a Sample's message, its media as files beside it, and its places drawn over the picture."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from safetensors import SafetensorError

from sensorium.cli.making_options import MakingOptions
from sensorium.cli.watching import Watch
from sensorium.core.atomic import atomic_folder, write_json
from sensorium.core.errors import ConfigError, GenerationError, SensoriumError
from sensorium.core.hands import Made, Making
from sensorium.core.sample import MISSING, Message, Part, parse_sample

if TYPE_CHECKING:
    from sensorium.cli.answering import Answerer, AnswerOptions


@dataclass(frozen=True, slots=True)
class Saving:
    """Where an answer goes, and how its media are made."""

    folder: str | None
    asked: MakingOptions
    speak: bool
    """End with the answer's text as sound."""
    draw: bool = False
    """Begin with a picture, by an LLM that writes pictures as tokens."""

    def wanted(self, *, choosing: bool) -> bool:
        """Whether an answer is to be written down.

        Args:
            choosing: whether it is one of a list, so that nothing is made.

        Raises:
            ConfigError: what is said of what is made would mean nothing.
        """
        said = [f"--{name}" for name in ("draw", "speak") if getattr(self, name)] + [f"--{name}" for name in self.asked.said()]
        self.asked.check()
        if choosing and (said or self.folder is not None):
            raise ConfigError(f"{', '.join(said or ['--save'])} with --choices", expected="one of them: a choice makes nothing")
        if said and self.folder is None:
            raise ConfigError(f"{', '.join(said)} without --save", fix="--save FOLDER says where what is made goes")
        return self.folder is not None

    def making(self, answerer: Answerer, watch: Watch) -> Making:
        """How this model makes what it makes; what is asked for and changes nothing is said on standard error."""
        config = answerer.loaded.network.config
        for line in self.asked.idle(config):
            print(line, file=sys.stderr, flush=True)
        return self.asked.making(config, Making(draw=self.draw, progress=watch.progress, cancelled=watch.cancelled))


def ask_and_save(picture: str, question: str | None, options: AnswerOptions, saving: Saving, as_json: bool) -> None:
    """Answer one question with all that the model makes, and write it down, also where some of it could not be made.

    Args:
        saving: one that is `wanted`.

    Raises:
        ConfigError: a folder in use, a search with beams, or what `Answerer` raises.
        SystemExit: a medium could not be made (9), or was stopped by Ctrl-C (130); the rest is written.
    """
    from sensorium.cli.answering import Answerer, asked_turn, described, say_missing, words_of
    from sensorium.cli.main import print_json
    from sensorium.inference.sampling import Sampling

    folder = Path(cast(str, saving.folder))
    check_folder(folder)
    if options.beams > 1:
        raise ConfigError("--save with --beams", expected="one of them")
    turn = asked_turn(picture, question)
    answerer = Answerer(options, looks=question is not None)
    with Watch() as watch:
        making = saving.making(answerer, watch)
        frames = answerer.loaded.processor.frames if saving.draw else None
        # What a picture takes is the model's business.
        room = max(options.max_tokens, len(frames.sized(making.size))) if frames else options.max_tokens
        answer = answerer.loaded.answer(answerer.told([turn]), max_tokens=room, making=making,
                                        sampling=Sampling(temperature=options.temperature), speak=saving.speak)  # fmt: skip
    text = words_of(answer.content)
    # What is heard of an answer without words is to be read, too.
    shown = text or next((part.prompt for part in answer.content if part.speech and part.type != MISSING), None)
    if shown and not as_json:
        # First of all: it is not to be lost with a disk that is full.
        print(shown, flush=True)
    files = save_answer(answer, turn, None if question is None else Path(picture), folder)
    missing = [part.value for part in answer.content if part.type == MISSING]
    if as_json:
        # As they were written, with the names of files.
        written = parse_sample(json.loads((folder / files[0]).read_text(encoding="utf-8"))).messages[-1].content
        print_json({"answer": text, **described(written, None if question is None else picture, saved=True),
                    "parts": [part.type for part in answer.content], "missing": missing, "folder": str(folder), "files": files})  # fmt: skip
    else:
        print(f"{folder}: {', '.join(files)}")
        for number, part in enumerate(answer.content, start=1):
            if part.source is not None:
                print(f"part{number}.png: found, {part.source}")
    say_missing(missing)
    if missing:
        sys.exit(130 if watch.stopped else GenerationError.exit_code)


def check_folder(folder: Path, where: str = "--save") -> None:
    """Whether a folder may be written there.

    Raises:
        ConfigError: something is there, or on the way to it.
    """
    try:
        above = next(one for one in folder.absolute().parents if one.exists())
        used = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        # A name that is too long, say, or a folder that may not be looked into.
        raise ConfigError(f"{folder!s:.80}: {error.strerror}", where=where, fix="name another folder") from None
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"{above} is no folder to write in", where=where, fix="name a folder elsewhere")
    if used:
        raise ConfigError(f"{folder} exists and is not an empty folder", where=where, fix="name a new folder")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What a disk refuses, inside, as an error of ours.

    Raises:
        SensoriumError: it is full, say; what stood there stands.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        # Of an OSError without, it is shutil's, which lists each file.
        said = error.strerror if isinstance(error, OSError) else str(error)
        reason = said or "not all files could be copied"
        raise SensoriumError(f"nothing was written: {reason}", where=str(folder), fix="make room there, or name a folder elsewhere") from error


def save_answer(answer: Message, question: dict[str, Any], picture: Path | None, folder: Path) -> list[str]:
    """Write `sample.json` with question and answer, and what it names; nothing where something fails.

    Returns:
        Names of the files, `sample.json` first.

    Raises:
        ConfigError: the folder is in use.
        SensoriumError: the disk refuses it.
    """
    from sensorium.cli.answering import kind_of

    check_folder(folder)
    with writing(folder), atomic_folder(folder) as target:
        asked = target / f"asked{picture.suffix.lower()}" if picture else target
        if picture is not None:
            shutil.copyfile(picture, asked)
        parts = [part if part.type not in WRITERS else replace(part, value=WRITERS[part.type](part.value, target, i))
                 for i, part in enumerate(answer.content, start=1)]  # fmt: skip
        content = [part if part["type"] == "text" else {"type": part["type"], part["type"]: asked.name} for part in question["content"]]
        messages = [{**question, "content": content}, Message("assistant", tuple(parts)).to_json()]
        write_json(target / "sample.json", {"messages": messages})
        if picture is not None and kind_of(str(picture)) == "image":
            _draw(parts, picture, target)
        names = sorted(file.name for file in target.iterdir())
    return ["sample.json", *(name for name in names if name != "sample.json")]


def _picture(value: Any, target: Path, number: int) -> str:
    name = f"part{number}.png"
    value.save(target / name)
    return name


def _sound(value: Made, target: Path, number: int) -> str:
    from sensorium.media.audio_file import write_wav

    assert value.sample_rate_hz is not None
    name = f"part{number}.wav"
    write_wav(target / name, value.array, value.sample_rate_hz)
    return name


def _video(value: Made, target: Path, number: int) -> str:
    """An animated WebP, as in the report, but without loss; its name says that it moves, for the suffix alone is a picture's."""
    from PIL import Image

    name = f"part{number}-video.webp"
    first, *others = [Image.fromarray(frame) for frame in value.array]
    first.save(target / name, save_all=True, append_images=others, duration=round(1000 / (value.fps or 8)), loop=0, lossless=True)
    return name


def _mask(value: dict[str, Any], target: Path, number: int) -> dict[str, Any]:
    """A PNG of the picture's size, white inside, for other programs; the message keeps its run lengths."""
    from PIL import Image

    from sensorium.core.masks import read_mask

    inside_HW = read_mask({key: value[key] for key in ("size", "counts")}, "mask").array()
    Image.fromarray(inside_HW).save(target / f"part{number}.png")
    return value


WRITERS = {"image": _picture, "audio": _sound, "video": _video, "mask": _mask}


def _draw(parts: list[Part], picture: Path, target: Path) -> None:
    """The picture with the boxes, points and masks that are said of it, if any are."""
    from sensorium.media.drawing import draw_marks, marks_of
    from sensorium.media.image import load_image

    marks = marks_of(parts)
    if marks:
        draw_marks(load_image(picture), marks).to_pil().save(target / "drawn.png")
