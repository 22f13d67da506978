"""Properties that hold for any input, and fuzzing of everything that reads untrusted bytes."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image as PILImage

from sensorium.core.batch import Grid, MediaShape, Preprocess
from sensorium.core.errors import ConfigError, DataError, MediaError
from sensorium.core.sample import parse_sample
from sensorium.data.formats.rows import column_row, turn_row
from sensorium.data.mixture import MixtureOrder, MixtureState
from sensorium.evaluation.metrics.answers import names, yes_no
from sensorium.evaluation.metrics.interval import wilson
from sensorium.media.anyres import AnyResolution
from sensorium.media.image import load_image
from sensorium.media.resolution import FixedResolution
from sensorium.text.byte_tokenizer import byte_tokenizer

QUICK = settings(max_examples=60, deadline=None,
                 suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["messages", "role", "content", "type", "text", "image", "conversations",
                         "from", "value", "id", "meta", "images", "question", "answer"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@QUICK
@given(JSON)
def test_any_json_is_a_sample_or_a_named_error(value: Any) -> None:
    try:
        sample = parse_sample(value)
    except DataError:
        return
    assert parse_sample(json.loads(json.dumps(sample.to_json()))).to_json() == sample.to_json()


@QUICK
@given(st.dictionaries(st.sampled_from(["messages", "conversations", "image", "images", "text",
                                        "question", "answer", "id"]), JSON))  # fmt: skip
def test_any_row_is_a_sample_or_a_named_error(row: dict[str, Any]) -> None:
    for convert in (turn_row, column_row):
        try:
            parse_sample(convert(row, "row 1"))
        except DataError:
            continue


def seeds() -> list[bytes]:
    made: list[bytes] = []
    for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        buffer = io.BytesIO()
        PILImage.new("RGB", (9, 7), (10, 200, 30)).save(buffer, format)
        made.append(buffer.getvalue())
    return made


SEEDS = seeds()


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_damaged_pictures_decode_or_are_named(content: bytes, data: st.DataObject) -> None:
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(damaged)))
    try:
        image = load_image(bytes(damaged[:cut]))
    except MediaError:
        return
    assert image.pixels_HWC.ndim == 3
    assert image.pixels_HWC.dtype == np.uint8


@QUICK
@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_named(content: bytes) -> None:
    with pytest.raises(MediaError):
        load_image(content)


@QUICK
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_tile_plans_count_what_they_keep(
    height: int, width: int, h: int, w: int, thumbnail: bool
) -> None:
    # Several tokens in one row are a projector's queries: refused, because they lie nowhere.
    assume(h > 1 or w == 1)
    tile = Grid(h, w)
    anyres = AnyResolution(max_tokens=400, thumbnail=thumbnail)
    plan = anyres.plan(MediaShape(height, width), 64, tile)
    top, bottom, left, right = plan.window(tile)
    assert 0 <= top <= bottom <= plan.rows * h
    assert 0 <= left <= right <= plan.cols * w
    # As in LLaVA-NeXT, a hair-thin strip may leave nothing of the map beside the thumbnail.
    assert thumbnail or (top < bottom and left < right)
    assert 1 <= plan.num_tokens(tile) <= 400


@QUICK
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from(["letterbox", "stretch", "crop"]))
def test_fixed_resolution_takes_any_shape(height: int, width: int, fit: Any) -> None:
    image = load_image(np.zeros((height, width, 3), np.uint8))
    resolution = FixedResolution(fit=fit)
    preprocess = Preprocess(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")
    cut = resolution.cut(image, resolution.plan(image.shape, 32, Grid(2, 2)), preprocess)
    assert cut.shape == (1, 32, 32, 3)


@QUICK
@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0.1, 9)), min_size=1, max_size=4),
       st.integers(0, 99), st.integers(1, 60))  # fmt: skip
def test_mixture_order_is_fair_complete_and_resumable(
    parts: list[tuple[int, float]], seed: int, cut: int
) -> None:
    lengths, weights = [n for n, _ in parts], [w for _, w in parts]
    order = MixtureOrder(lengths, weights, seed)
    state = order.start()
    picks = [order.next(state) for _ in range(120)]
    resumed = order.start()
    for _ in range(cut):
        order.next(resumed)
    copied = MixtureState(list(resumed.counts))
    assert [order.next(copied) for _ in range(120 - cut)] == picks[cut:]
    shares = Counter(p.source for p in picks)
    for i, weight in enumerate(weights):
        assert abs(shares[i] - 120 * weight / sum(weights)) < len(parts)
        mine = [p.row for p in picks if p.source == i]
        for start in range(0, len(mine) - lengths[i] + 1, lengths[i]):
            assert sorted(mine[start : start + lengths[i]]) == list(range(lengths[i]))


def test_mixtures_refuse_nonsense() -> None:
    for lengths, weights in (([], []), ([0], [1.0]), ([3], [0.0]), ([3], [1.0, 2.0])):
        with pytest.raises(ConfigError):
            MixtureOrder(lengths, weights, 0)


@QUICK
@given(st.text(max_size=60))
def test_tokenizer_round_trips_any_text(text: str) -> None:
    tokenizer = byte_tokenizer()
    text = text.encode("utf-8", errors="ignore").decode()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids, keep_special=True) == text
    assert not set(ids) & set(tokenizer.specials().values())


@QUICK
@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_holds_the_proportion(successes: int, total: int) -> None:
    successes = min(successes, total)
    low, high = wilson(successes, total)
    assert 0 <= low <= successes / total <= high <= 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [("No.", "no"), ("Not sure", "no"), ("I know", None), ("The answer is yes", "yes"), ("NO", "no"),
     ("None", None), ("yes and no", None), ("", None), ("Yes, a cat.", "yes")],
)  # fmt: skip
def test_yes_no(text: str, expected: str | None) -> None:
    assert yes_no(text) == expected


@pytest.mark.parametrize(
    ("text", "accepted", "right"),
    [("A red apple.", ["apple"], True), ("pineapple", ["apple"], False), ("Ice-cream cone", ["cone"], True),
     ("an ice cream cone", ["ice cream"], True), ("cream ice", ["ice cream"], False), ("", ["x"], False),
     ("A cat!", [""], False), ("A.", ["A"], True), ("B", ["A"], False), ("+", ["+"], True),
     ("Cherries", ["cherry"], True), ("a brush", ["brushes"], True), ("glass", ["grass"], False)],
)  # fmt: skip
def test_names_match_whole_words(text: str, accepted: list[str], right: bool) -> None:
    assert names(text, accepted) == right


def test_wilson_golden_value() -> None:
    """15 of 20: the textbook value, e.g. Newcombe 1998."""
    low, high = wilson(15, 20)
    assert abs(low - 0.5313) < 5e-4
    assert abs(high - 0.8881) < 5e-4


def test_atomic_folder_survives_a_crash_between_renames(tmp_path: Path) -> None:
    from sensorium.core.atomic import atomic_folder, recover_folder

    target = tmp_path / "c"
    with atomic_folder(target) as folder:
        (folder / "x").write_text("old")
    target.rename(tmp_path / ".c.old")
    recover_folder(target)
    assert (target / "x").read_text() == "old"

    def fail(folder: Path) -> None:
        (folder / "x").write_text("new")
        raise RuntimeError

    with pytest.raises(RuntimeError), atomic_folder(target) as folder:
        fail(folder)
    assert (target / "x").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
