"""`ask` and `chat`."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sensorium.core.errors import SensoriumError


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """Who answers, where, and how."""

    model: str
    device: str
    max_tokens: int
    """Longest answer."""
    temperature: float
    """0 answers greedily."""


def ask_command(picture: str, question: str, options: AnswerOptions, as_json: bool) -> None:
    """Answer one question, streaming to the terminal."""
    from sensorium.api import load
    from sensorium.cli.main import print_json
    from sensorium.inference.sampling import Sampling

    # Before the weights are read: a wrong option should not cost that time.
    sampling = Sampling(temperature=options.temperature)
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    started = time.monotonic()
    loaded = load(options.model, options.device)
    ready = time.monotonic()
    first: float | None = None
    text = ""
    stream = loaded.respond(
        messages,
        max_tokens=options.max_tokens,
        stream=True,
        sampling=sampling,
    )
    for piece in stream:
        first = first or time.monotonic()
        text += piece
        if not as_json:
            print(piece, end="", flush=True)
    done = time.monotonic()
    tokens = len(loaded.tokenizer.encode(text))
    if not as_json:
        print()
        return
    first = first or done
    print_json({
        "answer": text.strip(),
        "model": options.model,
        "device": str(loaded.network.device),
        "load_s": round(ready - started, 3),
        "first_token_s": round(first - ready, 3),
        "tokens": tokens,
        "tokens_per_s": round((tokens - 1) / (done - first), 2) if done > first else None,
    })  # fmt: skip


def chat_command(picture: str | None, options: AnswerOptions) -> None:
    """A conversation in the terminal."""
    from sensorium.api import load
    from sensorium.inference.sampling import Sampling
    from sensorium.media.image import load_image

    sampling = Sampling(temperature=options.temperature)
    loaded = load(options.model, options.device)
    messages: list[dict[str, Any]] = []
    pending: list[dict[str, Any]] = []
    if picture is not None:
        load_image(picture)
        pending.append({"type": "image", "image": picture})
    print("Type a question. /image PATH adds a picture, /new starts over, /quit leaves.")
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
        elif line.startswith("/"):
            print(f"unknown command {line.split()[0]}; there are /image, /new and /quit")
        elif line:
            turn = {"role": "user", "content": [*pending, {"type": "text", "text": line}]}
            answer = _answer(loaded, [*messages, turn], options.max_tokens, sampling)
            if answer is not None:
                messages += [turn, {"role": "assistant", "content": answer}]
                pending = []


def _add_picture(path: str, pending: list[dict[str, Any]]) -> None:
    from sensorium.media.image import load_image

    try:
        shape = load_image(Path(path).expanduser()).shape
    except SensoriumError as error:
        print(f"error: {error}", file=sys.stderr)
        return
    pending.append({"type": "image", "image": str(Path(path).expanduser())})
    print(f"added {path} ({shape.width_px}x{shape.height_px})")


def _answer(loaded: Any, messages: list[dict[str, Any]], max_tokens: int, sampling: Any) -> str | None:
    """Stream one answer; an error is printed and leaves the conversation as it was."""
    text = ""
    try:
        for piece in loaded.respond(messages, max_tokens=max_tokens, stream=True, sampling=sampling):
            print(piece, end="", flush=True)
            text += piece
        print()
    except SensoriumError as error:
        print(f"error: {error}", file=sys.stderr)
        return None
    except KeyboardInterrupt:
        print(" [stopped]")
    return text
