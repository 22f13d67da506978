"""Does every kind of decoder give a token the same state alone, packed, padded and step by step?"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sensorium.backbones import BACKBONES
from sensorium.backbones.causal_lm import CausalLM
from sensorium.backbones.cross_lm import BlipTextBackbone
from sensorium.backbones.query_tower import QueryTowerConfig
from sensorium.backbones.seq2seq_lm import Seq2SeqLMConfig
from sensorium.backbones.text_tower import TextTowerConfig

ROWS = ([5, 6, 7, 8, 9], [10, 11, 12], [13, 14, 15, 16, 17, 18, 19])
# Encoder-decoders cut rows themselves, towers read whole texts, and BLIP's writer takes no packed rows.
OTHERS = Seq2SeqLMConfig | TextTowerConfig | BlipTextBackbone | QueryTowerConfig
DECODERS = [name for name in BACKBONES if not issubclass(BACKBONES.find(name), OTHERS)]


@pytest.mark.parametrize("name", BACKBONES)
def test_config_round_trips(name: str) -> None:
    config = BACKBONES.find(name).tiny()
    assert config.kind == name
    assert BACKBONES.find(name).from_dict(config.to_dict()) == config


def states(lm: CausalLM, ids: list[int], first: int = 0, **more: Tensor) -> Tensor:
    positions = more.pop("positions_BT", first + torch.arange(len(ids))[None])
    return lm(lm.embed(torch.tensor([ids])), positions_BT=positions, **more)[0]


@torch.no_grad()
@pytest.mark.parametrize("name", DECODERS)
def test_a_token_knows_only_its_own_sample(name: str) -> None:
    torch.manual_seed(0)
    lm = BACKBONES.find(name).tiny().build().eval()
    for parameter in lm.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.15)
    alone = [states(lm, row) for row in ROWS]
    segments = torch.tensor([[i for i, row in enumerate(ROWS, 1) for _ in row]])
    places = torch.tensor([[p for row in ROWS for p in range(len(row))]])
    packed = states(lm, [t for row in ROWS for t in row], positions_BT=places, segments_BT=segments)
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-5, rtol=1e-4)
    mask, places = torch.tensor([[0, 0, 1, 1, 1]]), torch.tensor([[0, 0, 0, 1, 2]])
    padded = states(lm, [0, 0, *ROWS[1]], positions_BT=places, mask_BT=mask)
    torch.testing.assert_close(padded[2:], alone[1], atol=1e-5, rtol=1e-4)
    cache, row = lm.new_cache(), ROWS[2]
    begin = states(lm, row[:3], cache=cache)
    middle = states(lm, row[3:5], first=3, cache=cache)
    steps = [states(lm, [row[i]], first=i, cache=cache) for i in (5, 6)]
    torch.testing.assert_close(torch.cat([begin, middle, *steps]), alone[2], atol=1e-5, rtol=1e-4)
    assert len(lm.trainable_blocks()) == lm.config.num_layers
