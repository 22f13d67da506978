"""MPT, whose positions are biases on the scores, as a backbone: against transformers, padded and packed;
with normed queries and keys against attention that is written out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_models import mpt
from torch import Tensor
from torch.nn import functional as F

from sensorium.backbones.causal_lm import CausalLM, CausalLMConfig
from sensorium.backbones.mpt_qk_norm import MptQkNormConfig

ARCH = {"model_type": "mpt", "vocab_size": 60, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}
ROWS = [[5, 6, 7, 8, 9], [10, 11, 12], [13, 14, 15, 16, 17, 18, 19]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mpt") / "hf"


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    torch.manual_seed(0)
    return mpt(folder, ARCH)


@pytest.fixture(scope="module")
def ours(theirs: Any, folder: Path) -> CausalLM:
    return CausalLMConfig(arch=ARCH).build(folder).eval()


def run(lm: CausalLM, ids: list[int], **more: Any) -> Tensor:
    ids_1T = torch.tensor([ids])
    positions = more.pop("positions_BT", torch.arange(len(ids))[None])
    return lm.logits(lm(lm.embed(ids_1T), positions_BT=positions, **more))[0]


@torch.no_grad()
@pytest.mark.parametrize("row", range(3))
def test_logits(row: int, theirs: Any, ours: CausalLM) -> None:
    expected = theirs(torch.tensor([ROWS[row]])).logits[0]
    torch.testing.assert_close(run(ours, ROWS[row]), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("normed", [False, True])
def test_packed_padded_and_cached(normed: bool, ours: CausalLM) -> None:
    torch.manual_seed(1)
    lm = MptQkNormConfig.tiny().build().eval() if normed else ours
    alone = [run(lm, row) for row in ROWS]
    flat = [token for row in ROWS for token in row]
    segments = torch.tensor([[i for i, row in enumerate(ROWS, 1) for _ in row]])
    positions = torch.tensor([[p for row in ROWS for p in range(len(row))]])
    packed = run(lm, flat, positions_BT=positions, segments_BT=segments)
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-5, rtol=1e-4)
    mask = torch.tensor([[0, 0, 0, 0, 1, 1, 1]])
    padded = run(lm, [0] * 4 + ROWS[1], positions_BT=torch.tensor([[0, 0, 0, 0, 0, 1, 2]]), mask_BT=mask)
    torch.testing.assert_close(padded[4:], alone[1], atol=1e-5, rtol=1e-4)
    cache = lm.new_cache()
    steps = [run(lm, [token], positions_BT=torch.tensor([[i]]), cache=cache) for i, token in enumerate(ROWS[2])]
    torch.testing.assert_close(torch.cat(steps), alone[2], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_normed_queries_and_keys() -> None:
    torch.manual_seed(2)
    lm = MptQkNormConfig(arch=ARCH).build().eval()
    attention: Any = lm.lm.transformer.blocks[0].attn
    for norm in (attention.q_ln, attention.k_ln):
        norm.weight.normal_(1, 0.3)
    x_TD = torch.randn(6, 32)
    causal = torch.ones(1, 1, 6, 6, dtype=torch.bool).triu(1)
    slopes = torch.tensor([2.0 ** (-8 * (h + 1) / 4) for h in range(4)])
    bias_HTT = slopes[:, None, None] * (torch.arange(6)[None, :] - torch.arange(6)[:, None])
    got = attention(x_TD[None], bias_HTT, attention_mask=causal)[0][0]
    q, k, v = (x_TD @ attention.Wqkv.weight.T).split(32, dim=1)
    q = F.layer_norm(q, (32,)) * attention.q_ln.weight
    k = F.layer_norm(k, (32,)) * attention.k_ln.weight
    heads = []
    for h in range(4):
        part = slice(8 * h, 8 * h + 8)
        scores = q[:, part] @ k[:, part].T / math.sqrt(8) + bias_HTT[h]
        heads.append(scores.masked_fill(causal[0, 0], -math.inf).softmax(-1) @ v[:, part])
    torch.testing.assert_close(got, torch.cat(heads, dim=1) @ attention.out_proj.weight.T, atol=1e-5, rtol=1e-4)
    names = {name for name in lm.state_dict() if "_ln" in name}
    assert names == {f"lm.transformer.blocks.{i}.attn.{x}_ln.weight" for i in range(2) for x in "qk"}
