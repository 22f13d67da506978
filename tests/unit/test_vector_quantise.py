"""Does the codebook learn, count and hand on gradients as it should?"""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch.nn import functional as F

from sensorium.nn.vector_quantise import QuantiseConfig, VectorQuantise, code_use


def quantiser(learns: Literal["ema", "loss"] = "ema", **settings: float) -> VectorQuantise:
    torch.manual_seed(0)
    values = {"codes": 6, "width": 3, "learns": learns, "revive_below": 0.0, **settings}
    return VectorQuantise(QuantiseConfig.from_dict(values)).train()


@pytest.mark.parametrize("learns", ["ema", "loss"])
def test_gradients_pass_straight_through(learns: Literal["ema", "loss"]) -> None:
    module = quantiser(learns)
    z_ND = torch.randn(20, 3, requires_grad=True)
    out = module(z_ND)
    asked_ND = torch.randn(20, 3)
    (got_ND,) = torch.autograd.grad((out.values_ND * asked_ND).sum(), z_ND)
    assert torch.equal(got_ND, asked_ND)
    # The values are the codes all the same, to the rounding of z + (e - z).
    if learns == "loss":
        torch.testing.assert_close(out.values_ND, module.codebook_KD[out.ids_N], atol=1e-6, rtol=0)


def test_each_vector_gets_the_nearest_code() -> None:
    module = quantiser().eval()
    z_ND = torch.randn(50, 3)
    expected = [min(range(6), key=lambda k: float((z - module.codebook_KD[k]).square().sum())) for z in z_ND]
    assert module.nearest(z_ND).tolist() == expected


def test_the_loss_is_the_papers() -> None:
    module = quantiser("loss", beta=0.5)
    module.begun.fill_(True)
    z_ND = torch.randn(20, 3, requires_grad=True)
    out = module(z_ND)
    gap_ND = z_ND - module.codebook_KD[out.ids_N]
    torch.testing.assert_close(out.loss, 1.5 * gap_ND.square().mean())
    of_z, of_codes = torch.autograd.grad(out.loss, [z_ND, module.codebook_KD])
    torch.testing.assert_close(of_z, 0.5 * 2 * gap_ND / gap_ND.numel())
    expected = torch.zeros(6, 3).index_add_(0, out.ids_N, -2 * gap_ND / gap_ND.numel())
    torch.testing.assert_close(of_codes, expected)


def test_moving_averages_equal_a_plain_second_writing() -> None:
    module = quantiser(decay=0.8)
    steps = [torch.randn(20, 3) for _ in range(5)]
    module(steps[0])
    codes = module.codebook_KD.tolist()
    seen, sums = module.seen_K.tolist(), module.sum_KD.tolist()
    for z_ND in steps[1:]:
        module(z_ND)
        chosen = [min(range(6), key=lambda k: math.dist(z, codes[k])) for z in z_ND.tolist()]
        for k in range(6):
            mine = [z for z, c in zip(z_ND.tolist(), chosen, strict=True) if c == k]
            seen[k] = 0.8 * seen[k] + 0.2 * len(mine)
            sums[k] = [0.8 * sums[k][d] + 0.2 * sum(z[d] for z in mine) for d in range(3)]
        for k in range(6):
            smooth = (seen[k] + 1e-5) / (sum(seen) + 6e-5) * sum(seen)
            codes[k] = [value / smooth for value in sums[k]]
        torch.testing.assert_close(module.codebook_KD, torch.tensor(codes), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("learns", ["ema", "loss"])
def test_a_dead_code_comes_back_to_life(learns: Literal["ema", "loss"]) -> None:
    module = quantiser(learns, revive_below=0.1, decay=0.5)
    module(torch.randn(20, 3))
    far = torch.full((3,), 1e3)
    module.codebook_KD.data[2] = far
    module.sum_KD[2] = far * module.seen_K[2]
    batches = [torch.randn(20, 3) for _ in range(8)]
    for z_ND in batches:
        assert 2 not in module.nearest(z_ND) or module.codebook_KD[2].norm() < 10
        module(z_ND)
    assert float(module.codebook_KD[2].detach().norm()) < 10
    assert 2 in module.nearest(torch.cat(batches))


def test_without_reviving_it_stays_dead() -> None:
    module = quantiser("loss", decay=0.5)
    module(torch.randn(20, 3))
    module.codebook_KD.data[2] = 1e3
    for _ in range(8):
        module(torch.randn(20, 3))
    assert torch.equal(module.codebook_KD[2].detach(), torch.full((3,), 1e3))


def test_nothing_moves_outside_of_training() -> None:
    module = quantiser()
    module(torch.randn(20, 3))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.eval()(torch.randn(20, 3))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_the_codebook_begins_with_vectors_of_the_first_batch() -> None:
    module = quantiser("loss")
    z_ND = torch.randn(20, 3)
    assert float(module(z_ND).loss) < float(F.mse_loss(z_ND, torch.zeros(20, 3)))
    rows = {tuple(z) for z in z_ND.tolist()}
    assert len({tuple(code) for code in module.codebook_KD.tolist()} & rows) == 6


def test_of_unit_length_the_direction_alone_counts() -> None:
    module = quantiser(unit=True).eval()
    z_ND = torch.randn(20, 3)
    assert torch.equal(module.nearest(z_ND), module.nearest(z_ND * 7))
    expected = (F.normalize(z_ND, dim=-1) @ F.normalize(module.codebook_KD, dim=-1).T).argmax(1)
    assert torch.equal(module.nearest(z_ND), expected)


def test_use_of_a_codebook_by_hand() -> None:
    # Shares 1/2, 1/4, 1/4: entropy 3/2 ln 2, perplexity 2^1.5; 3 of 8 codes.
    use = code_use(torch.tensor([[0, 0], [3, 7]]), 8)
    assert use.used == 3 / 8
    assert use.perplexity == pytest.approx(2**1.5, abs=1e-12)
    assert code_use(torch.arange(8), 8).perplexity == pytest.approx(8)
    assert code_use(torch.full((9,), 5), 8).perplexity == 1
