"""Is nano understood when it speaks? Answers as nano is taught to give them -> a voice -> Whisper tiny.en -> word error rate.

    python benchmarks/speech.py [--env FOLDER] [--voice piper|espeak] [--limit 40] [--search]

Whisper is installed into an environment of its own (`speech_peers.txt`: about 400 MB). What is said are the right answers to
questions about held-out pictures and scenes, each text once and nothing added to it; eSpeak's voice may be chosen by `--search` on texts
of the training split. Texts are normalised by Whisper's English normaliser. A sound costs a second of one core. Goes to
`benchmarks/results/`, with intervals of 95 % from drawing the texts of each sort again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from sensorium.core.atomic import write_json
from sensorium.core.hands import Speaks
from sensorium.data.config import PictureBookSource, ScenesSource, SourceConfig
from sensorium.evaluation.benchmarks.base import spread
from sensorium.evaluation.metrics.wer import word_error_rate, word_errors
from sensorium.generators import GENERATORS
from sensorium.generators.espeak import EspeakConfig
from sensorium.generators.piper import PiperConfig
from sensorium.generators.speech import SpeechConfig
from sensorium.media.audio_file import write_wav

HERE = Path(__file__).resolve().parent
SCENES = {"train": 11, "heldout": 900001}
"""Seeds: those of training, and those of nano's evaluation."""
VOICES = ("en-us", "en", "en-gb-x-rp", "en-us+f2", "en-us+f3", "en-us+m3", "en-us+klatt4")
PACES = (125, 150, 175)
PITCHES = (35, 50, 65)

Split = Literal["train", "heldout"]


def texts_of(split: Split, limit: int) -> dict[str, list[str]]:
    """Answers by sort, at most `limit` of each, evenly spread: what a scene holds, what a picture shows, and what is answered to a
    question, which is mostly a word or two."""
    book: dict[str, Any] = {"part": "shipped", "split": split}
    sources: dict[str, list[SourceConfig]] = {
        "scenes": [ScenesSource(task="captions", seed=SCENES[split], count=2 * limit)],
        "captions": [PictureBookSource(task="captions", **book)],
        "answers": [PictureBookSource(variants=2, **book), ScenesSource(task="instruct", seed=SCENES[split], count=2 * limit)],
    }
    texts: dict[str, list[str]] = {}
    for sort, configs in sources.items():
        texts[sort] = spread([text for text in _answers(configs) if not any(text in group for group in texts.values())], limit)
    return texts


def _answers(configs: Sequence[SourceConfig]) -> list[str]:
    sources = [config.open() for config in configs]
    found = [message.text for source in sources for i in range(len(source)) for message in source[i].messages if message.role == "assistant"]
    return list(dict.fromkeys(found))


def python_of(folder: Path) -> str:
    """Whisper's own environment, installed on first use."""
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        print(f"installing Whisper into {folder} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check",
                        "-r", str(HERE / "speech_peers.txt")], check=True)  # fmt: skip
        (folder / ".installed").touch()
    return str(python)


def heard_from(voice: SpeechConfig, texts: Sequence[str], python: str) -> list[dict[str, str]]:
    """Of each text what was said and heard, normalised, and `raw`, as it was heard."""
    speaker = cast(Speaks, voice.build())
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.wav" for i in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            made = speaker.speak(text)
            write_wav(path, made.array, made.sample_rate_hz or 0)
        asked = json.dumps({"sounds": [str(path) for path in paths], "texts": list(texts)})
        done = subprocess.run([python, "speech_hear.py"], cwd=HERE, input=asked, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def measured(voice: SpeechConfig, texts: dict[str, list[str]], python: str) -> dict[str, Any]:
    """Word error rates, of all texts and by sort, and what was heard wrongly."""
    every = [(sort, text) for sort, group in texts.items() for text in group]
    found = heard_from(voice, [text for _, text in every], python)
    sorts = {sort: [one for (its, _), one in zip(every, found, strict=True) if its == sort] for sort in texts}
    wrong = [[text, one["raw"]] for (_, text), one in zip(every, found, strict=True) if word_errors(one["said"], one["heard"])]
    rates = {"all": rate(list(sorts.values())), **{sort: rate([ones]) for sort, ones in sorts.items()}}
    return {"voice": voice.to_dict(), "wer": rates, "heard_wrongly": wrong}


def rate(sorts: Sequence[Sequence[dict[str, str]]], draws: int = 2000) -> dict[str, Any]:
    """The word error rate of these texts and its interval: texts of each sort are drawn again, as many as there are."""
    ones = [one for group in sorts for one in group]
    counts = [np.array([(word_errors(one["said"], one["heard"]), len(one["said"].split())) for one in group]) for group in sorts]
    random = np.random.default_rng(0)
    drawn = sum(group[random.integers(len(group), size=(draws, len(group)))].sum(1) for group in counts)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.025, 0.975))
    return {"rate": round(word_error_rate([one["said"] for one in ones], [one["heard"] for one in ones]), 4),
            "interval": [round(float(low), 4), round(float(high), 4)], "texts": len(ones), "words": int(sum(group[:, 1].sum() for group in counts)),
            "texts_heard_rightly": sum(one["said"] == one["heard"] for one in ones)}  # fmt: skip


def search(texts: dict[str, list[str]], python: str) -> EspeakConfig:
    """One setting after the other: the voice, its pace, its pitch."""
    best = EspeakConfig()
    for name, values in (("voice", VOICES), ("words_a_minute", PACES), ("pitch", PITCHES)):
        rates: dict[Any, float] = {}
        for value in values:
            rates[value] = measured(best.model_copy(update={name: value}), texts, python)["wer"]["all"]["rate"]
            print(f"{name} {value}: {rates[value]:.1%}", flush=True)
        best = best.model_copy(update={name: min(rates, key=lambda value: rates[value])})
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", type=Path, default=Path(tempfile.gettempdir()) / "sensorium-whisper")
    parser.add_argument("--voice", choices=("piper", "espeak"), help="Left out: the one that nano has here.")
    parser.add_argument("--limit", type=int, default=40, help="Texts of each of three sorts.")
    parser.add_argument("--search", action="store_true", help="eSpeak: try voices, paces and pitches on the training split first.")
    parser.add_argument("--out", type=Path, help="Left out: speech-VOICE.json in results/.")
    options = parser.parse_args()
    python = python_of(options.env)
    kind = options.voice or ("piper" if PiperConfig.installed() else "espeak")
    if options.search and kind != "espeak":
        parser.error("--search is eSpeak's")
    voice = search(texts_of("train", options.limit), python) if options.search else cast(SpeechConfig, GENERATORS.find(kind)())
    result = measured(voice, texts_of("heldout", options.limit), python)
    write_json(options.out or HERE / "results" / f"speech-{kind}.json", result)
    print(json.dumps({key: value for key, value in result.items() if key != "heard_wrongly"}, indent=2))


if __name__ == "__main__":
    main()
