"""Boxes: where the encoder sees them, and how each published format writes and reads them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from transformers.models.kosmos2.processing_kosmos2 import (
    Kosmos2Processor,
    clean_text_and_extract_entities_with_bboxes,
    coordinate_to_patch_index,
    patch_index_to_coordinate,
)

from sensorium import media
from sensorium.core.batch import Grid, MediaShape, Preprocess
from sensorium.core.boxes import Box, Point, View, read_boxes, read_points
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.parts import ResolutionConfig
from sensorium.media.anyres import AnyResolution
from sensorium.media.image import load_image
from sensorium.media.resolution import FixedResolution
from sensorium.text.boxes import BOX_FORMATS, BoxFormatName, Mention, find_box_format

SIZE = 96
PREPROCESS = Preprocess(SIZE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")
GRIDS = ((1, 2), (2, 1), (2, 2), (1, 3), (3, 1))
RESOLUTIONS: dict[str, ResolutionConfig] = {
    "letterbox": FixedResolution(fit="letterbox"),
    "stretch": FixedResolution(fit="stretch"),
    "crop": FixedResolution(fit="crop"),
    "middle": FixedResolution(fit="middle"),
    "tiles": AnyResolution(grids=GRIDS),
    "tiles, thumbnail stretched": AnyResolution(grids=GRIDS, thumbnail_fit="stretch"),
    "tiles, thumbnail cropped": AnyResolution(grids=GRIDS, thumbnail_fit="crop"),
    "tiles alone": AnyResolution(grids=GRIDS, thumbnail=False),
    "one of several": AnyResolution(several="square"),
}
SHAPES = [(240, 240), (150, 400), (400, 150), (333, 500), (90, 70)]


def pictures(name: str) -> int:
    return 2 if name == "one of several" else 1


def extent(pixels_HWC: np.ndarray) -> tuple[float, float, float, float] | None:
    """Bounds of what is black, to a part of a pixel: a border pixel counts by its darkness."""
    dark_HW = 1 - pixels_HWC.astype(float).mean(axis=2) / 255
    if dark_HW.max() < 0.5:
        return None
    bounds: list[float] = []
    for profile in (dark_HW.max(axis=0), dark_HW.max(axis=1)):
        full = np.flatnonzero(profile > 0.5)
        bounds += [float(full[0]), float(full[-1] + 1)]
    return bounds[0], bounds[2], bounds[1], bounds[3]


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("name", RESOLUTIONS)
def test_boxes_move_with_the_pixels(name: str, height: int, width: int) -> None:
    """A black rectangle on white is where the View says in every encoder input."""
    resolution, shape = RESOLUTIONS[name], MediaShape(height, width)
    plan = resolution.plan(shape, SIZE, Grid(4, 4), pictures(name))
    views = resolution.views(shape, plan, SIZE)
    seen = 0
    for box in (Box(0.1 * width, 0.2 * height, 0.45 * width, 0.6 * height),
                Box(0.4 * width, 0.4 * height, 0.9 * width, 0.8 * height)):  # fmt: skip
        box = Box(*(float(round(n)) for n in box.numbers))
        pixels = np.full((height, width, 3), 255, np.uint8)
        pixels[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = 0
        inputs = resolution.cut(load_image(pixels), plan, PREPROCESS)
        # The mean colour around "one of several" is grey, not black.
        inputs = np.where(inputs > 120, 255, inputs)
        assert len(inputs) == len(views) == plan.images
        for view, pixels_HWC in zip(views, inputs, strict=True):
            shown, found = view.shown(box), extent(pixels_HWC)
            if shown is None or min(shown.x1 - shown.x0, shown.y1 - shown.y0) < 2:
                assert shown is not None or found is None
                continue
            assert found is not None
            assert found == pytest.approx(shown.numbers, abs=1.01)
            seen += 1
    assert seen >= 2


def test_tiles_join_to_the_canvas() -> None:
    """A box in the last tile: the tile's own pixels plus the tile's corner are the canvas'."""
    resolution, shape = AnyResolution(grids=((2, 2),), thumbnail=False), MediaShape(200, 200)
    plan = resolution.plan(shape, 100, Grid(4, 4))
    frame, views = resolution.frame(shape, plan, 100), resolution.views(shape, plan, 100)
    box = Box(120, 130, 180, 190)
    assert frame == View(200, 200, 1.0, 1.0, 0, 0)
    assert views[3].shown(box) == Box(20, 30, 80, 90)
    assert [view.shown(box) for view in views[:3]] == [None, None, None]
    assert views[3].backward(Box(20, 30, 80, 90)) == box


def test_a_cropped_box_is_gone_and_a_cut_one_is_clipped() -> None:
    shape = MediaShape(height_px=100, width_px=300)
    view = FixedResolution(fit="crop").frame(shape, FixedResolution().plan(shape, 100, Grid(2, 2)), 100)
    assert view.shown(Box(0, 10, 90, 50)) is None
    assert view.shown(Box(0, 10, 100, 50)) is None, "touching the border is not being seen"
    assert view.shown(Box(0, 10, 150, 50)) == Box(0, 10, 50, 50)
    assert view.shown(Point(90, 10)) is None
    assert view.shown(Point(150, 10)) == Point(50, 10)
    assert view.backward(view.forward(Box(0, 10, 90, 50))) == Box(0, 10, 90, 50)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 480), (333, 1000), (224, 224), (37, 500)])
def test_letterbox_agrees_with_shikras_padded_square(height: int, width: int) -> None:
    """Shikra pads to a square of the longer side, (side - short) // 2 in front (transform.py)."""
    side, size = max(height, width), 224
    left, top = (side - width) // 2, (side - height) // 2
    shape, box = MediaShape(height, width), Box(11, 17, width - 5, height - 3)
    resolution = FixedResolution(fit="letterbox")
    view = resolution.frame(shape, resolution.plan(shape, size, Grid(2, 2)), size)
    ours = view.to_unit(view.forward(box)).numbers
    theirs = [(n + shift) / side for n, shift in zip(box.numbers, (left, top, left, top), strict=True)]
    # Our picture is scaled to whole pixels of the input before it is padded.
    assert ours == pytest.approx(theirs, abs=1 / size)


@pytest.mark.parametrize(
    "value", [None, [], "box", [[1, 2, 3]], [[1, 2, 3, "4"]], [[1, 2, 3, True]], [[5, 5, 1, 9]],
              [[float("nan"), 0, 1, 1]], [[0, 0, 10**400, 1]], [1, 2, 3, 4], {"a": 1}],
)  # fmt: skip
def test_bad_boxes_in_rows_are_named(value: Any) -> None:
    with pytest.raises(DataError, match="row 7"):
        read_boxes(value, "row 7")


def test_boxes_and_points_from_json() -> None:
    assert read_boxes([[1, 2, 3.5, 4]], "") == (Box(1, 2, 3.5, 4),)
    assert read_points([[1, 2], (3, 4)], "") == (Point(1, 2), Point(3, 4))
    with pytest.raises(DataError, match="2 numbers"):
        read_points([[1, 2, 3, 4]], "")


TWO = [Box(0.1204, 0.3, 0.56, 0.871), Box(0, 0, 1, 1)]
WRITTEN = {
    "shikra": ("[0.120,0.300,0.560,0.871]", "[0.120,0.300,0.560,0.871;0.000,0.000,1.000,1.000]"),
    "qwen_vl": ("<box>(120,300),(559,870)</box>",
                "<box>(120,300),(559,870)</box><box>(0,0),(999,999)</box>"),
    "cogvlm": ("[[120,300,560,871]]", "[[120,300,560,871;000,000,999,999]]"),
    "minigpt_v2": ("{<12><30><56><87>}", "{<12><30><56><87>}<delim>{<0><0><100><100>}"),
    "kosmos2": ("<object><patch_index_0291><patch_index_0881></object>",
                "<object><patch_index_0291><patch_index_0881></delimiter_of_multi_objects/>"
                "<patch_index_0000><patch_index_1023></object>"),
    "emu2": ("<object><patch_index_0027><patch_index_0067><patch_index_0125><patch_index_0195></object>",
             "<object><patch_index_0027><patch_index_0067><patch_index_0125><patch_index_0195></delimiter_of_multi_objects/>"
             "<patch_index_0000><patch_index_0000><patch_index_0224><patch_index_0224></object>"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_written_as_published(name: str) -> None:
    style, (one, two) = find_box_format(name), WRITTEN[name]
    assert style.write(TWO[:1]) == one
    assert style.write(TWO) == two
    text = f"a cat {two} and {one}."
    parsed = style.parse(text)
    assert not parsed.malformed
    assert [text[a:b] for a, b in (m.span for m in parsed.mentions)] == [two, one]
    assert len(parsed.boxes) == 3


def test_phrases() -> None:
    texts = {
        "shikra": "a cat[0.120,0.300,0.560,0.871]",
        "cogvlm": "a cat [[120,300,560,871]]",
        "qwen_vl": "<ref>a cat</ref><box>(120,300),(559,870)</box>",
        "minigpt_v2": "<p>a cat</p> {<12><30><56><87>}",
        "kosmos2": "<phrase>a cat</phrase><object><patch_index_0291><patch_index_0881></object>",
        "emu2": "<phrase>a cat</phrase><object><patch_index_0027><patch_index_0067><patch_index_0125><patch_index_0195></object>",
    }
    for name, text in texts.items():
        style = find_box_format(name)
        assert style.write(TWO[:1], "a cat") == text
        (mention,) = style.parse(text).mentions
        marked = name not in ("shikra", "cogvlm")
        assert mention.phrase == ("a cat" if marked else None)
        assert not marked or mention.span == (0, len(text))
        if marked:
            with pytest.raises(DataError, match="angle bracket"):
                style.write(TWO, "a <cat>")


# From the READMEs and code of the originals.
PUBLISHED = [
    ("qwen_vl", "<ref> Woman</ref><box>(451,379),(731,806)</box> and<ref> her dog</ref>"
     "<box>(219,424),(576,896)</box> playing", 999, ["Woman", "her dog"],
     [(451, 379, 731, 806), (219, 424, 576, 896)]),
    ("qwen_vl", "<ref> Two apples</ref><box>(302,257),(582,671)</box><box>(603,252),(878,642)</box>",
     999, ["Two apples"], [(302, 257, 582, 671), (603, 252, 878, 642)]),
    ("qwen_vl", "(536,509),(588,602)", 999, [None], [(536, 509, 588, 602)]),
    ("cogvlm", "Tell me what you see within the designated area [[086,540,400,760]] in it.",
     1000, [None], [(86, 540, 400, 760)]),
    ("minigpt_v2", "{ <12> <3> <5 6><100>}", 100, [None], [(12, 3, 56, 100)]),
    ("shikra", "Answer: [0.1,0.2,0.3,1.;0,0,1,1] .", 1, [None], [(0.1, 0.2, 0.3, 1), (0, 0, 1, 1)]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "scale", "phrases", "boxes"), PUBLISHED)
def test_reads_what_the_originals_read(
    name: str, text: str, scale: float, phrases: list[str | None], boxes: list[tuple[float, ...]]
) -> None:
    parsed = find_box_format(name).parse(text)
    assert [m.phrase for m in parsed.mentions] == phrases
    assert [tuple(n * scale for n in box.numbers) for box in parsed.boxes] == [
        pytest.approx(box) for box in boxes
    ]
    assert not parsed.malformed


BAD = [
    ("shikra", "a [0.9,0.2,0.1,0.4] b", "reversed"),
    ("shikra", "a [0.1,0.2,0.3] b", "3 numbers"),
    ("shikra", "a [0.1,0.2;0.1,0.2,0.3,0.4] b", "2 and 4"),
    ("shikra", "a [0.1, 0.2, 0.3, 0.4] b", "digit"),
    ("shikra", "a [12,34,56,78] b", "digit"),
    ("shikra", "a [0.1,0.2,0.", "closed"),
    ("qwen_vl", "<ref>a</ref><box>(9,2),(1,4)</box>", "reversed"),
    ("qwen_vl", "<box>(1,2),(3)</box>", "expected"),
    ("qwen_vl", "<box>a cat</box>", "expected"),
    ("qwen_vl", "<box>(1,2),(3,4)", "closed"),
    ("cogvlm", "[[900,1,2,3]]", "reversed"),
    ("cogvlm", "[[1,2,3]]", "four"),
    ("cogvlm", "[[1,2,,3]]", "four"),
    ("cogvlm", "[[0.1,0.2,0.3,0.4]]", "four"),
    ("cogvlm", "[[100,200,300,4", "closed"),
    ("minigpt_v2", "{<90><2><1><4>}", "reversed"),
    ("minigpt_v2", "{<1><2><3>}", "expected"),
    ("minigpt_v2", "{<1000><2><3><4>}", "expected"),
    ("minigpt_v2", "<p>a</p>{<1><2><3", "closed"),
    ("kosmos2", "<object><patch_index_0900><patch_index_0001></object>", "reversed"),
    ("kosmos2", "<object><patch_index_0001><patch_index_1024></object>", "beyond"),
    ("kosmos2", "<object><patch_index_0001></object>", "two"),
    ("kosmos2", "<object>a fire</object>", "closed"),
    ("kosmos2", "<object><patch_index_0001><patch_index_0002>", "closed"),
    ("emu2", "<object><patch_index_0009><patch_index_0002><patch_index_0001><patch_index_0004></object>", "reversed"),
    ("emu2", "<object><patch_index_0001><patch_index_0002><patch_index_0003><patch_index_0257></object>", "beyond 256"),
    ("emu2", "<object><patch_index_0001><patch_index_0002></object>", "four"),
    ("emu2", "<object>a fire</object>", "closed"),
    ("emu2", "<object><patch_index_0001><patch_index_0002><patch_index_0003><patch_index_0004>", "closed"),
]


@pytest.mark.parametrize(("name", "text", "reason"), BAD)
def test_bad_output_is_listed(name: str, text: str, reason: str) -> None:
    parsed = find_box_format(name).parse(text)
    assert not parsed.mentions
    (bad,) = parsed.malformed
    assert reason in bad.reason
    assert 0 <= bad.span[0] < bad.span[1] <= len(text)


@pytest.mark.parametrize(("name", "text", "kept"), [
    ("shikra", "[0.900,0.1,0.1,0.1;0.1,0.1,0.2,0.2]", (0.1, 0.1, 0.2, 0.2)),
    ("qwen_vl", "<ref>a</ref><box>(9,9)</box><box>(0,0),(999,999)</box>", (0, 0, 1, 1)),
    ("cogvlm", "[[1,2;100,100,200,200]]", (0.1, 0.1, 0.2, 0.2)),
    ("minigpt_v2", "<p>a</p>{<1>}<delim>{<10><10><20><20>}", (0.1, 0.1, 0.2, 0.2)),
])  # fmt: skip
def test_good_boxes_beside_bad_ones_are_kept(name: str, text: str, kept: tuple[float, ...]) -> None:
    parsed = find_box_format(name).parse(text)
    assert len(parsed.malformed) == 1
    assert [box.numbers for box in parsed.boxes] == [pytest.approx(kept)]


@pytest.mark.parametrize(("name", "text", "beyond"), [
    ("shikra", "[0.1,0.1,1.2,0.4]", 1.2),
    ("qwen_vl", "<box>(1,1),(1998,5)</box>", 2.0),
    ("cogvlm", "[[1,1,1500,2]]", 1.5),
    ("minigpt_v2", "{<1><1><120><2>}", 1.2),
    ("emu2", "<object><patch_index_0001><patch_index_0001><patch_index_0252><patch_index_0002></object>", 1.125),
])  # fmt: skip
def test_numbers_beyond_the_frame_stay(name: str, text: str, beyond: float) -> None:
    """As in the originals' evaluations, none of which clips."""
    (box,) = find_box_format(name).parse(text).boxes
    assert box.x1 == pytest.approx(beyond)
    clipped = box.within(1, 1)
    assert clipped is not None
    assert clipped.x1 == 1


def test_points() -> None:
    shikra = find_box_format("shikra")
    points = [Point(0.25, 0.5), Point(1, 0)]
    text = shikra.write(points)
    assert text == "[0.250,0.500;1.000,0.000]"
    assert shikra.parse(text).mentions == [Mention(tuple(points), (0, len(text)))]
    assert shikra.parse(text).points == points
    for places in ([], [Point(0, 0), TWO[0]]):
        with pytest.raises(DataError):
            shikra.write(places)
    for name in ("qwen_vl", "cogvlm", "minigpt_v2", "kosmos2", "emu2"):
        with pytest.raises(DataError, match="shikra"):
            find_box_format(name).write(points)


def test_every_format_can_be_named_in_a_config() -> None:
    assert get_args(BoxFormatName) == tuple(BOX_FORMATS)


@pytest.mark.parametrize("kind", sorted(media.RESOLUTIONS))
def test_every_resolution_says_where_the_picture_lies(kind: str) -> None:
    resolution, shape = media.RESOLUTIONS.find(kind).tiny(), MediaShape(30, 50)
    plan = resolution.plan(shape, 32, Grid(2, 2))
    assert len(resolution.views(shape, plan, 32)) == plan.images
    middle = resolution.frame(shape, plan, 32).shown(Point(25, 15))
    assert middle is not None


def test_unknown_format_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'qwen_vl'"):
        find_box_format("qwenvl")


def test_kosmos_cells_are_those_of_transformers() -> None:
    kosmos = find_box_format("kosmos2")
    steps = [0, 0.01, 1 / 32, 0.1, 0.26, 0.5, 0.52, 0.99, 1]
    spans = [(a, b) for a in steps for b in steps if a < b]
    for x0, x1 in spans:
        for y0, y1 in spans[::3]:
            first, last = coordinate_to_patch_index((x0, y0, x1, y1), 32)
            text = kosmos.write([Box(x0, y0, x1, y1)])
            assert text == f"<object><patch_index_{first:04d}><patch_index_{last:04d}></object>"
            (box,) = kosmos.parse(text).boxes
            assert box.numbers == patch_index_to_coordinate(first, last, 32)


def test_kosmos_text_is_that_of_transformers() -> None:
    """Written as the Processor inserts boxes (but for its spaces), read as its own extraction."""
    kosmos = find_box_format("kosmos2")
    boxes = [Box(0.39, 0.05, 0.98, 0.83), Box(0.1, 0.1, 0.4, 0.2)]
    phrases = ["a snowman", "two fires"]
    processor: Any = SimpleNamespace(num_patch_index_tokens=1024)
    processor._convert_bbox_to_patch_index_tokens = (
        lambda box: Kosmos2Processor._convert_bbox_to_patch_index_tokens(processor, box)
    )
    plain = f"<grounding> An image of<phrase>{phrases[0]}</phrase> by<phrase>{phrases[1]}</phrase>."
    groups = [boxes[0].numbers, [box.numbers for box in boxes]]
    theirs: str = Kosmos2Processor._insert_patch_index_tokens(processor, plain, groups)  # pyright: ignore
    written = [kosmos.write(boxes[:1], phrases[0]), kosmos.write(boxes, phrases[1])]
    ours = f"<grounding> An image of{written[0]} by{written[1]}."
    squeezed = theirs.replace("<object> ", "<object>").replace(" </object>", "</object>")
    squeezed = squeezed.replace("> <patch", "><patch").replace("> </delim", "></delim")
    assert ours == squeezed
    _, entities = clean_text_and_extract_entities_with_bboxes(ours)
    parsed = kosmos.parse(ours)
    assert [(m.phrase, [box.numbers for box in m.places]) for m in parsed.mentions] == [
        (name, found) for name, _, found in entities
    ]
    # With the spaces that the Processor leaves, the same.
    assert [m.places for m in kosmos.parse(theirs).mentions] == [m.places for m in parsed.mentions]
