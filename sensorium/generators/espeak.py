"""eSpeak NG, the voice that is always at hand: rules for about a hundred languages, no weights.

Its C library is called through ctypes (`speak_lib.h`): that of the wheel `espeakng-loader`, which brings the voices too, or the
system's. All speakers share one lock, for a process has one copy of it. Its licence is GPL 3.
"""

from __future__ import annotations

import _ctypes
import ctypes
import ctypes.util
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from sensorium.core.errors import ConfigError, GenerationError, MissingDependencyError
from sensorium.core.hands import Making
from sensorium.generators.speech import Speaker, SpeechConfig, count

# Constants of speak_lib.h.
SYNCHRONOUS = 2
DONT_EXIT = 0x8000
UTF8 = 1
IPA = 2
RATE, PITCH = 1, 3

_LIBRARY_LOCK = Lock()
_Heard = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class EspeakConfig(SpeechConfig):
    """A voice of eSpeak NG."""

    kind: Literal["espeak"] = "espeak"
    voice: Annotated[str, Field(pattern=r"^[A-Za-z0-9+_/-]+$")] = "en-us"
    """As `espeak-ng --voices` lists them: a language, or a language and a variant (`en-us+f3`)."""
    words_a_minute: Annotated[int, Field(ge=80, le=450)] = 150
    """eSpeak's own pace is 175; short answers are understood better when they are slower (`benchmarks/speech.py`)."""
    pitch: Annotated[int, Field(ge=0, le=100)] = 50
    silence_s: Annotated[float, Field(ge=0.0, le=5.0)] = 0.5
    """Before and behind what is said: it begins at once otherwise, and who listens misses the first sound."""

    @classmethod
    def tiny(cls) -> EspeakConfig:
        return cls()

    def build(self, folder: Path | None = None) -> Espeak:
        if folder is not None:
            raise ConfigError("weights for espeak, which has none", where="generator espeak", fix="leave `weights` empty")
        with _opened(self) as (_, rate_hz):
            return Espeak(self, rate_hz)


class Espeak(Speaker):
    """Says the same for the same text, whatever the seed."""

    def __init__(self, config: EspeakConfig, rate_hz: int) -> None:
        super().__init__(config.kind, rate_hz)
        self.config = config

    def say(self, text: str, making: Making) -> np.ndarray[Any, Any]:
        chunks: list[np.ndarray[Any, Any]] = []
        failed: list[BaseException] = []

        # What is raised in a function that C calls is lost: it is kept, and C is told to stop.
        def heard(samples: Any, number: int, _events: Any) -> int:
            if samples and number > 0:
                chunks.append(np.ctypeslib.as_array(samples, (number,)).copy())
            try:
                if making.cancelled is not None and making.cancelled():
                    count(1, 2, making, self.kind)
            except BaseException as error:
                failed.append(error)
            return int(bool(failed))

        said = text.replace("\0", " ").encode("utf-8")
        callback = _Heard(heard)
        with _opened(self.config) as (library, _):
            library.espeak_SetSynthCallback(callback)
            status = library.espeak_Synth(said, ctypes.c_size_t(len(said) + 1), 0, 1, 0, UTF8, None, None)
            library.espeak_Synchronize()
        if failed:
            raise failed[0]
        if status != 0 or not chunks:
            raise GenerationError(f"eSpeak NG said nothing (status {status})", where="generator espeak")
        count(1, 1, making, self.kind)
        silence_N = np.zeros(round(self.config.silence_s * self.rate_hz), np.float32)
        return np.concatenate([silence_N, np.concatenate(chunks).astype(np.float32) / 32768.0, silence_N])


def pronounced(config: EspeakConfig, text: str) -> str:
    """How the voice would say a text, in the phonetic alphabet, without its marks; pace and pitch mean nothing.

    Raises:
        MissingDependencyError: eSpeak NG is not installed.
        ConfigError: it has no such voice.
    """
    said = ctypes.create_string_buffer(text.replace("\0", " ").encode("utf-8"))
    place = ctypes.c_void_p(ctypes.addressof(said))
    clauses: list[str] = []
    with _opened(config) as (library, _):
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        # A clause at a time; the place is null behind the last one.
        while place.value:
            found = library.espeak_TextToPhonemes(ctypes.byref(place), UTF8, IPA)
            clauses.append((found or b"").decode("utf-8").strip())
    return " ".join(clause for clause in clauses if clause)


@contextmanager
def _opened(config: EspeakConfig) -> Iterator[tuple[Any, int]]:
    """The library with the voice chosen, and its sample rate.

    It is opened afresh each time (some milliseconds): where it goes on, what it says depends on what it said before.
    """
    path, data = _find()
    with _LIBRARY_LOCK:
        library = ctypes.CDLL(path)
        try:
            rate_hz = library.espeak_Initialize(SYNCHRONOUS, 0, None if data is None else data.encode(), DONT_EXIT)
            if rate_hz <= 0:
                raise MissingDependencyError(
                    f"eSpeak NG does not find its voices in {data or 'its own folder'}", where="generator espeak",
                    fix="the path may be too long for it (160 bytes): install where paths are short; or apt-get install espeak-ng-data",
                )  # fmt: skip
            _choose(library, config)
            yield library, rate_hz
            library.espeak_Terminate()
        finally:
            close = getattr(_ctypes, "dlclose", None) or getattr(_ctypes, "FreeLibrary")  # noqa: B009
            close(library._handle)


def _find() -> tuple[str, str | None]:
    try:
        espeakng_loader = import_module("espeakng_loader")
        return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
    except ModuleNotFoundError:
        system = ctypes.util.find_library("espeak-ng")
        if system is not None:
            return system, None
    raise MissingDependencyError(
        "eSpeak NG is not installed", where="generator espeak",
        fix='pip install "sensorium[gen]", which brings it, or your system\'s package: apt-get install libespeak-ng1 espeak-ng-data',
    )  # fmt: skip


def _choose(library: Any, config: EspeakConfig) -> None:
    if library.espeak_SetVoiceByName(config.voice.encode()) != 0:
        raise ConfigError(f"eSpeak NG has no voice {config.voice!r}", expected="one such as en-us, de, cmn or en-us+f3", where="generator espeak")
    library.espeak_SetParameter(RATE, config.words_a_minute, 0)
    library.espeak_SetParameter(PITCH, config.pitch, 0)
