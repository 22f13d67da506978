"""What foreign formats share: rows by index, placeholders in text, rows of named columns.

`<image>` and its relatives exist only here; past an importer there are parts.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sensorium.core.errors import DataError
from sensorium.core.sample import Sample, parse_sample
from sensorium.data.source import JsonlSource, read_json

KINDS = ("image", "video", "audio")
PLACEHOLDER = re.compile(r"\n?<(image|video|audio)>\n?")
ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "chatgpt": "assistant", "bot": "assistant", "model": "assistant", "system": "system",
}  # fmt: skip
IMAGE_COLUMNS = ("image", "images", "img", "image_path", "file_name", "filename", "file", "path",
                 "jpg", "png", "webp", "jpeg")  # fmt: skip
VIDEO_COLUMNS = ("video", "videos", "video_path", "mp4", "webm", "mkv", "mov", "avi")
AUDIO_COLUMNS = ("audio", "audios", "audio_path", "wav", "mp3", "flac", "ogg")
TEXT_COLUMNS = ("caption", "text", "txt", "title", "description", "label", "sentence")
TURN_COLUMNS = ("messages", "conversations", "conversation")

Row = Mapping[str, Any]
Convert = Callable[[Row, str], dict[str, Any]]


class RowSource:
    """Samples converted from rows when they are asked for."""

    def __init__(
        self,
        name: str,
        length: int,
        row: Callable[[int], Row],
        convert: Convert,
        *,
        where: Callable[[int], str],
        root: Path | None,
    ) -> None:
        self.name = name
        self._length = length
        self._row = row
        self._convert = convert
        self._where = where
        self._root = root
        self.notes: list[str] = []
        """What the source leaves out without its being wrong; `data check` reports it."""

    def __len__(self) -> int:
        return self._length

    def where(self, index: int) -> str:
        return self._where(index)

    def __getitem__(self, index: int) -> Sample:
        where = self._where(index)
        try:
            row = self._row(index)
            if not isinstance(row, Mapping):
                raise DataError(f"row is {type(row).__name__}", expected="an object", where=where)
            value = self._convert(row, where)
        except (OSError, ValueError, NotImplementedError) as error:
            # A file that went away, text that is not UTF-8, a type that Arrow cannot convert.
            raise DataError(f"row is not readable: {error}", where=where) from None
        return parse_sample(value, where=where, root=self._root)


def json_rows(path: Path, convert: Convert, root: Path | None) -> RowSource:
    """Rows of a JSON array or of JSON lines, or the one row of an object over several lines.

    Raises:
        DataError: the file is none of them.
    """
    root = root or path.parent
    with path.open("rb") as stream:
        first = stream.read(64).removeprefix(BOM_UTF8).lstrip()[:1]
    if first == b"[" or (first == b"{" and _is_begun(path)):
        try:
            value = read_json(path.read_bytes(), str(path))
        except DataError:
            # Lines of which the first is broken may begin like an array, or like an object of several lines.
            if first == b"[" and path.suffix.lower() != ".jsonl":
                raise
        else:
            rows: list[Any] = value if isinstance(value, list) else [value]
            return RowSource(path.name, len(rows), rows.__getitem__, convert, root=root,
                             where=lambda i: f"{path}, row {i + 1}" if isinstance(value, list) else str(path))  # fmt: skip
    lines = JsonlSource(path, root)
    return RowSource(path.name, len(lines), lines.raw, convert, where=lines.where, root=root)


def _is_begun(path: Path) -> bool:
    """Whether the first line may be the beginning of an object that goes on below; one that is named as lines is so with a brace alone."""
    with path.open("rb") as stream:
        head = next((line for line in stream if line.strip()), b"").removeprefix(BOM_UTF8).strip()
    if head == b"{" or path.suffix.lower() == ".jsonl":
        return head == b"{"
    try:
        read_json(head, str(path))
    except DataError:
        return True
    return False


def turn_row(row: Row, where: str) -> dict[str, Any]:
    """A row with turns (`conversations` or `messages`) and its media as columns: of NExT-GPT 1.5 those of questions as `input_image` and
    so on, those of answers as `output_image` with `image_captions`.

    Raises:
        DataError: no turns, an unknown role, or placeholders and media that do not match.
    """
    key = next((k for k in TURN_COLUMNS if k in row), None)
    if key is None:
        raise DataError(
            f"no turns among the keys {sorted(row)}", expected=" or ".join(TURN_COLUMNS), where=where
        )
    media = {kind: _as_list(next((row[name] for name in (kind, f"{kind}s", f"input_{kind}") if row.get(name) is not None), None)) for kind in KINDS}
    left = {kind: [{"type": kind, kind: item} for item in items] for kind, items in media.items()}
    made = {kind: _captioned(kind, row, where) for kind in KINDS}
    lefts = {"user": left, "system": left, "assistant": made if any(made.values()) else left}
    turns: Any = row[key]
    if not isinstance(turns, Sequence) or isinstance(turns, str):
        raise DataError(f"{key!r} is {type(turns).__name__}", expected="a list", where=where)
    if not turns:
        raise DataError("the conversation is empty", expected="at least one message", where=where)
    messages = [_turn(turn, lefts, f"{where}, message {i + 1}") for i, turn in enumerate(turns)]
    has_slots = any(PLACEHOLDER.search(text) for turn in turns for text in _slotted(turn))
    lost = next((kind for kind, items in made.items() if items), None)
    if lost is not None:
        raise DataError(f"output_{lost} without a place in an answer", expected=f"<{lost}> in one", where=where)
    unplaced = [(kind, part) for kind, parts in left.items() for part in parts]
    if unplaced and has_slots:
        kind, total = unplaced[0][0], len(media[unplaced[0][0]])
        used = total - len(left[kind])
        raise DataError(
            f"{total} {kind}s but {used} <{kind}> placeholder{'s' if used != 1 else ''}",
            expected="one placeholder for each medium, or none at all",
            where=where,
        )
    if unplaced:
        # No placeholders at all: media stand before the first question.
        first = next((m for m in messages if m["role"] == "user"), None)
        if first is None:
            raise DataError("media but no user message to put them in", where=where)
        first["content"] = [*(part for _, part in unplaced), *first["content"]]
    return {"id": str(row.get("id", "")), "messages": messages, **_own_keys(row)}


def _captioned(kind: str, row: Row, where: str) -> list[dict[str, Any]]:
    """NExT-GPT's media of answers, as parts, each with what its generator is told, if anything."""
    items, captions = _as_list(row.get(f"output_{kind}")), _as_list(row.get(f"{kind}_captions"))
    if items and captions and len(captions) != len(items):
        raise DataError(f"{len(items)} of output_{kind} and {len(captions)} of {kind}_captions", expected="a caption for each, or none at all", where=where)
    # Captions of nothing are some foreign column.
    prompts = [{"prompt": text} for text in captions] or [{}] * len(items)
    return [{"type": kind, kind: item, **prompt} for item, prompt in zip(items, prompts, strict=False)]


def _own_keys(row: Row) -> dict[str, Any]:
    """What only our own format has, so that an array of Samples keeps it; of another shape it
    is some foreign column."""
    shapes = {"meta": Mapping, "separate_turns": bool}
    return {key: row[key] for key, shape in shapes.items() if isinstance(row.get(key), shape)}


def _slotted(turn: Any) -> list[str]:
    """The texts of a turn in which `<image>` stands for a medium: a typed part of text is
    just text, since its media are parts too."""
    content = _text_of(turn) if isinstance(turn, Mapping) else None
    texts = content if isinstance(content, list | tuple) else [content]
    return [text for text in texts if isinstance(text, str)]


def _turn(turn: Any, lefts: Mapping[str, dict[str, list[dict[str, Any]]]], where: str) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise DataError(f"turn is {type(turn).__name__}", expected="an object", where=where)
    said = turn.get("from", turn.get("role"))
    if not isinstance(said, str) or said not in ROLES:
        raise DataError(
            f"unknown role {said!r}", expected=", ".join(sorted(ROLES)), where=where
        )
    content, left = _text_of(turn), lefts[ROLES[said]]
    if isinstance(content, str):
        return {"role": ROLES[said], "content": _place(content, left, where)}
    if not isinstance(content, Sequence):
        raise DataError(f"content is {type(content).__name__}", expected="text or parts", where=where)
    return {"role": ROLES[said], "content": [p for c in content for p in _part(c, left, where)]}


def _text_of(turn: Mapping[str, Any]) -> Any:
    return turn.get("value", turn.get("content"))


def _place(text: str, left: dict[str, list[dict[str, Any]]], where: str) -> list[dict[str, Any]]:
    """Text with placeholders -> parts."""
    parts: list[dict[str, Any]] = []
    position = 0
    for match in PLACEHOLDER.finditer(text):
        if text[position : match.start()]:
            parts.append({"type": "text", "text": text[position : match.start()]})
        kind = match.group(1)
        if not left[kind]:
            raise DataError(
                f"more <{kind}> placeholders than {kind}s",
                expected="one placeholder for each medium",
                where=where,
            )
        parts.append(left[kind].pop(0))
        position = match.end()
    if text[position:] or not parts:
        parts.append({"type": "text", "text": text[position:]})
    return parts


def _part(part: Any, left: dict[str, list[dict[str, Any]]], where: str) -> list[dict[str, Any]]:
    """One part of an OpenAI message."""
    if isinstance(part, str):
        return _place(part, left, where)
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text":
        return [{"type": "text", "text": part.get("text", "")}]
    if kind in ("image_url", "input_image"):
        url = part.get("image_url")
        return [{"type": "image", "image": from_url(url.get("url") if isinstance(url, Mapping) else url, where)}]  # fmt: skip
    if kind in KINDS:
        value = part.get(kind, part.get("path", part.get("url")))
        if value is None and left[kind]:
            found = left[kind].pop(0)
            return [found | {kind: from_url(found[kind], where)}]
        if value is None:
            raise DataError(f"part of type {kind!r} without a value", where=where)
        return [{"type": kind, kind: from_url(value, where)}]
    raise DataError(
        f"unknown part type {kind!r}", expected="text, image_url, image, video or audio", where=where
    )


def from_url(url: Any, where: str) -> Any:
    """A data URL as bytes, a file URL as a path; nothing is fetched from the network.

    Raises:
        DataError: a remote URL, or a malformed data URL.
    """
    import base64

    if not isinstance(url, str):
        return url
    if url.startswith("data:"):
        _, comma, body = url.partition(",")
        try:
            return base64.b64decode(body if comma else "", validate=True)
        except ValueError:  # binascii.Error, or characters beyond ASCII.
            raise DataError("malformed data URL", where=where) from None
    if url.startswith(("http://", "https://")):
        raise DataError(
            f"remote medium {url[:80]!r}", expected="a local path or a data URL", where=where,
            fix="download the media first",
        )  # fmt: skip
    return url.removeprefix("file://")


def column_row(row: Row, where: str) -> dict[str, Any]:
    """A row of a table: turns, or question and answer, or image and caption.

    Raises:
        DataError: no usable columns.
    """
    if any(k in row for k in TURN_COLUMNS):
        return turn_row({k: _cell(v) for k, v in row.items()}, where)
    # An empty cell of a CSV file is the empty string.
    row = {k: v for k, v in row.items() if v is not None and not (isinstance(v, str) and not v)}
    content: list[dict[str, Any]] = []
    for kind, columns in (("image", IMAGE_COLUMNS), ("video", VIDEO_COLUMNS), ("audio", AUDIO_COLUMNS)):
        column = next((k for k in columns if k in row), None)
        # Sound beside a picture or a film is mostly its own, which models without an ear would refuse; rows of turns may have both.
        if column and not (kind == "audio" and content):
            content += [{"type": kind, kind: _cell(v)} for v in _as_list(row[column])]
    if "question" in row and "answer" in row:
        content.append({"type": "text", "text": str(row["question"])})
        answer = str(row["answer"])
    else:
        text_key = next((k for k in TEXT_COLUMNS if k in row), None)
        if text_key is None or not content:
            raise DataError(
                f"columns {sorted(row)} or their values do not make a sample",
                expected=f"an image ({', '.join(IMAGE_COLUMNS[:4])}, ...), a video or sound with a text "
                f"({', '.join(TEXT_COLUMNS[:3])}, ...) or question and answer",
                where=where,
            )
        answer = str(row[text_key])
    return {"id": str(row.get("id", "")), "messages": [
        {"role": "user", "content": content}, {"role": "assistant", "content": answer}],
        **_own_keys(row)}  # fmt: skip


def _cell(value: Any) -> Any:
    """Hugging Face stores an image as {bytes, path}."""
    if isinstance(value, Mapping) and set(value) == {"bytes", "path"}:
        return value["bytes"] if value["bytes"] is not None else value["path"]
    if isinstance(value, list):
        return [_cell(v) for v in value]
    return value


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
