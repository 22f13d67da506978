"""Speakers say a text: eSpeak NG for real, VITS and SpeechT5 with small random weights (beside transformers: tests/parity/test_speakers_parity.py)."""

from __future__ import annotations

import ctypes.util
import importlib.util
import io
import sys
import wave
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.core.errors import (
    ConfigError,
    GenerationError,
    MediaError,
    MissingDependencyError,
    WeightsError,
)
from sensorium.core.hands import CancelledError, Making, Speaks
from sensorium.generators import GENERATORS
from sensorium.media.audio_file import wav_bytes, write_wav

NEEDS = {"espeak": "espeakng_loader", "speecht5": "sentencepiece", "vits": "transformers"}
SPEAKERS = [
    pytest.param(name, marks=pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed"))
    for name, package in NEEDS.items()
]
needs_espeak, needs_sentencepiece = SPEAKERS[0].marks[0], SPEAKERS[1].marks[0]


@cache
def built(name: str) -> Any:
    torch.manual_seed(0)
    return GENERATORS.find(name).tiny().build()


@pytest.mark.parametrize("name", SPEAKERS)
def test_a_text_becomes_sound(name: str) -> None:
    speaker = built(name)
    assert isinstance(speaker, Speaks)
    told: list[tuple[int, int]] = []
    drawn = torch.random.get_rng_state()
    made = speaker.speak("hi", Making(progress=lambda *steps: told.append(steps)))
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert made.kind == "audio"
    assert made.array.dtype == np.float32
    assert made.array.ndim == 1
    assert 0 < np.abs(made.array).max() <= 1
    assert made.sample_rate_hz == speaker.rate_hz
    assert told[-1][0] == told[-1][1]
    np.testing.assert_array_equal(speaker.speak("hi").array, made.array)
    other = speaker.speak("hi", Making(seed=1)).array
    # eSpeak NG draws nothing at random.
    assert (name == "espeak") == (other.shape == made.array.shape and bool((other == made.array).all()))


@pytest.mark.parametrize("name", SPEAKERS)
def test_what_cannot_be_said_is_refused(name: str) -> None:
    speaker = built(name)
    for text in ("", " ... "):
        with pytest.raises(ConfigError, match="nothing to say"):
            speaker.speak(text)
    with pytest.raises(ConfigError, match="length or size of speech"):
        speaker.speak("hi", Making(seconds=1.0))
    with pytest.raises(ConfigError, match="call speak"):
        speaker.generate(torch.zeros(1, 1, 1))
    with pytest.raises(ConfigError, match="told by text"):
        _ = GENERATORS.find(name).tiny().condition
    with pytest.raises(CancelledError, match="stopped after step 1 of"):
        speaker.speak("hi", Making(cancelled=lambda: True))
    assert speaker.speak("hi").array.size


def test_vits_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built("vits").model.save_pretrained(tmp_path)
    built("vits").tokenizer.save_pretrained(tmp_path)
    speaker = GENERATORS.find("vits")().build(tmp_path)
    made = speaker.speak("A cat, two dogs!", Making(seed=7))
    fast = GENERATORS.find("vits")(pace=4.0).build(tmp_path).speak("A cat, two dogs!", Making(seed=7))
    assert fast.array.size < made.array.size
    monkeypatch.setattr(speaker.model, "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(GenerationError, match="ZeroDivisionError"):
        speaker.speak("hi")
    with pytest.raises(WeightsError, match="facebook/mms-tts-eng"):
        GENERATORS.find("vits")().build()
    with pytest.raises(WeightsError, match=r"no such folder.*hf download facebook/mms-tts-eng"):
        GENERATORS.find("vits")().build(tmp_path / "nowhere")


@needs_sentencepiece
def test_speecht5_of_a_folder(tmp_path: Path) -> None:
    tiny = built("speecht5")
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"no vocoder.*hf download microsoft/speecht5_hifigan"):
        GENERATORS.find("speecht5")().build(tmp_path)
    tiny.vocoder.save_pretrained(tmp_path / "vocoder")
    with pytest.raises(WeightsError, match=r"no speaker\.npy"):
        GENERATORS.find("speecht5")().build(tmp_path)
    np.save(tmp_path / "speaker.npy", tiny.voice_V.numpy()[:3])
    with pytest.raises(WeightsError, match=r"a voice of shape \(3,\); expected \(8,\)"):
        GENERATORS.find("speecht5")().build(tmp_path)
    np.save(tmp_path / "speaker.npy", tiny.voice_V.numpy())
    speaker = GENERATORS.find("speecht5")().build(tmp_path)
    with pytest.raises(ConfigError, match="at most 64"):
        speaker.speak("a" * 80)


@needs_espeak
def test_espeak_speaks_with_the_voice_it_is_given() -> None:
    speaker = built("espeak")
    word, sentence = speaker.speak("cat"), speaker.speak("The cat sits on the mat beside two dogs.")
    assert 0.2 < word.array.size / word.sample_rate_hz < 2
    assert 1.5 < sentence.array.size / sentence.sample_rate_hz < 6
    fast = GENERATORS.find("espeak")(words_a_minute=350).build()
    assert fast.speak("The cat sits on the mat beside two dogs.").array.size < 0.7 * sentence.array.size
    german = GENERATORS.find("espeak")(voice="de").build()
    assert german.speak("cat").array.shape != word.array.shape
    # The library has one state, which neither what was said nor other speakers' settings change.
    np.testing.assert_array_equal(speaker.speak("cat").array, word.array)
    with pytest.raises(ConfigError, match="no voice 'klingonish'"):
        GENERATORS.find("espeak")(voice="klingonish").build()
    with pytest.raises(ConfigError, match="which has none"):
        GENERATORS.find("espeak")().build(Path())

    def fails() -> bool:
        raise KeyError("of the caller's")

    with pytest.raises(GenerationError, match="KeyError"):
        speaker.speak("cat", Making(cancelled=fails))


def test_without_espeak_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setattr(ctypes.util, "find_library", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r'pip install "sensorium\[gen\]".*apt-get install libespeak-ng1'):
        GENERATORS.find("espeak")().build()


def test_sound_is_written_as_wav(tmp_path: Path) -> None:
    samples_N = np.array([0.0, 0.5, -0.5, 1.0, -1.0, 2.0], dtype=np.float32)
    write_wav(tmp_path / "out/a.wav", samples_N, 8000)
    assert (tmp_path / "out/a.wav").read_bytes() == wav_bytes(samples_N, 8000)
    with wave.open(io.BytesIO(wav_bytes(samples_N, 8000))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()) == (1, 2, 8000, 6)
        steps_N = np.frombuffer(file.readframes(6), "<i2")
    assert steps_N.tolist() == [0, 16384, -16384, 32767, -32767, 32767]
    for bad in (np.zeros((2, 3)), np.array([np.nan])):
        with pytest.raises(MediaError, match="one row of finite samples"):
            write_wav(tmp_path / "out/b.wav", bad, 8000)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.wav"]
