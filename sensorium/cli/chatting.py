"""`chat`."""

from __future__ import annotations

import os
import sys
from typing import Any

from sensorium.cli.answering import Answerer, AnswerOptions, kind_of, say_beside
from sensorium.core.errors import ConfigError, SensoriumError


def chat_command(picture: str | None, options: AnswerOptions) -> None:
    """A conversation in the terminal.

    Raises:
        ConfigError: a search with beams, beside what `Answerer` raises.
    """
    from sensorium.media.image import load_image

    if options.beams > 1:
        raise ConfigError(f"a conversation with {options.beams} beams, whose answers come piece by piece",
                          where="chat", fix="sensorium ask --beams N answers one question")  # fmt: skip
    answerer = Answerer(options)
    messages: list[dict[str, Any]] = []
    pending: list[dict[str, Any]] = []
    if picture is not None:
        if kind_of(picture) == "image":
            load_image(picture)
        pending.append({"type": kind_of(picture), kind_of(picture): picture})
    print("Type a question. /image PATH adds a picture, /file PATH a video or sound, /new starts over, /quit leaves.")
    while True:
        try:
            line = input("you> ").strip()
        except EOFError:
            print()
            return
        if line in ("/quit", "/exit"):
            return
        if line == "/new":
            messages, pending = [], []
        elif line.startswith("/image"):
            _add_picture(line.removeprefix("/image").strip(), pending)
        elif line.startswith("/file"):
            _add_file(line.removeprefix("/file").strip(), pending)
        elif line.startswith("/"):
            print(f"unknown command {line.split()[0]}; there are /image, /file, /new and /quit")
        elif line:
            turn = {"role": "user", "content": [*pending, {"type": "text", "text": line}]}
            answer = _answer(answerer, [*messages, turn])
            if answer is not None:
                messages += [turn, {"role": "assistant", "content": answer}]
                pending = []


def _add_picture(path: str, pending: list[dict[str, Any]]) -> None:
    from sensorium.media.image import load_image

    try:
        shape = load_image(os.path.expanduser(path)).shape
    except SensoriumError as error:
        print(f"error: {error}", file=sys.stderr)
        return
    pending.append({"type": "image", "image": os.path.expanduser(path)})
    print(f"added {path} ({shape.width_px}x{shape.height_px})")


def _add_file(path: str, pending: list[dict[str, Any]]) -> None:
    file, kind = os.path.expanduser(path), kind_of(path)
    if kind == "image":
        _add_picture(path, pending)
        return
    if not os.path.isfile(file):
        print(f"error: no such file: {path}", file=sys.stderr)
        return
    pending.append({"type": kind, kind: file})
    print(f"added {path} ({kind})")


def _answer(answerer: Answerer, messages: list[dict[str, Any]]) -> str | None:
    """Stream one answer; an error is printed and leaves the conversation as it was."""
    text = ""
    try:
        for piece in answerer.stream(messages):
            print(piece, end="", flush=True)
            text += piece
        print()
        say_beside(answerer)
    except SensoriumError as error:
        print(f"error: {error}", file=sys.stderr)
        return None
    except KeyboardInterrupt:
        print(" [stopped]")
    return text
