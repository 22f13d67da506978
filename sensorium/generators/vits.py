"""VITS through transformers: text -> sound in one pass.

Sources: arXiv:2106.06103; MMS's voices of 1,100 languages (arXiv:2305.13516) have this layout: `facebook/mms-tts-eng`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from sensorium.core.errors import MissingDependencyError, WeightsError
from sensorium.core.hands import Asked, Making
from sensorium.generators import tiny_parts
from sensorium.generators.speech import Speaker, SpeechConfig, count, seeded
from sensorium.nn.pretrained import from_folder, from_hub, need_files, need_weights

HUB = "facebook/mms-tts-eng"
FILES = ("config.json", "vocab.json", "tokenizer_config.json")


class VitsConfig(SpeechConfig):
    """The voice is the folder's."""

    kind: Literal["vits"] = "vits"
    pace: Annotated[float, Field(gt=0.0)] = 1.0
    """How fast it speaks, beside the folder's own pace."""
    scale: Literal["published", "tiny"] = "published"
    """`tiny`: without a folder, a small one with random weights is made."""

    @property
    def heeds(self) -> frozenset[Asked]:
        return frozenset({"seed"})

    @classmethod
    def tiny(cls) -> VitsConfig:
        return cls(scale="tiny")

    def fetch(self, path: str, files: str = "*") -> str:
        return from_hub(HUB, path, files)

    def build(self, folder: Path | None = None) -> Vits:
        if folder is not None:
            need_files(folder, FILES, lambda name: self.fetch(str(folder), name or "*"))
            need_weights(folder, self.fetch(str(folder), "model*"))
            return Vits(self, *_load(folder, self.fetch(str(folder))))
        if self.scale == "tiny":
            return Vits(self, tiny_parts.vits(), tiny_parts.vits_tokenizer())
        raise WeightsError("no folder, and random weights do not speak", where="generator vits",
                           fix=f"name a folder or hub id in `weights`, such as {HUB}: {self.fetch('FOLDER')}")  # fmt: skip


class Vits(Speaker):
    """Durations and sound are drawn at random; the seed decides them."""

    def __init__(self, config: VitsConfig, model: Any, tokenizer: Any) -> None:
        super().__init__(config.kind, int(model.config.sampling_rate))
        self.config = config
        self.model = model
        self.tokenizer = tokenizer

    def say(self, text: str, making: Making) -> np.ndarray[Any, Any]:
        try:
            read = self.tokenizer(text, return_tensors="pt")
        except ImportError as error:
            raise MissingDependencyError(
                f"this voice's tokenizer wants a package that is not installed: {error}", where="generator vits",
                fix="pip install phonemizer espeakng-loader, or take a voice that reads letters, such as facebook/mms-tts-eng",
            ) from None  # fmt: skip
        ids = read.input_ids.to(self.model.device)
        mask = read.attention_mask.to(self.model.device)
        with seeded(making.seed, self.model):
            made = self.model(ids, attention_mask=mask, speaking_rate=self.config.pace * self.model.config.speaking_rate)
        count(1, 1, making, self.kind)
        return made.waveform[0, : int(made.sequence_lengths[0])].float().cpu().numpy()


def _load(folder: Path, fix: str) -> tuple[Any, Any]:
    from transformers import VitsConfig as Published
    from transformers import VitsModel, VitsTokenizer

    try:
        config = Published.from_pretrained(folder, local_files_only=True)
        tokenizer = VitsTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"no VITS with its tokenizer: {error}", where=str(folder), fix=fix) from None
    return from_folder(VitsModel, config, folder), tokenizer
