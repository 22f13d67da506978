"""What a sound is read as, and what becomes of one that cannot be read."""

from __future__ import annotations

import io
import tracemalloc
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sensorium.core.batch import Wanted
from sensorium.core.errors import MediaError
from sensorium.core.hands import Made
from sensorium.media.audio_file import wav_bytes
from sensorium.media.sound import Sound, load_sound, resampled
from sensorium.processing.wanted_moving import sound_samples


def tone(hz: float, rate_hz: int, seconds: float = 0.5) -> np.ndarray[Any, Any]:
    return np.sin(2 * np.pi * hz * np.arange(round(rate_hz * seconds)) / rate_hz).astype(np.float32)


def stored(channels_NC: np.ndarray[Any, Any], width: int, rate_hz: int = 8000) -> bytes:
    """A WAV file of numbers -1..1, written down sample by sample."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels_NC.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        for value in channels_NC.flatten().tolist():
            whole = round(value * (2 ** (8 * width - 1) - 1))
            file.writeframes(bytes([whole + 128]) if width == 1 else whole.to_bytes(width, "little", signed=True))
    return buffer.getvalue()


@pytest.mark.parametrize(("width", "error"), [(1, 1e-2), (2, 1e-4), (3, 1e-6), (4, 1e-6)])
def test_the_first_channel_of_whole_numbers_of_any_width(width: int, error: float, tmp_path: Path) -> None:
    sounds_NC = np.stack([0.8 * tone(300, 8000), tone(700, 8000)], axis=1)
    content = stored(sounds_NC, width)
    (tmp_path / "two.wav").write_bytes(content)
    for source in (content, tmp_path / "two.wav", "two.wav"):
        sound = load_sound(source, 9.0, root=tmp_path)
        assert sound.rate_hz == 8000
        np.testing.assert_allclose(sound.samples_N, sounds_NC[:, 0], atol=error)
    np.testing.assert_array_equal(load_sound(content, 0.1).samples_N, sound.samples_N[:800])


@pytest.mark.parametrize("name", ["a.flac", "a.mp3", "a.mp4", "a.mkv"])
def test_of_other_files(name: str, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    wanted_N = tone(440, 44100)
    codec = {"a.flac": "flac", "a.mp3": "mp3"}.get(name, "aac")
    with av.open(str(tmp_path / name), "w") as out:
        stream = out.add_stream(codec, rate=44100, layout="mono")
        for start in range(0, len(wanted_N), 1024):
            frame = av.AudioFrame.from_ndarray((wanted_N[None, start : start + 1024] * 32767).astype(np.int16), format="s16", layout="mono")
            frame.rate, frame.pts = 44100, start
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
    sound = load_sound(tmp_path / name, 0.3)
    assert sound.rate_hz == 44100
    assert len(sound.samples_N) == 13230
    # Coders of some formats begin with silence of their own: the tone is told by its strongest frequency.
    spectrum = np.abs(np.fft.rfft(sound.samples_N[4410:] * np.hanning(8820)))
    assert spectrum.argmax() * 44100 / 8820 == pytest.approx(440, abs=5)
    assert np.abs(sound.samples_N).max() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("old_hz", "new_hz"), [(44100, 16000), (8000, 16000), (48000, 16000), (44101, 16000)])
def test_a_tone_is_the_same_tone_at_another_rate(old_hz: int, new_hz: int) -> None:
    made_N = resampled(Sound(tone(1000, old_hz), old_hz), new_hz)
    assert len(made_N) == pytest.approx(0.5 * new_hz, abs=1)
    wanted_N = tone(1000, new_hz)[: len(made_N)]
    np.testing.assert_allclose(made_N[200:-200], wanted_N[200 : len(made_N) - 200], atol=2e-3)
    above = resampled(Sound(tone(11_000, 44100), 44100), new_hz)
    assert np.abs(above[200:-200]).max() < 0.01


def test_what_is_learned_has_no_mean_and_is_half_as_loud_as_it_may_be() -> None:
    samples_N = 0.1 * tone(200, 16000) + 0.05
    heard_N = sound_samples(Wanted("audio", 0, 1, "", Made("audio", samples_N, sample_rate_hz=16000)), 0.75, 16000).numpy()
    assert heard_N.shape == (12000,)
    assert float(np.abs(heard_N).max()) == pytest.approx(0.5, abs=1e-5)
    assert float(heard_N[:8000].mean()) == pytest.approx(0.0, abs=1e-5)
    np.testing.assert_allclose(heard_N[:8000], 0.5 * tone(200, 16000), atol=1e-5)
    assert not heard_N[8000:].any()


def test_what_is_no_sound_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaError, match=r"none\.wav: no such file"):
        load_sound("none.wav", 1.0, root=tmp_path)
    with pytest.raises(MediaError, match="path leads out of the data folder"):
        load_sound("../x.wav", 1.0, root=tmp_path)
    with pytest.raises(MediaError, match="audio is a dict; expected a path, bytes"):
        load_sound({"way": "first"}, 1.0)
    with pytest.raises(MediaError, match="sound without samples"):
        load_sound(wav_bytes(np.zeros(0), 8000), 1.0)
    with pytest.raises(MediaError, match="some that are not finite"):
        load_sound(Made("audio", np.array([0.0, np.nan]), sample_rate_hz=8000), 1.0)
    with pytest.raises(MediaError, match=r"shape \(4, 2\)"):
        load_sound(Made("audio", np.zeros((4, 2)), sample_rate_hz=8000), 1.0)
    with pytest.raises(MediaError, match="3 samples a second; expected 1,000 to"):
        load_sound(wav_bytes(np.zeros(9), 3), 1.0)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(MediaError, match=r"needs PyAV[\s\S]*\[video\][\s\S]*WAV"):
        load_sound(b"ID3 and so on", 1.0)


FORMAT = b"fmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\0\xfa\0\0"
WIDE = b"RIFF\x2c\0\0\0WAVE" + FORMAT + b"\x08\0\x48\0data\x09\0\0\0" + bytes(9)
"""Numbers of 72 bits."""
LONG = b"RIFF\x40\0\0\0WAVE" + b"LIST\xff\xff\0\0" + bytes(40)
"""A chunk that is longer than the file."""


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\x24\0\0\0WAVEfmt ", b"ID3\x04\0\0\0\0\0\0" + bytes(99), b"#EXTM3U\nhttp://x/y.ts\n", WIDE, LONG])
def test_damaged_bytes_are_an_error_of_ours(content: bytes) -> None:
    pytest.importorskip("av")
    with pytest.raises(MediaError, match="audio bytes"):
        load_sound(content, 1.0)


def test_a_clip_of_a_long_sound_is_read_without_copies_of_all_of_it() -> None:
    """One of ten minutes is 110 MiB at 48 kHz: a second costs what a second is, and whole numbers become no larger ones on the way."""
    sound = Sound(np.ones(48_000 * 60, np.float32), 48_000)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        file.writeframes(bytes(2 * len(sound.samples_N)))
    peaks: list[int] = []
    tracemalloc.start()
    for work in (lambda: resampled(sound, 16_000, slice(16_000 * 30, 16_000 * 30 + 160)), lambda: load_sound(buffer.getvalue(), 60)):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        work()
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
    tracemalloc.stop()
    assert peaks[0] < 2**20
    # The file twice, its numbers as 32 bits and as floats.
    assert peaks[1] < 1.2 * (2 * 2 + 4 + 4) * len(sound.samples_N)
