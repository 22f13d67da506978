"""Which frames of a video are looked at, and what becomes of one that cannot be read."""

from __future__ import annotations

import io
import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sensorium.core.batch import MediaShape
from sensorium.core.clips import FrameClips
from sensorium.core.errors import MediaError
from sensorium.core.hands import Made
from sensorium.core.video import PickName
from sensorium.media.header import image_shape
from sensorium.media.image import WHITE, load_image
from sensorium.media.limits import ImageLimits
from sensorium.media.video import PICKS, clips_of, frames_of, paced_frames

LIMITS = ImageLimits()


def shades(frames: list[Any]) -> list[int]:
    return [int(load_image(frame).pixels_HWC.mean().round()) for frame in frames]


def grey(level: int, side: int = 24) -> np.ndarray[Any, Any]:
    return np.full((side, side + 8, 3), min(level, 255), np.uint8)


def animation(path: Path, count: int, **more: Any) -> Path:
    pictures = [Image.fromarray(grey(10 * i)).quantize(4) for i in range(count)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40, **more)
    return path


def film(path: Path, count: int, degrees: int = 0) -> Path:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=10, options={"sc_threshold": "1000000000", "g": "100"})
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        frames = [av.VideoFrame.from_ndarray(grey(10 * i), format="rgb24") for i in range(count)]
        for packet in [p for frame in [*frames, None] for p in stream.encode(frame)]:
            out.mux(packet)
    return path


def from_the_middle(whole: Path, path: Path, first: int) -> Path:
    """A film that begins to be shown at a frame, as editors cut without encoding again: those in front are in the file."""
    av = pytest.importorskip("av")
    with av.open(str(whole)) as found, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as out:
        stream = found.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in found.demux(stream):
            if packet.size:
                packet.pts, packet.dts = (at - round(first / 10 / stream.time_base) for at in (packet.pts, packet.dts))
                packet.stream = copy
                out.mux(packet)
    return path


@given(st.integers(1, 400), st.integers(1, 16))
def test_frames_are_picked_as_the_authors_do(count: int, frames: int) -> None:
    # Emu1/utils.py, and torchdata_eval.py of SEED, written down with numpy as they are there.
    size = (count - 1) / frames
    segments = [int(size / 2) + int(np.round(size * i)) for i in range(frames)]
    assert PICKS["segments"](count, frames) == segments
    edges = np.linspace(0, count, min(count, frames) + 1).astype(int)
    assert PICKS["middles"](count, frames) == [int(a + b - 1) // 2 for a, b in pairwise(edges)]
    for pick in PICKS.values():
        found = pick(count, frames)
        assert found == sorted(found)
        assert 0 <= found[0] <= found[-1] < count


@pytest.mark.parametrize(("pick", "wanted"), [("segments", [20, 70, 120, 180]), ("middles", [20, 70, 130, 180])])
def test_of_an_animation_and_of_its_bytes(pick: PickName, wanted: list[int], tmp_path: Path) -> None:
    path = animation(tmp_path / "moves.gif", 22)
    for source in (path, "moves.gif", path.read_bytes()):
        frames = frames_of(source, 4, pick, root=tmp_path, limits=LIMITS)
        assert [image_shape(frame) for frame in frames] == [MediaShape(24, 32)] * 4
        assert shades(frames) == pytest.approx(wanted, abs=6)


def test_frames_are_decoded_only_when_asked_for_and_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = frames_of(animation(tmp_path / "moves.webp", 9, lossless=True), 3, "middles", root=None, limits=LIMITS)
    decoded: list[int] = []
    clip: Any = frames[0].clip
    plain = clip._pillow
    monkeypatch.setattr(clip, "_pillow", lambda: decoded.append(1) or plain())
    assert image_shape(frames[2]) == MediaShape(24, 32)
    assert not decoded
    assert shades(frames[::-1]) == [70, 40, 10]
    assert len(decoded) == 1


def test_pictures_taken_out_before(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(10)]
    for i, name in enumerate(names):
        Image.fromarray(grey(10 * i)).save(tmp_path / name)
    # No more than are wanted: all of them, each once.
    assert frames_of(names[:4], 4, "segments", root=tmp_path, limits=LIMITS) == names[:4]
    assert frames_of(names, 4, "middles", root=tmp_path, limits=LIMITS) == [names[i] for i in (0, 3, 5, 8)]
    array_FHWC = np.stack([grey(10 * i) for i in range(10)])
    for source in (array_FHWC, Made("video", array_FHWC, fps=8.0)):
        assert shades(frames_of(source, 4, "middles", root=None, limits=LIMITS)) == [0, 30, 50, 80]


def test_of_a_still_picture_there_is_one_frame(picture: Path) -> None:
    (frame,) = frames_of(picture, 4, "middles", root=None, limits=LIMITS)
    assert np.array_equal(load_image(frame).pixels_HWC, load_image(picture).pixels_HWC)


def test_transparent_frames_show_their_ground(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png", save_all=True, append_images=[Image.new("RGBA", (8, 8), (255, 0, 0, 255))])
    frames = frames_of(tmp_path / "clear.png", 2, "middles", root=None, limits=LIMITS)
    assert load_image(frames[0]).pixels_HWC[0, 0].tolist() == list(WHITE)
    assert load_image(frames[0], background=(1, 2, 3)).pixels_HWC[0, 0].tolist() == [1, 2, 3]
    assert load_image(frames[1]).pixels_HWC[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.avi"])
def test_of_a_video_file(name: str, tmp_path: Path) -> None:
    path = film(tmp_path / name, 23)
    for source in (path, path.read_bytes()):
        frames = frames_of(source, 8, "segments", root=None, limits=LIMITS)
        assert image_shape(frames[0]) == MediaShape(24, 32)
        assert shades(frames) == pytest.approx([10, 40, 70, 90, 120, 150, 170, 200], abs=4)


def test_files_that_name_others_are_not_followed(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 4)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{path}\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError, match=r"list\.m3u8: damaged video"):
        frames_of(playlist, 2, "middles", root=None, limits=LIMITS)


def test_a_film_that_was_cut_off_says_which_frame_is_not_there(tmp_path: Path) -> None:
    content = film(tmp_path / "film.avi", 40).read_bytes()
    with pytest.raises(MediaError):
        shades(frames_of(content[:200], 4, "middles", root=None, limits=LIMITS))
    frames = frames_of(animation(tmp_path / "moves.gif", 12), 4, "middles", root=None, limits=LIMITS)
    frames[0].clip.count = 99
    object.__setattr__(frames[3], "number", 98)
    with pytest.raises(MediaError, match="frame 99 of 99 is not there"):
        load_image(frames[3])


@pytest.mark.parametrize(
    ("source", "reason"),
    [([], "without frames"), (3, "video is a int"), ("none.mp4", "no such file"), ("../out.mp4", "leads out"), ("\0", "null character")],
)
def test_what_is_no_video_is_said(source: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=reason):
        frames_of(source, 4, "middles", root=tmp_path, limits=LIMITS)


def test_limits_hold_for_frames(tmp_path: Path) -> None:
    path = animation(tmp_path / "moves.gif", 3)
    with pytest.raises(MediaError, match="at most 100 pixels"):
        frames_of(path, 2, "middles", root=None, limits=ImageLimits(max_pixels=100))
    noise = io.BytesIO(b"GIF89a" + bytes(range(64)))
    with pytest.raises(MediaError):
        shades(frames_of(noise.getvalue(), 2, "middles", root=None, limits=LIMITS))


def test_without_pyav_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    with pytest.raises(MediaError, match=r"needs PyAV[\s\S]*\[video\]"):
        frames_of(tmp_path / "film.mp4", 2, "middles", root=None, limits=LIMITS)


def test_the_first_frames_at_a_pace(tmp_path: Path) -> None:
    """Of an animation of 25 frames a second, a film of 10, and frames that say how fast they are, or do not."""
    def paced(source: Any, frames: int, fps: float) -> list[int]:
        return shades(paced_frames(source, frames, fps, root=tmp_path, limits=LIMITS))

    moves = animation(tmp_path / "moves.gif", 22)
    assert paced(moves, 3, 5.0) == pytest.approx([0, 50, 100], abs=6)
    assert paced("moves.gif", 9, 5.0) == pytest.approx([0, 50, 100, 150, 200], abs=6)
    assert paced(moves.read_bytes(), 2, 99.0) == pytest.approx([0, 10], abs=6)
    frames = np.stack([grey(10 * i) for i in range(9)])
    assert paced(frames, 3, 1.0) == paced(list(frames), 3, 1.0) == [0, 10, 20]
    assert paced(Made("video", frames, fps=8.0), 3, 2.0) == [0, 40, 80]
    assert paced(film(tmp_path / "film.mp4", 22), 4, 2.0) == pytest.approx([0, 50, 100, 150], abs=6)


def clip_numbers(count: int, fps: float, cut: FrameClips) -> list[list[int]]:
    """First and last frame of each clip, written down with pytorchvideo's sampler and decord's frames at hand."""
    spare = max(count / fps - cut.seconds, 0)
    starts = [Fraction(spare) / (cut.clips - 1) * i for i in range(cut.clips)]
    spans = [range(math.ceil(fps * start), min(math.ceil(fps * (start + cut.seconds)), count)) for start in starts]
    return [[span[0], span[-1]] for span in spans]


@given(st.integers(1, 300), st.sampled_from([1.0, 10.0, 24.0, 25.0, 29.97, 30.0]), st.integers(2, 6))
def test_clips_are_cut_as_the_authors_do(count: int, fps: float, clips: int) -> None:
    cut = FrameClips(clips=clips)
    assert clips_of(SimpleNamespace(array=list(range(count)), fps=fps), cut, root=None, limits=LIMITS) == clip_numbers(count, fps, cut)


def test_clips_of_files(tmp_path: Path) -> None:
    """An animation's pace is its own, a file's that of its stream; each frame is decoded once."""
    cut = FrameClips(clips=3)
    found = clips_of(animation(tmp_path / "moves.gif", 22), FrameClips(clips=1, seconds=1), root=None, limits=LIMITS)
    # 25 a second, of which there are 22.
    assert [shades(frames) for frames in found] == [pytest.approx([0, 210], abs=6)]
    path = film(tmp_path / "moves.mp4", 25)
    for source in (path, path.read_bytes()):
        found = clips_of(source, cut, root=None, limits=LIMITS)
        assert [[frame.number for frame in frames] for frames in found] == clip_numbers(25, 10.0, cut) == [[0, 19], [3, 22], [5, 24]]
        assert [shades(frames) for frames in found] == [pytest.approx([10 * i for i in numbers], abs=9) for numbers in clip_numbers(25, 10.0, cut)]


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
def test_animations_say_how_fast_they_are(name: str, tmp_path: Path) -> None:
    """WebP does so only once a frame is decoded; where nothing was said, each frame would be a second."""
    path = tmp_path / name
    first, *others = (Image.fromarray(grey(5 * i)) for i in range(50))
    first.save(path, save_all=True, append_images=others, duration=40)
    clips = clips_of(path, FrameClips(clips=2, seconds=1), root=None, limits=LIMITS)
    assert [[frame.number for frame in frames] for frames in clips] == [[0, 24], [25, 49]]
    with pytest.raises(MediaError, match="at most 100 pixels"):
        clips_of(path, FrameClips(), root=None, limits=ImageLimits(max_pixels=100))


def test_what_a_film_was_cut_from_is_not_counted(tmp_path: Path) -> None:
    part = from_the_middle(film(tmp_path / "whole.mp4", 20), tmp_path / "part.mp4", 5)
    assert shades(frames_of(part, 99, "middles", root=None, limits=LIMITS)) == pytest.approx([10 * i for i in range(5, 20)], abs=6)
    assert [shades(frames) for frames in clips_of(part, FrameClips(clips=1), root=None, limits=LIMITS)] == [pytest.approx([50, 190], abs=6)]
