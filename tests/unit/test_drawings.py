"""drawing-book: emoji become named pictures, held-out pictures keep no twin in training."""

from __future__ import annotations

import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from sensorium.core.errors import DataError, MediaError
from sensorium.data.augmenting import AugmentConfig
from sensorium.data.mixture import Pick
from sensorium.data.picture_book.cards import CARD_ROOT, card_entries
from sensorium.data.picture_book.drawings import _without_twins
from sensorium.data.picture_book.emoji import NAMES, STYLES, EmojiStyle, emoji_entries
from sensorium.data.picture_book.entries import Entry, shrink
from sensorium.data.picture_book.groups import difference_hash
from sensorium.data.picture_book.packages import Package, fetch_package, read_tgz
from sensorium.data.picture_book.svg import render_svg
from sensorium.media.augment import Augmentation, augment_image
from sensorium.media.image import load_image

RED_DISC = '<circle cx="16" cy="16" r="14" fill="#d22"/>'


def tgz(path: Path, files: dict[str, Any]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, value in files.items():
            content = json.dumps(value).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def emoji(tmp_path: Path) -> dict[str, Entry]:
    labels = [("dog face", 0), ("two o’clock", 1), ("flag: Japan", 2), ("red apple", 3),
              ("man cook", 4), ("family: man, woman", 5), ("grapes", 3), ("watch", 1)]  # fmt: skip
    groups = ["animal-mammal", "time", "country-flag", "food-fruit", "person-role", "family"]
    names = tgz(
        tmp_path / "names.tgz",
        {
            "en/data.json": [{"label": name, "hexcode": str(i), "subgroup": g} for i, (name, g) in enumerate(labels)],
            "zh/data.json": [{"label": "狗脸", "hexcode": "0"}],
            "meta/groups.json": {"subgroups": {str(i): g for i, g in enumerate(groups)}},
        },
    )
    slugs = ["dog-face", "two-oclock", "flag-japan", "red-apple", "man-cook", "family-man-woman", "watch"]
    icons: dict[str, Any] = {slug: {"body": RED_DISC} for slug in slugs}
    icons["grapes"] = {"body": "<g><unclosed"}
    style = EmojiStyle(package=Package(name="@x/plain", version="1", sha256="", npm=True), licence="MIT")
    file = tgz(tmp_path / "icons.tgz", {"icons.json": {"icons": icons, "width": 32, "height": 32}})
    return {entry.id.rpartition("/")[2]: entry for entry in emoji_entries(style, file, names)}


def test_emoji_of_pictures_are_found_by_code_point(tmp_path: Path) -> None:
    names = tgz(
        tmp_path / "names.tgz",
        {
            "en/data.json": [{"label": "umbrella", "hexcode": "2602-FE0F", "subgroup": 0},
                             {"label": "grapes", "hexcode": "1F347", "subgroup": 0}],
            "zh/data.json": [],
            "meta/groups.json": {"subgroups": {"0": "clothing"}},
        },
    )  # fmt: skip
    buffer = io.BytesIO()
    PILImage.new("RGBA", (64, 64), (200, 30, 30, 255)).save(buffer, "WEBP")
    file = tmp_path / "pictures.tgz"
    with tarfile.open(file, "w:gz") as archive:
        info = tarfile.TarInfo("package/assets/2602.webp")
        info.size = len(buffer.getvalue())
        archive.addfile(info, io.BytesIO(buffer.getvalue()))
    style = EmojiStyle(package=Package(name="@x/solid", version="1", sha256="", npm=True),
                       licence="MIT", rasters=True)  # fmt: skip
    (entry,) = emoji_entries(style, file, names)
    assert entry.name == "umbrella"
    small = shrink(entry, 32, 80)
    assert small is not None
    assert small[1].size == (32, 32)


def test_emoji_are_named_as_people_say_it(emoji: dict[str, Entry]) -> None:
    assert {slug: entry.name for slug, entry in emoji.items()} == {
        "dog-face": "dog", "two-oclock": "clock", "flag-japan": "flag", "red-apple": "red apple",
        "man-cook": "cook",
    }  # fmt: skip
    assert emoji["dog-face"].category == "animal"
    assert emoji["dog-face"].caption_zh == "狗脸"
    assert {"apple", "red apple"} <= set(emoji["red-apple"].accepted)


def test_emoji_are_drawn(emoji: dict[str, Entry]) -> None:
    with PILImage.open(io.BytesIO(emoji["dog-face"].content), formats=("PNG",)) as picture:
        assert picture.size == (256, 256)
        assert picture.getpixel((128, 128)) == (0xDD, 0x22, 0x22, 255)
        assert picture.getpixel((0, 0))[3] == 0  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]


def test_bad_drawings_are_named() -> None:
    with pytest.raises(MediaError, match="not a drawable SVG"):
        render_svg("<svg", side_px=32)


def test_one_style_is_never_taught() -> None:
    assert [style.style for style in STYLES if style.heldout] == ["openmoji"]
    assert NAMES.command[:2] == ["npm", "pack"]


def test_heldout_pictures_keep_no_twin(tmp_path: Path) -> None:
    def picture(seed: int) -> PILImage.Image:
        cells = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        return PILImage.fromarray(cells).resize((96, 96), PILImage.Resampling.BICUBIC)

    picture(1).save(tmp_path / "held.png")
    entries: list[Entry] = []
    for seed, scale in ((1, 80), (2, 96)):
        file = f"{seed}.png"
        picture(seed).resize((scale, scale)).save(tmp_path / file)
        entries.append(Entry(str(seed), "", "", [], None, "", "", "", image=file))
    hashes = [difference_hash(load_image(tmp_path / e.image).to_pil()) for e in entries]
    kept = _without_twins(entries, hashes, [tmp_path / "held.png"], tmp_path)
    assert [entry.id for entry in kept] == ["2"]
    assert not (tmp_path / "1.png").exists()
    assert (tmp_path / "2.png").exists()


def test_packages_are_checked(tmp_path: Path) -> None:
    package = Package(name="@x/y", version="1", sha256="0" * 64, npm=True)
    tgz(tmp_path / package.file, {"icons.json": {}})
    with pytest.raises(DataError, match="sha256"):
        fetch_package(package, tmp_path)
    with pytest.raises(DataError, match=r"no other\.json"):
        read_tgz(tmp_path / package.file, ("icons.json", "other.json"))


def test_views_are_finite_and_picks_are_not() -> None:
    picks = [Pick(0, 5, epoch, 100 + epoch) for epoch in range(6)]
    finite = {AugmentConfig(views=2).of(1, pick).rng.random() for pick in picks}
    free = {AugmentConfig().of(1, pick).rng.random() for pick in picks}
    assert (len(finite), len(free)) == (2, 6)


def test_only_mirrored_sources_swap_left_and_right() -> None:
    # Grey, then red, then blue, then grey: whatever the margins, red stands left of blue.
    bars = np.full((64, 64, 3), 128, np.uint8)
    bars[:, 20:32], bars[:, 32:44] = (200, 0, 0), (0, 0, 200)
    image = load_image(bars)

    def red_is_left(mirror: bool, seed: int) -> bool:
        out = augment_image(image, Augmentation(random.Random(seed), mirror)).pixels_HWC.astype(int)
        redness = out[..., 0] - out[..., 2]
        return bool(np.nonzero(redness > 50)[1].mean() < np.nonzero(redness < -50)[1].mean())

    assert {red_is_left(False, seed) for seed in range(40)} == {True}
    assert {red_is_left(True, seed) for seed in range(40)} == {True, False}


def test_cards_are_named_by_their_files(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    PILImage.new("RGB", (64, 64), (30, 30, 200)).save(buffer, "JPEG")
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        for name in ("animals/guinea_pig.jpg", "animals/crow.jpg", "actions/bake.jpg", "sport/jump.jpg"):
            info = tarfile.TarInfo(f"./{CARD_ROOT}{name}")
            info.size = len(buffer.getvalue())
            archive.addfile(info, io.BytesIO(buffer.getvalue()))
    content = inner.getvalue()
    deb = tmp_path / "cards.deb"
    deb.write_bytes(b"!<arch>\n" + f"{'data.tar':<48}{len(content):<10}".encode() + b"`\n" + content)
    pig, crow = sorted(card_entries(deb), key=lambda e: e.name, reverse=True)
    assert (pig.name, pig.caption, pig.category) == ("guinea pig", "a guinea pig", "animal")
    assert "bird" in crow.accepted
    assert shrink(crow, 32, 80) is not None
