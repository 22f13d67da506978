"""Every odd picture either works as a person would expect or is named with its reason."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PILImage

from sensorium.core.batch import Grid, MediaShape, Preprocess
from sensorium.core.errors import ConfigError, MediaError
from sensorium.media.anyres import AnyResolution
from sensorium.media.image import load_image
from sensorium.media.limits import ImageLimits
from sensorium.media.resolution import FixedResolution


def preprocess(size_px: int) -> Preprocess:
    return Preprocess(size_px, (0.5, 0.4, 0.3), (0.5, 0.5, 0.5))


def encoded(image: PILImage.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def bomb() -> bytes:
    """A 177-megapixel grey PNG in some 21 kB."""
    side_w, side_h = 14_000, 12_650

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(kind + body)
        return len(body).to_bytes(4, "big") + kind + body + crc.to_bytes(4, "big")

    header = side_w.to_bytes(4, "big") + side_h.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    line = b"\0" * (1 + (side_w + 7) // 8)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(line) for _ in range(side_h)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_bomb_is_refused_by_its_header() -> None:
    content = bomb()
    assert len(content) < 30_000
    with pytest.raises(MediaError, match="177,100,000 pixels"):
        load_image(content)


def test_truncated_jpeg_is_named() -> None:
    rng = np.random.default_rng(0)
    noise = PILImage.fromarray(rng.integers(0, 255, (200, 200, 3), dtype=np.uint8))
    content = encoded(noise, "JPEG")
    with pytest.raises(MediaError, match="truncated"):
        load_image(content[: len(content) // 2])


def test_empty_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(MediaError, match=r"empty\.png.*0 bytes"):
        load_image(tmp_path / "empty.png")
    with pytest.raises(MediaError, match=r"gone\.png.*no such file"):
        load_image("gone.png", root=tmp_path)


def test_not_a_picture_is_named() -> None:
    with pytest.raises(MediaError, match="known format"):
        load_image(b"%PDF-1.4 something else")
    with pytest.raises(MediaError, match="known format"):
        load_image(b"<svg xmlns='http://www.w3.org/2000/svg'/>")


def test_cmyk_becomes_rgb() -> None:
    cmyk = PILImage.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = load_image(encoded(cmyk, "JPEG")).pixels_HWC[4, 4]
    assert red[0] > 200
    assert max(red[1:]) < 60


def test_palette_with_transparency_lies_on_white() -> None:
    palette = PILImage.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 1), 1)
    image = load_image(encoded(palette, transparency=0)).pixels_HWC
    assert image[0, 0].tolist() == [255, 255, 255]
    assert image[1, 1].tolist() == [200, 100, 50]


def test_background_is_a_choice() -> None:
    clear = PILImage.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert load_image(encoded(clear), background=(1, 2, 3)).pixels_HWC[0, 0].tolist() == [1, 2, 3]


def test_sixteen_bit_keeps_its_shades() -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    image = load_image(encoded(PILImage.fromarray(ramp))).pixels_HWC
    assert image.min() == 0
    assert image.max() == 255
    assert len(np.unique(image)) > 50


def test_exif_rotation_is_applied() -> None:
    picture = PILImage.new("RGB", (40, 20), (255, 255, 255))
    exif = PILImage.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise
    shape = load_image(encoded(picture, "JPEG", exif=exif)).shape
    assert (shape.width_px, shape.height_px) == (20, 40)


def test_animation_gives_its_first_frame() -> None:
    frames = [PILImage.new("RGB", (6, 6), c) for c in ((255, 0, 0), (0, 255, 0))]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert load_image(content).pixels_HWC[3, 3].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (20_000, 3), (3, 20_000)])
@pytest.mark.parametrize("fit", ["letterbox", "stretch", "crop", "middle"])
def test_extreme_shapes_become_inputs(size: tuple[int, int], fit: Any) -> None:
    image = load_image(encoded(PILImage.new("RGB", size, (9, 9, 9))))
    resolution = FixedResolution(fit=fit)
    plan = resolution.plan(image.shape, 64, Grid(2, 2))
    cut = resolution.cut(image, plan, preprocess(64))
    assert cut.shape == (1, 64, 64, 3)
    assert cut.min() <= 9


def test_arrays_and_pil_images() -> None:
    grey = np.zeros((5, 7), dtype=np.uint8)
    assert load_image(grey).shape == MediaShape(5, 7)
    half = np.full((5, 7, 3), 0.5, dtype=np.float32)
    assert load_image(half).pixels_HWC[0, 0].tolist() == [128, 128, 128]
    assert load_image(PILImage.new("LA", (3, 2))).shape == MediaShape(2, 3)
    for bad in (np.zeros((2, 2, 2), np.uint8), np.zeros((0, 4), np.uint8),
                np.full((2, 2), 3.0), np.zeros((2, 2), np.int32)):  # fmt: skip
        with pytest.raises(MediaError):
            load_image(bad)
    with pytest.raises(MediaError, match="dict"):
        load_image({})


def test_rows_may_not_climb_out_of_their_folder(tmp_path: Path) -> None:
    inside = tmp_path / "data"
    inside.mkdir()
    (tmp_path / "secret.png").write_bytes(encoded(PILImage.new("RGB", (2, 2))))
    with pytest.raises(MediaError, match="leads out"):
        load_image("../secret.png", root=inside)


def test_limits_are_configurable() -> None:
    content = encoded(PILImage.new("RGB", (100, 100)))
    with pytest.raises(MediaError, match="10,000 pixels"):
        load_image(content, limits=ImageLimits(max_pixels=5000))


def test_anyres_picks_the_grid_that_keeps_most() -> None:
    anyres = AnyResolution()
    tile = Grid(4, 4)
    assert anyres.plan(MediaShape(100, 300), 100, tile).cols == 3
    assert anyres.plan(MediaShape(300, 100), 100, tile).rows == 3
    wide = anyres.plan(MediaShape(90, 200), 100, tile)
    assert (wide.rows, wide.cols) == (1, 2)
    top, bottom, left, right = wide.window(tile)
    assert bottom - top == 4
    assert (left, right) == (0, 8)


def test_anyres_keeps_to_its_token_cap() -> None:
    tile = Grid(4, 4)
    shape = MediaShape(1000, 1000)
    assert AnyResolution().plan(shape, 100, tile).num_tokens(tile) == 16 + 8 * 9
    small = AnyResolution(max_tokens=40).plan(shape, 100, tile)
    assert small.num_tokens(tile) <= 40
    with pytest.raises(ConfigError, match="max_tokens"):
        AnyResolution(max_tokens=10).plan(shape, 100, tile)


def test_anyres_tiles_lie_in_reading_order() -> None:
    picture = PILImage.new("RGB", (200, 100), (0, 0, 0))
    picture.paste((255, 0, 0), (100, 0, 200, 100))
    image = load_image(picture)
    anyres = AnyResolution(grids=((1, 2),), thumbnail=True)
    plan = anyres.plan(image.shape, 100, Grid(2, 2))
    tiles = anyres.cut(image, plan, preprocess(100))
    assert tiles.shape == (3, 100, 100, 3)
    assert tiles[1][50, 50].tolist() == [0, 0, 0]
    assert tiles[2][50, 50].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(50, 20), (20, 50), (40, 40), (64, 90), (90, 64), (20_000, 3), (3, 20_000)])
def test_of_several_pictures_each_may_be_one_square(size: tuple[int, int]) -> None:
    """Scaled in steps, a square is what scaling it at once gives; but for the tallest strips."""
    width, height = size
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    image = load_image(pixels_HWC)
    anyres = AnyResolution(several="square")
    plan = anyres.plan(image.shape, 64, Grid(2, 2), pictures=2)
    assert plan.num_tokens(Grid(2, 2)) == 5
    cut_1HWC = anyres.cut(image, plan, preprocess(64))
    assert cut_1HWC.shape == (1, 64, 64, 3)
    if max(size) > 1000:
        assert cut_1HWC[0, 0, 0].tolist() == [127, 102, 76]
        return
    side = max(size)
    square = PILImage.new("RGB", (side, side), (127, 102, 76))
    square.paste(image.to_pil(), ((side - width) // 2, (side - height) // 2))
    at_once = square.resize((64, 64), PILImage.Resampling.BICUBIC)
    assert np.array_equal(cut_1HWC[0], np.asarray(at_once))


def test_paths_that_are_no_files_are_named(tmp_path: Path) -> None:
    for bad in ("/dev/zero", "a\0b", "a\ud800b", str(tmp_path)):
        with pytest.raises(MediaError):
            load_image(bad)


def test_damaged_exif_does_not_escape() -> None:
    content = encoded(PILImage.new("RGB", (4, 4)), "WEBP", exif=b"Exif\0\0MM\0*")
    try:
        assert load_image(content).shape == MediaShape(4, 4)
    except MediaError as error:
        assert error.found.startswith("damaged")  # noqa: PT017


def test_float_pictures_keep_their_range() -> None:
    image = load_image(PILImage.fromarray(np.full((3, 3), 0.7, np.float32)))
    assert image.pixels_HWC[0, 0, 0] in (178, 179)


def test_a_truncated_picture_that_pillow_opened_is_named() -> None:
    rng = np.random.default_rng(0)
    noise = PILImage.fromarray(rng.integers(0, 255, (200, 200, 3), dtype=np.uint8))
    content = encoded(noise, "JPEG")
    with pytest.raises(MediaError, match=r"PIL image.*truncated"):
        load_image(PILImage.open(io.BytesIO(content[: len(content) // 2])))


def test_limits_hold_for_pictures_in_memory() -> None:
    limits = ImageLimits(max_pixels=5000)
    for source in (PILImage.new("RGB", (100, 100)), np.zeros((100, 100, 3), np.uint8),
                   np.zeros((100, 100)), np.zeros((100, 100, 1), np.uint8)):  # fmt: skip
        with pytest.raises(MediaError, match="10,000 pixels"):
            load_image(source, limits=limits)
        assert load_image(source).shape == MediaShape(100, 100)


def test_the_remedy_for_a_large_picture_is_one_that_exists(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(encoded(PILImage.new("RGB", (100, 100))))
    for limits in (ImageLimits(max_pixels=5000), ImageLimits(max_bytes=9)):
        with pytest.raises(MediaError, match="make the picture smaller") as caught:
            load_image(tmp_path / "large.png", limits=limits)
        # There is no config of image limits.
        assert "config" not in str(caught.value)
    # More than Pillow itself opens, whatever our limits say.
    with pytest.raises(MediaError, match="at most 178,956,970"):
        load_image(b"P6 20000 20000 255\n" + bytes(99), limits=ImageLimits(max_pixels=10**9))


@pytest.mark.parametrize("bad", ["a\ud800b", "loop/x.png", "x" * 5000, "a\0b"])
def test_names_that_no_file_has_are_named(bad: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(MediaError):
        load_image(bad, root=tmp_path)
