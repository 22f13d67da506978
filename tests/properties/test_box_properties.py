"""Boxes for any numbers, any shape of picture and any text."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sensorium.core.batch import Grid, MediaShape
from sensorium.core.boxes import Box, Point
from sensorium.core.errors import DataError
from sensorium.core.parts import ResolutionConfig
from sensorium.media.anyres import AnyResolution
from sensorium.media.native import NativeResolution
from sensorium.media.resolution import FixedResolution
from sensorium.text.boxes import BOX_FORMATS, Mention, find_box_format

UNIT = st.floats(0, 1)
FORMATS = sorted(BOX_FORMATS)
RESOLUTIONS: dict[str, tuple[ResolutionConfig, int]] = {
    "letterbox": (FixedResolution(fit="letterbox"), 1),
    "stretch": (FixedResolution(fit="stretch"), 1),
    "crop": (FixedResolution(fit="crop"), 1),
    "middle": (FixedResolution(fit="middle"), 1),
    "tiles": (AnyResolution(max_tokens=None), 1),
    "one of several": (AnyResolution(several="square"), 2),
    "native": (NativeResolution(max_pixels=28 * 28 * 64), 1),
}
PIECES = ["[", "[[", "]", "]]", "(", ")", "{", "}", "<", ">", ",", ";", ".", "-", " ", "\n", "0", "1",
          "0.5", "999", "9" * 5000, "٣", "<box>", "</box>", "<ref>", "</ref>", "<p>", "</p>", "<delim>",
          "<phrase>", "</phrase>", "<object>", "</object>", "</delimiter_of_multi_objects/>",
          "<patch_index_0044>", "<patch_index_9999>", "[0.1,0.2,0.3,0.4]", "(1,2),(3,4)",
          "{<1><2><3><4>}", "[[001,002,003,004]]", "\ud800"]  # fmt: skip


def boxes() -> st.SearchStrategy[Box]:
    def ordered(x: tuple[float, float], y: tuple[float, float]) -> Box:
        return Box(min(x), min(y), max(x), max(y))

    return st.builds(ordered, st.tuples(UNIT, UNIT), st.tuples(UNIT, UNIT))


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=150, deadline=None)
@given(st.lists(boxes(), min_size=1, max_size=3))
@example([Box(0, 0, 1, 1), Box(0, 0, 0, 0), Box(1, 1, 1, 1)])
@example([Box(0.5, 0.5, 0.5, 0.5), Box(0.9995, 0.25, 1, 0.25)])
def test_what_is_written_reads_back_within_half_a_quantum(name: str, written: list[Box]) -> None:
    style = find_box_format(name)
    text = f"x {style.write(written)} y"
    parsed = style.parse(text)
    assert not parsed.malformed
    assert len(parsed.boxes) == len(written)
    for box, back in zip(written, parsed.boxes, strict=True):
        # Kosmos-2 widens a box inside one row or column of its cells to their edges.
        widened = name == "kosmos2" and (back.x0 * 32 % 1 == 0)
        error = style.quantum * (1 if widened else 0.5) + 1e-12
        wanted = [min(n, style.largest) for n in box.numbers]
        assert back.numbers == pytest.approx(wanted, abs=error, rel=0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.builds(Point, UNIT, UNIT), min_size=1, max_size=3))
def test_points_read_back(points: list[Point]) -> None:
    shikra = find_box_format("shikra")
    (mention,) = shikra.parse(shikra.write(points)).mentions
    for point, back in zip(points, mention.places, strict=True):
        assert back.numbers == pytest.approx(point.numbers, abs=0.0005 + 1e-12, rel=0)


@pytest.mark.parametrize("name", RESOLUTIONS)
@settings(max_examples=120, deadline=None)
@given(st.integers(1, 20_000), st.integers(1, 20_000), boxes(), st.sampled_from([14, 32, 224, 336]))
@example(1, 1, Box(0, 0, 1, 1), 224)
@example(3, 20_000, Box(0.25, 0, 0.75, 1), 224)
@example(20_000, 3, Box(0, 0.999, 1, 1), 336)
def test_boxes_go_to_the_encoder_and_back(
    name: str, height: int, width: int, unit: Box, size: int
) -> None:
    resolution, pictures = RESOLUTIONS[name]
    shape = MediaShape(height, width)
    box = unit.moved((width, 0), (height, 0))
    if name == "native" and max(height, width) > 200 * min(height, width):
        with pytest.raises(DataError, match="200 times"):
            resolution.plan(shape, size, Grid(2, 2), pictures)
        return
    plan = resolution.plan(shape, size, Grid(2, 2), pictures)
    frame, views = resolution.frame(shape, plan, size), resolution.views(shape, plan, size)
    assert len(views) == plan.images
    for view in (frame, *views):
        near = 1e-6 * max(height, width)
        assert view.backward(view.forward(box)).numbers == pytest.approx(box.numbers, abs=near)
        there = view.to_unit(view.forward(box))
        assert view.backward(view.from_unit(there)).numbers == pytest.approx(box.numbers, abs=near)
        shown = view.shown(box)
        if shown is not None:
            assert 0 <= shown.x0 <= shown.x1 <= view.width_px
            assert 0 <= shown.y0 <= shown.y1 <= view.height_px
    if name not in ("crop", "middle"):
        # Only a crop loses anything: the whole picture lies in the frame.
        whole = frame.forward(Box(0, 0, width, height))
        assert whole.numbers == pytest.approx(
            Box(max(whole.x0, 0), max(whole.y0, 0), min(whole.x1, frame.width_px),
                min(whole.y1, frame.height_px)).numbers, abs=1e-6)  # fmt: skip


def check(name: str, text: str) -> None:
    parsed = find_box_format(name).parse(text)
    for mention in parsed.mentions:
        assert 0 <= mention.span[0] < mention.span[1] <= len(text)
    for bad in parsed.malformed:
        # Nothing between two separators is a bad place too.
        assert 0 <= bad.span[0] <= bad.span[1] <= len(text)
    starts = [mention.span for mention in parsed.mentions]
    assert starts == sorted(starts)
    assert all(isinstance(m, Mention) and m.places for m in parsed.mentions)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_any_pieces_of_markup_parse(name: str, text: str) -> None:
    check(name, text)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80))
def test_any_text_parses(name: str, text: str) -> None:
    check(name, text)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("piece", ["[", "<box>", "<object>", "{", "<phrase>a</phrase>", "<p>a</p> ",
                                   "(1,", "[0.1,", "{<1>}<delim>", "<patch_index_0001>", " "])  # fmt: skip
def test_long_output_parses_in_time(name: str, piece: str) -> None:
    """A model that repeats itself: were time to grow as the square of the length, minutes."""
    began = time.process_time()
    check(name, piece * 20_000)
    for start in ("<object>", "<p>a</p>", "<phrase>a</phrase>", "<ref>a</ref>", "{", "[", "[[", "<box>("):
        check(name, start + piece * 20_000)
    assert time.process_time() - began < 4


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("way", [way for way in RESOLUTIONS if way not in ("crop", "middle")])
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4000), st.integers(1, 4000), boxes(), st.sampled_from([14, 224, 336]))
def test_what_is_written_of_a_frame_leads_back_to_the_picture(
    way: str, name: str, height: int, width: int, unit: Box, size: int
) -> None:
    """The whole way: pixels of the picture, the frame of its resolution, text, and back."""
    resolution, pictures = RESOLUTIONS[way]
    shape, style = MediaShape(height, width), find_box_format(name)
    if way == "native" and max(height, width) > 200 * min(height, width):
        return
    frame = resolution.frame(shape, resolution.plan(shape, size, Grid(2, 2), pictures), size)
    box = unit.moved((width, 0), (height, 0))
    there = frame.to_unit(frame.forward(box))
    (read,) = style.parse(style.write([there])).boxes
    back = frame.backward(frame.from_unit(read))
    # A step of the text is a part of the frame; the format's largest number may lie a step below its end.
    step = style.quantum if name == "kosmos2" else style.quantum / 2
    step = max(step, 1 - style.largest)
    reach = (step * frame.width_px / frame.scale_x, step * frame.height_px / frame.scale_y) * 2
    for number, wanted, most in zip(back.numbers, box.numbers, reach, strict=True):
        assert number == pytest.approx(wanted, abs=most + 1e-6 * max(height, width), rel=0)
