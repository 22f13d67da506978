"""Packed rows of models with sliding windows: each type of layer has a mask of its own.

That a packed row gives each sample what it has alone is in `test_model.py`, for all models.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from test_model import WINDOW, WINDOWED, make, samples

from sensorium.backbones.causal_lm import CausalLMConfig, transformers_config
from sensorium.backbones.packed_mask import layer_types, packed_mask
from sensorium.core.errors import ConfigError
from sensorium.processing.collate import collate


@pytest.mark.parametrize("lm", WINDOWED)
@torch.no_grad()
def test_the_samples_are_longer_than_the_windows(lm: str) -> None:
    """Or the tests of packing would say nothing of windows: without one the answer is another."""
    model = make("splice", lm)
    examples = [model.processor.encode(s) for s in samples()]
    assert min(len(e) for e in examples) > WINDOW
    batch = collate([examples[:2]], 0)
    kinds = layer_types(model.network.backbone.lm.config)
    assert set(kinds) == {"sliding_attention"} | ({"full_attention"} if lm != "mistral" else set())
    got = model.network(batch).hidden_BTD
    model.network.backbone.lm.config.sliding_window = 1000
    assert not torch.allclose(model.network(batch).hidden_BTD, got, atol=1e-3)


def test_masks_of_packed_rows_reach_as_far_as_their_layers() -> None:
    segments = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 0]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0]])
    config = SimpleNamespace(
        layer_types=["full_attention", "sliding_attention", "chunked_attention", "moe"],
        sliding_window=2, attention_chunk_size=3,
    )  # fmt: skip
    masks = packed_mask(config, segments, positions)
    assert set(masks) == {"full_attention", "sliding_attention", "chunked_attention"}
    causal = {(q, k) for q in range(8) for k in range(q + 1)
              if segments[0, q] == segments[0, k]}  # fmt: skip
    reach = {
        "full_attention": causal,
        "sliding_attention": {(q, k) for q, k in causal if q - k < 2},
        # The second sample's chunks start with the sample: tokens 3 to 5, then 6.
        "chunked_attention": {(q, k) for q, k in causal if not (q == 6 and k < 6)},
    }
    for kind, mask in masks.items():
        assert set(map(tuple, mask[0, 0].nonzero().tolist())) == reach[kind], kind


def test_a_window_that_the_family_never_reads_is_no_window() -> None:
    config = transformers_config(CausalLMConfig.tiny().arch | {"sliding_window": 8})
    assert config.sliding_window == 8
    assert layer_types(config) == ["full_attention"]


def test_layers_that_carry_a_state_refuse_packed_rows() -> None:
    config = SimpleNamespace(layer_types=["linear_attention", "full_attention"])
    with pytest.raises(ConfigError, match=r"'linear_attention'.*pack: false.*token_budget"):
        packed_mask(config, torch.ones(1, 2), torch.zeros(1, 2))
