"""VITS and SpeechT5 say what transformers' classes say of the same folder, text and seed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sensorium.core.hands import Making
from sensorium.generators import GENERATORS

TEXT, SEED = "A cat, two dogs!", 7
needs_sentencepiece = pytest.mark.skipif(importlib.util.find_spec("sentencepiece") is None, reason="sentencepiece is not installed")


def same_tensors(ours: torch.nn.Module, theirs: torch.nn.Module) -> bool:
    return all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


@torch.no_grad()
def test_vits(tmp_path: Path, record: Callable[..., None]) -> None:
    from transformers import VitsModel, VitsTokenizer

    torch.manual_seed(0)
    tiny: Any = GENERATORS.find("vits").tiny().build()
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    speaker: Any = GENERATORS.find("vits")().build(tmp_path)
    model: Any = VitsModel.from_pretrained(tmp_path)
    model.eval()
    assert same_tensors(speaker.model, model)
    record("vits", "weights")
    made = speaker.speak(TEXT, Making(seed=SEED))
    torch.manual_seed(SEED)
    theirs = model(**VitsTokenizer.from_pretrained(tmp_path)(TEXT, return_tensors="pt")).waveform[0]
    record("vits", "made", ours=torch.from_numpy(made.array), theirs=theirs)


@needs_sentencepiece
@torch.no_grad()
def test_speecht5(tmp_path: Path, record: Callable[..., None]) -> None:
    """With the voice of the folder; its speech is cut off at -1 and 1."""
    from transformers import SpeechT5ForTextToSpeech, SpeechT5HifiGan, SpeechT5Tokenizer

    torch.manual_seed(0)
    tiny: Any = GENERATORS.find("speecht5").tiny().build()
    tiny.model.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    tiny.vocoder.save_pretrained(tmp_path / "vocoder")
    np.save(tmp_path / "speaker.npy", tiny.voice_V.numpy())
    speaker: Any = GENERATORS.find("speecht5")().build(tmp_path)
    model: Any = SpeechT5ForTextToSpeech.from_pretrained(tmp_path)
    vocoder: Any = SpeechT5HifiGan.from_pretrained(tmp_path / "vocoder")
    assert same_tensors(speaker.model, model)
    assert same_tensors(speaker.vocoder, vocoder)
    record("speecht5", "weights")
    made = speaker.speak("cat", Making(seed=SEED))
    ids = SpeechT5Tokenizer.from_pretrained(tmp_path)("cat", return_tensors="pt").input_ids
    torch.manual_seed(SEED)
    theirs = model.eval().generate_speech(ids, tiny.voice_V[None], vocoder=vocoder.eval())
    record("speecht5", "made", ours=torch.from_numpy(made.array), theirs=theirs.clip(-1, 1))
