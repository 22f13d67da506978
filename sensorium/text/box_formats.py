"""Formats in which coordinates are digits: Shikra, Qwen-VL, CogVLM, MiniGPT-v2."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sensorium.core.boxes import Box, Point
from sensorium.core.errors import DataError
from sensorium.text.boxes import Parsed, Piece, Place, Span, as_box, only_boxes, steps, unmarked

DIGIT = re.compile("[0-9]")
UNCLOSED = "not closed"


class Shikra:
    """`[0.120,0.304,0.560,0.871]`, several joined by `;`, points `[0.120,0.304]`.

    Three decimals of the padded square (github.com/shikras/shikra, box_process_function.py).
    As there, one digit stands before the decimal point, so that 9.999 reads and 10 does not, spaces
    do not belong into the brackets, and a bracket with one bad place is bad as a whole. A phrase
    has no marks and stands right in front.
    """

    quantum = 0.001
    largest = 1.0
    marked = False
    cut = re.compile(r"\[[0-9.,;+\-\s]*$", re.ASCII)

    _bracket = re.compile(r"\[([0-9.,;+\-\s]*)(\])?", re.ASCII)
    _number = re.compile(r"[0-9](?:\.[0-9]*)?")

    def write(self, places: Sequence[Place], phrase: str | None = None) -> str:
        if not places or len({type(place) for place in places}) > 1:
            raise DataError(
                "boxes and points in one bracket" if places else "no place to be written",
                expected="one box or more, or one point or more",
            )
        written = (",".join(f"{min(max(n, 0.0), 1.0):.3f}" for n in p.numbers) for p in places)
        return f"{phrase or ''}[{';'.join(written)}]"

    def parse(self, text: str) -> Parsed:
        found = Parsed()
        for match in self._bracket.finditer(text):
            if not DIGIT.search(match[1]):
                continue
            closed = bool(match[2])
            found.take(match.span(), self._pieces(match[1], match.span(), closed))
        return found

    def _pieces(self, content: str, span: Span, closed: bool) -> list[Piece]:
        if not closed:
            return [Piece(span, UNCLOSED)]
        texts = [piece.split(",") for piece in content.split(";")]
        counts = {len(numbers) for numbers in texts}
        if counts not in ({2}, {4}):
            said = " and ".join(map(str, sorted(counts)))
            return [Piece(span, f"places of {said} numbers, expected 4, or 2 for points")]
        if not all(self._number.fullmatch(n) for numbers in texts for n in numbers):
            return [Piece(span, "not numbers of one digit and decimals")]
        pieces: list[Piece] = []
        for part, (_, place_span) in zip(texts, split(content, ";", span[0] + 1), strict=True):
            numbers = [float(n) for n in part]
            place = Point(*numbers) if len(numbers) == 2 else as_box(numbers)
            pieces.append(Piece(place_span, place))
        return pieces


class QwenVL:
    """`<ref>phrase</ref><box>(120,304),(560,871)</box>`, several boxes one after another.

    Whole numbers 0-999. The README (github.com/QwenLM/Qwen-VL) says [0, 1000), its
    eval_mm/evaluate_grounding.py divides by 999, as here, and its tokenizer divides by 1000 only
    to draw. The difference is at most a thousandth. As in that evaluation the tags may be missing,
    which is how text looks once special tokens are dropped, and numbers may have decimals or lie
    outside.
    """

    quantum = 1 / 999
    largest = 1.0
    marked = True
    cut = re.compile(r"<box>[^<]*$")

    _number = r"\s*(-?[0-9]{1,9}(?:\.[0-9]{0,9})?)\s*"
    _corners = re.compile(rf"\({_number},{_number}\),\({_number},{_number}\)", re.ASCII)
    _tagged = re.compile(
        r"(?:<ref>(?P<ref>[^<]*)</ref>\s*)?(?P<boxes>(?:<box>[^<]*</box>)+|<box>[^<]*)"
        rf"|(?P<bare>{_corners.pattern})",
        re.ASCII,
    )
    _box = re.compile(r"<box>([^<]*)(</box>)?")

    def write(self, places: Sequence[Place], phrase: str | None = None) -> str:
        named = "" if phrase is None else f"<ref>{unmarked(phrase)}</ref>"
        corners = (steps(box.numbers, 999, 999) for box in only_boxes(places, "qwen_vl"))
        return named + "".join(f"<box>({a},{b}),({c},{d})</box>" for a, b, c, d in corners)

    def parse(self, text: str) -> Parsed:
        found = Parsed()
        for match in self._tagged.finditer(text):
            if match["bare"]:
                found.take(match.span(), [Piece(match.span(), self._read(match["bare"]))])
                continue
            phrase = None if match["ref"] is None else match["ref"].strip()
            pieces = [
                Piece(box.span(), self._read(box[1]) if box[2] else UNCLOSED)
                for box in self._box.finditer(text, *match.span("boxes"))
            ]
            found.take(match.span(), pieces, phrase)
        return found

    def _read(self, corners: str) -> Box | str:
        match = self._corners.fullmatch(corners)
        if not match:
            return "expected (x0,y0),(x1,y1)"
        return as_box([float(number) / 999 for number in match.groups()])


class CogVLM:
    """`[[120,304,560,871]]`, several joined by `;`.

    Parts of the picture times 1000, three digits (github.com/THUDM/CogVLM, README). As 1000 has
    four, 999 is the last, and the right and lower border of a picture is read back as 0.999; whether the
    original's data rounds or cuts is not published. Read as in its grounding_parser.py: each place
    by itself, digits only, over 1000. A phrase has no marks and stands in front (the original
    guesses it with a parser of English).
    """

    quantum = 0.001
    largest = 0.999
    marked = False
    cut = re.compile(r"\[\[[0-9,;\s]*\]?$", re.ASCII)

    _bracket = re.compile(r"\[\[([^\[\]]*)(\]\])?")
    _numbers = re.compile(r"[0-9]{1,9}(?:,[0-9]{1,9}){3}")

    def write(self, places: Sequence[Place], phrase: str | None = None) -> str:
        boxes = only_boxes(places, "cogvlm")
        written = (",".join(f"{n:03d}" for n in steps(b.numbers, 1000, 999)) for b in boxes)
        return f"{phrase} [[{';'.join(written)}]]" if phrase else f"[[{';'.join(written)}]]"

    def parse(self, text: str) -> Parsed:
        found = Parsed()
        for match in self._bracket.finditer(text):
            if not DIGIT.search(match[1]):
                continue
            if not match[2]:
                found.take(match.span(), [Piece(match.span(), UNCLOSED)])
                continue
            split_places = split(match[1], ";", match.start(1))
            found.take(match.span(), [Piece(span, self._read(part)) for part, span in split_places])
        return found

    def _read(self, numbers: str) -> Box | str:
        if not self._numbers.fullmatch(numbers):
            return "expected four whole numbers"
        return as_box([int(number) / 1000 for number in numbers.split(",")])


class MiniGPTv2:
    """`<p>phrase</p> {<12><30><56><87>}`, several joined by `<delim>`.

    Whole numbers 0-100 (github.com/Vision-CAIR/MiniGPT-4: coco_dataset.py, flickr.py, demo_v2.py).
    The original cuts decimals off when it writes; here they are rounded, which halves the error.
    Read as in eval_ref.py: spaces do not count, a number has up to three digits, over 100.
    """

    quantum = 0.01
    largest = 1.0
    marked = True
    cut = re.compile(r"(?:<delim>\s*)?\{[<>0-9\s]*$", re.ASCII)

    _mention = re.compile(
        r"(?:<p>(?P<phrase>[^<]*)</p>\s*)?"
        r"(?P<boxes>\{[^{}]*\}(?:\s*<delim>\s*\{[^{}]*\})*|\{[^{}]*)",
        re.ASCII,
    )
    _braces = re.compile(r"\{([^{}]*)(\})?")
    _begin = re.compile(r"\{\s*(?:<\s*)?-?[0-9]", re.ASCII)
    _corners = re.compile(r"<([0-9]{1,3})><([0-9]{1,3})><([0-9]{1,3})><([0-9]{1,3})>")

    def write(self, places: Sequence[Place], phrase: str | None = None) -> str:
        corners = (steps(box.numbers, 100, 100) for box in only_boxes(places, "minigpt_v2"))
        written = "<delim>".join("{" + "".join(f"<{n}>" for n in box) + "}" for box in corners)
        return written if phrase is None else f"<p>{unmarked(phrase)}</p> {written}"

    def parse(self, text: str) -> Parsed:
        found = Parsed()
        for match in self._mention.finditer(text):
            if not self._begin.match(match["boxes"]):
                continue
            phrase = None if match["phrase"] is None else match["phrase"].strip()
            pieces = [
                Piece(braces.span(), self._read(braces[1]) if braces[2] else UNCLOSED)
                for braces in self._braces.finditer(text, *match.span("boxes"))
            ]
            found.take(match.span(), pieces, phrase)
        return found

    def _read(self, corners: str) -> Box | str:
        match = self._corners.fullmatch("".join(corners.split()))
        if not match:
            return "expected <x0><y0><x1><y1> of up to three digits"
        return as_box([int(number) / 100 for number in match.groups()])


def split(content: str, separator: str, start: int) -> Iterator[tuple[str, Span]]:
    """The parts of a text between separators, with their spans; the text begins at `start`."""
    for part in content.split(separator):
        yield part, (start, start + len(part))
        start += len(part) + len(separator)
