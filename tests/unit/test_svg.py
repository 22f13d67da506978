"""Drawings are self-contained, and blank ones are nobody's twins."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from PIL import Image as PILImage
from PIL import ImageDraw

from sensorium.core.errors import MediaError
from sensorium.data.picture_book.drawings import _without_twins
from sensorium.data.picture_book.entries import Entry
from sensorium.data.picture_book.groups import difference_hash
from sensorium.data.picture_book.svg import render_svg
from sensorium.media.image import load_image

HEAD = ('xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        'xmlns:q="http://www.w3.org/1999/xlink" viewBox="0 0 8 8"')  # fmt: skip
SIZE = 'width="8" height="8"'


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A local picture, which the working directory holds under a sly name too."""
    for name in ("secret.png", "#secret.png"):
        PILImage.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / "secret.png")


@pytest.mark.parametrize(
    "body",
    [
        f'<image href="FILE" {SIZE}/>',
        f"<image href='FILE' {SIZE}/>",
        f'<image xlink:href = "FILE" {SIZE}/>',
        f"<image\nq:href\n=\n'secret.png' {SIZE}/>",
        f'<image href="secret&#x2e;png" {SIZE}/>',
        f'<image href="file://FILE" {SIZE}/>',
        f'<image href="https://example.org/x.png" {SIZE}/>',
        f'<image href="#secret.png" {SIZE}/>',
        f'<filter id="f"><feImage href="FILE" {SIZE}/></filter><rect {SIZE} filter="url(#f)"/>',
        '<use href="other.svg#a"/>',
    ],
)
def test_a_drawing_reads_no_files(body: str, secret: str) -> None:
    with pytest.raises(MediaError, match=r"refers to .*nothing outside the drawing"):
        render_svg(f"<svg {HEAD}>{body.replace('FILE', secret)}</svg>", side_px=8)


def test_entities_hide_nothing(secret: str) -> None:
    for value, body in ((secret, '<image href="&x;"/>'), (f"<image href='{secret}'/>", "&x;")):
        with pytest.raises(MediaError, match="refers to"):
            render_svg(f'<!DOCTYPE svg [<!ENTITY x "{value}">]><svg {HEAD}>{body}</svg>', side_px=8)


def test_a_drawing_may_refer_to_itself(secret: str, tmp_path: Path) -> None:
    content = base64.b64encode(Path(secret).read_bytes()).decode()
    body = (f'<defs><rect id="a" {SIZE} fill="#00f"/></defs><use href="#a" xlink:href="#a"/>'
            f'<image width="4" height="8" href="data:image/png;base64,{content}"/>')  # fmt: skip
    (tmp_path / "out.png").write_bytes(render_svg(f"<svg {HEAD}>{body}</svg>", side_px=8))
    pixels = load_image(tmp_path / "out.png").pixels_HWC
    assert pixels[4, 1].tolist() == [255, 0, 0]
    assert pixels[4, 6].tolist() == [0, 0, 255]


def test_blank_pictures_are_no_twins(tmp_path: Path) -> None:
    """A dot in one corner and a dot in another have nearly equal hashes and show other things."""

    def dot(x: int) -> PILImage.Image:
        picture = PILImage.new("RGB", (96, 96), (255, 255, 255))
        ImageDraw.Draw(picture).rectangle((x, x, x + 8, x + 8), fill=(0, 0, 0))
        return picture

    dot(10).save(tmp_path / "held.png")
    dot(70).save(tmp_path / "mine.png")
    bits = difference_hash(dot(70))
    assert 0 < bits.sum() <= 8
    entry = Entry("mine", "", "", [], None, "", "", "", image="mine.png")
    assert _without_twins([entry], [bits], [tmp_path / "held.png"], tmp_path) == [entry]
    assert (tmp_path / "mine.png").exists()
