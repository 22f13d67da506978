"""SpeechT5 through transformers: text and the vector of a voice -> spectrogram, a row at a time -> sound.

Source: arXiv:2110.07205. A folder is `microsoft/speecht5_tts` with two things more: `vocoder/`, which is
`microsoft/speecht5_hifigan`, and `speaker.npy`, the voice: an x-vector of 512 numbers, as the data set
`Matthijs/cmu-arctic-xvectors` has them.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sensorium.core.errors import ConfigError, MissingDependencyError, WeightsError
from sensorium.core.hands import Asked, Making
from sensorium.generators import tiny_parts
from sensorium.generators.speech import Speaker, SpeechConfig, count, seeded
from sensorium.nn.pretrained import from_folder, from_hub, need_files, need_weights

VOCODER = "vocoder"
VOICE = "speaker.npy"
VOICE_WIDTH = 512
HUB, HUB_VOCODER = "microsoft/speecht5_tts", "microsoft/speecht5_hifigan"
FILES = ("config.json", "spm_char.model", "tokenizer_config.json", f"{VOCODER}/config.json", VOICE)


class SpeechT5Config(SpeechConfig):
    """The voice is the folder's."""

    kind: Literal["speecht5"] = "speecht5"
    scale: Literal["published", "tiny"] = "published"
    """`tiny`: without a folder, a small one with random weights is made."""

    @property
    def heeds(self) -> frozenset[Asked]:
        return frozenset({"seed"})

    @classmethod
    def tiny(cls) -> SpeechT5Config:
        return cls(scale="tiny")

    def fetch(self, path: str) -> str:
        return f"{from_hub(HUB, path, '*')}; {_brings(VOCODER, path)}; {_brings(VOICE, path)}"

    def build(self, folder: Path | None = None) -> SpeechT5:
        try:
            import_module("sentencepiece")
        except ModuleNotFoundError:
            raise MissingDependencyError("its tokenizer needs a package that is not installed (sentencepiece)",
                                         where="generator speecht5", fix='pip install "sensorium[gen]"') from None  # fmt: skip
        if folder is not None:
            self._whole(folder)
            return SpeechT5(*_load(folder, self.fetch(str(folder))))
        if self.scale == "tiny":
            model = tiny_parts.speecht5()
            voice_V = torch.randn(model.config.speaker_embedding_dim)
            return SpeechT5(model, tiny_parts.vocoder(model.config.num_mel_bins), tiny_parts.speecht5_tokenizer(), voice_V)
        raise WeightsError("no folder, and random weights do not speak", where="generator speecht5",
                           fix=f"name a folder in `weights`, of three things: {self.fetch('FOLDER')}")  # fmt: skip

    def _whole(self, folder: Path) -> None:
        """Refuse a folder that lacks a part."""
        need_files(folder, FILES, lambda name: _brings(name, str(folder)) if name else self.fetch(str(folder)))
        need_weights(folder, from_hub(HUB, str(folder)))
        need_weights(folder / VOCODER, _brings(VOCODER, str(folder)))


class SpeechT5(Speaker):
    """The decoder's first layers drop out at random even when it speaks; the seed decides what."""

    def __init__(self, model: Any, vocoder: Any, tokenizer: Any, voice_V: Tensor) -> None:
        super().__init__("speecht5", int(vocoder.config.sampling_rate))
        self.model = model
        self.vocoder = vocoder
        self.tokenizer = tokenizer
        self.voice_V = voice_V

    def say(self, text: str, making: Making) -> np.ndarray[Any, Any]:
        ids = self.tokenizer(text, return_tensors="pt").input_ids.to(self.model.device)
        config = self.model.config
        if ids.shape[1] > config.max_text_positions:
            raise ConfigError(f"a text of {ids.shape[1]} tokens", expected=f"at most {config.max_text_positions}",
                              where="generator speecht5", fix="say it in several sentences")  # fmt: skip
        # It speaks until it stops by itself, or at twenty rows a token.
        most = ids.shape[1] * 20 // config.reduction_factor
        done = 0

        def stepped(*_: Any) -> None:
            nonlocal done
            done += 1
            count(done, most, making, self.kind)

        hook = self.model.speech_decoder_postnet.prob_out.register_forward_hook(stepped)
        try:
            with seeded(making.seed, self.model):
                sound_N = self.model.generate_speech(ids, self.voice_V[None].to(self.model.device), vocoder=self.vocoder)
        finally:
            hook.remove()
        return sound_N.float().cpu().numpy()


def _brings(name: str, path: str) -> str:
    """What brings one thing of a folder."""
    if name == VOICE:
        return f"put the voice, an array of numpy of {VOICE_WIDTH} numbers such as a row of Matthijs/cmu-arctic-xvectors, into {path}/{VOICE}"
    if name.startswith(VOCODER):
        return f"hf download {HUB_VOCODER} --local-dir {path}/{VOCODER}"
    return from_hub(HUB, path, name)


def _load(folder: Path, fix: str) -> tuple[Any, Any, Any, Tensor]:
    from transformers import SpeechT5Config as Published
    from transformers import (
        SpeechT5ForTextToSpeech,
        SpeechT5HifiGan,
        SpeechT5HifiGanConfig,
        SpeechT5Tokenizer,
    )

    try:
        config = Published.from_pretrained(folder, local_files_only=True)
        vocoder_config = SpeechT5HifiGanConfig.from_pretrained(folder / VOCODER, local_files_only=True)
        tokenizer = SpeechT5Tokenizer.from_pretrained(folder, local_files_only=True)
        voice_V = torch.from_numpy(np.load(folder / VOICE, allow_pickle=False)).float()
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"no SpeechT5 with its tokenizer, vocoder and voice: {error}", where=str(folder), fix=fix) from None
    if voice_V.shape != (config.speaker_embedding_dim,):
        raise WeightsError(f"a voice of shape {tuple(voice_V.shape)}", expected=f"({config.speaker_embedding_dim},)", where=str(folder / VOICE))
    model = from_folder(SpeechT5ForTextToSpeech, config, folder)
    return model, from_folder(SpeechT5HifiGan, vocoder_config, folder / VOCODER), tokenizer, voice_V
