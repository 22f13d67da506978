"""A model of IDEFICS' graph that was never one: transformers loads what is exported, and agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_hf_families import normalised, pixels

from sensorium.core.batch import Example, MediaBatch, TilePlan
from sensorium.core.errors import ConfigError
from sensorium.interop.families.idefics import Idefics
from sensorium.interop.hf import read_hf, write_hf
from sensorium.model.config import ModelConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.recipes.idefics_9b import tiny


def built() -> MultimodalModel:
    torch.manual_seed(0)
    model = MultimodalModel(tiny().model).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.15)
            elif "gate" in name:
                parameter.fill_(0.7)
    return model


@torch.no_grad()
def test_the_reference_loads_it(tmp_path: Path) -> None:
    from transformers import IdeficsForVisionText2Text

    ours = built()
    config = Idefics().to_theirs(ours.config)
    write_hf(ours, config, Idefics(), tmp_path)
    theirs, found = IdeficsForVisionText2Text.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    theirs.eval()
    size = config["vision_config"]["image_size"]
    raw = torch.nn.functional.interpolate(pixels(2).float(), size=(size, size)).byte()
    ids, index = [5, 260, 7, 8, 260, 9], [0, 1, 1, 1, 2, 2]
    example = Example(ids, [False] * 6, {"image": []}, {"image": MediaBatch(raw, (TilePlan(),) * 2)}, index)
    got = ours.logits(ours(collate([[example]], pad_id=0)).hidden_BTD)
    mask = torch.tensor([[[i == 1, i == 2] for i in index]]).long()
    given: dict[str, Any] = {"input_ids": torch.tensor([ids]), "pixel_values": normalised(raw)[None],
                             "image_attention_mask": mask, "attention_mask": torch.ones(1, 6, dtype=torch.long)}  # fmt: skip
    torch.testing.assert_close(got, theirs(**given).logits, atol=1e-5, rtol=1e-4)
    again = read_hf(tmp_path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize(("part", "change", "reason"), [
    ("fusion", {"feed_forward": "gelu"}, "blocks"), ("fusion", {"first": 1}, "blocks"),
    ("projector", {"activation": "gelu"}, "resampler"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(part: str, change: dict[str, Any], reason: str) -> None:
    config: ModelConfig = tiny().model
    if part == "fusion":
        config = config.model_copy(update={"fusion": config.fusion.model_copy(update=change)})
    else:
        lane = config.lanes["image"]
        lane = lane.model_copy(update={"projector": lane.projector.model_copy(update=change)})
        config = config.model_copy(update={"lanes": {"image": lane}})
    with pytest.raises(ConfigError, match=reason):
        Idefics().to_theirs(config)
