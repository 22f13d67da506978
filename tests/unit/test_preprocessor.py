"""Do imported encoders see pixels as the checkpoint's own image processor made them?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.encoders.clip import ClipConfig
from sensorium.encoders.tower import OPENAI_MEAN, OPENAI_STD
from sensorium.input_projectors.mlp import MlpConfig
from sensorium.interop.preprocessor import with_preprocessor
from sensorium.model.config import LaneConfig, ModelConfig

MODEL = ModelConfig(
    lanes={"image": LaneConfig(encoder=ClipConfig.tiny(), projector=MlpConfig())},
    backbone=CausalLMConfig.tiny(),
)
HALVES = {
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.5, 0.2],
    "resample": 2,
    "do_pad": True,
}


def preprocess(folder: Path) -> tuple[Any, Any, str]:
    seen = with_preprocessor(MODEL, folder).lane("image").encoder.preprocess()
    return seen.mean, seen.std, seen.interpolation


def test_values_come_from_either_file(tmp_path: Path) -> None:
    own = (OPENAI_MEAN, OPENAI_STD, "bicubic")
    assert preprocess(tmp_path) == own
    (tmp_path / "processor_config.json").write_text('{"processor_class": "X"}')
    assert preprocess(tmp_path) == own
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(HALVES))
    assert preprocess(tmp_path) == ((0.5, 0.4, 0.3), (0.5, 0.5, 0.2), "bilinear")
    # Where both name them, transformers takes the nested ones.
    nested = {"image_processor": {"image_mean": [0.1, 0.1, 0.1]}}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    assert preprocess(tmp_path) == ((0.1, 0.1, 0.1), OPENAI_STD, "bicubic")


def test_what_encoders_do_not_know_is_named(tmp_path: Path) -> None:
    file = tmp_path / "preprocessor_config.json"
    file.write_text('{"resample": 1}')
    with pytest.raises(ConfigError, match="interpolation"):
        with_preprocessor(MODEL, tmp_path)
    file.write_text('{"image_mean": [0.5]}')
    with pytest.raises(ConfigError, match="mean"):
        with_preprocessor(MODEL, tmp_path)
    file.write_text("{")
    with pytest.raises(WeightsError, match="not JSON"):
        with_preprocessor(MODEL, tmp_path)


def test_models_without_pictures_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(HALVES))
    text_only = ModelConfig(backbone=CausalLMConfig.tiny())
    assert with_preprocessor(text_only, tmp_path) == text_only
