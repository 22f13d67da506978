"""A model kept as what differs from another: rows and parts, there and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sensorium.api import load
from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import WeightsError
from sensorium.core.weights import FolderSource
from sensorium.encoders import ENCODERS
from sensorium.input_projectors import INPUT_PROJECTORS
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.onto import DIFFERENCE, write_difference
from sensorium.interop.saved import recast, save_model
from sensorium.interop.start import start_from
from sensorium.model.config import LaneConfig, ModelConfig
from sensorium.nn.pretrained import read_file
from sensorium.text.byte_tokenizer import byte_tokenizer

ROW = 6
MATRIX = "backbone.lm.model.embed_tokens.weight"


def test_a_difference_is_small_and_gives_the_model_back(tmp_path: Path) -> None:
    tiny = CausalLMConfig.tiny()
    lm = tiny.build().lm
    lm.save_pretrained(tmp_path / "lm")
    byte_tokenizer().save(tmp_path / "lm")
    backbone = tiny.model_copy(update={"weights": (FolderSource(path=str(tmp_path / "lm")),)})
    lane = LaneConfig(encoder=ENCODERS.find("clip").tiny(), projector=INPUT_PROJECTORS.find("mlp").tiny())
    network, tokenizer = build_pretrained(ModelConfig(lanes={"image": lane}, backbone=backbone, template="plain"))
    save_model(network, tokenizer, tmp_path / "base", learnt=set(), numbers="f16")

    whole = load(tmp_path / "base", "cpu")
    with torch.no_grad():
        whole.network.backbone.embedding.weight[ROW] += 1
        next(whole.network.projectors.parameters()).add_(0.5)
    save_model(whole.network, tokenizer, tmp_path / "whole", learnt={MATRIX})
    write_difference(tmp_path / "whole", str(tmp_path / "base"), tmp_path / "small")
    about = json.loads((tmp_path / "small" / "config.json").read_text())
    assert about["rows"] == {MATRIX: [ROW]}
    assert (tmp_path / "small" / DIFFERENCE).stat().st_size < 0.2 * (tmp_path / "whole" / "model.safetensors").stat().st_size
    again = load(tmp_path / "small", "cpu").network.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in whole.network.state_dict().items())

    onward = build_pretrained(whole.network.config)[0]
    start_from(onward, tmp_path / "small")
    assert all(torch.equal(value, again[name]) for name, value in onward.state_dict().items())

    recast(tmp_path / "small", tmp_path / "again", None)
    again = load(tmp_path / "again", "cpu").network.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in whole.network.state_dict().items())
    assert json.loads((tmp_path / "again" / "config.json").read_text()) == json.loads((tmp_path / "whole" / "config.json").read_text())

    mine = read_file(tmp_path / "whole" / "model.safetensors")
    (tmp_path / "less").mkdir()
    (tmp_path / "less" / "config.json").write_bytes((tmp_path / "whole" / "config.json").read_bytes())
    save_file({name: value for name, value in mine.items() if name.startswith("backbone")}, tmp_path / "less" / "model.safetensors")
    with pytest.raises(WeightsError, match="a model without"):
        write_difference(tmp_path / "less", str(tmp_path / "base"), tmp_path / "never")
    assert not (tmp_path / "never").exists()

    with pytest.raises(WeightsError, match="expected a whole model"):
        write_difference(tmp_path / "small", str(tmp_path / "base"), tmp_path / "smaller")
    save_model(whole.network, tokenizer, tmp_path / "base", learnt=set())
    with pytest.raises(WeightsError, match="not the one that this one goes on from"):
        load(tmp_path / "small", "cpu")
