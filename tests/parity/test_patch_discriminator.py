"""The discriminator and both sides' losses against what VQGAN's own code gave (golden/make_patch_discriminator.py)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sensorium.nn.patch_discriminator import PatchDiscriminator
from sensorium.training.adversarial import AdversarialConfig, Adversary

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def maker() -> Any:
    spec = importlib.util.spec_from_file_location("make_patch_discriminator", GOLDEN / "make_patch_discriminator.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["two", "three", "five"])
def test_both_sides_are_vqgans(name: str, maker: Any) -> None:
    golden = json.loads((GOLDEN / "patch_discriminator.json").read_text(encoding="utf-8"))[name]
    layers, width, side = maker.SIZES[name]
    config = AdversarialConfig(layers=layers, width=width, weight=maker.WEIGHT)
    adversary = Adversary(config, size_px=side, lr=1e-3, seed=0, device="cpu")
    adversary.module.load_state_dict(maker.weights(golden["shapes"]), strict=True)
    wanted_BCHW, states_BDHW, last = maker.pictures(side)
    layer = nn.Conv2d(4, 3, 3, padding=1, bias=False)
    layer.weight.data.copy_(last)
    made_BCHW = layer(states_BDHW)
    distance = F.l1_loss(made_BCHW, wanted_BCHW)
    judged = adversary.judge(made_BCHW, wanted_BCHW, distance, layer.weight)
    # One pass for both sides, where theirs takes two.
    (distance + judged.term + judged.hinge).backward()

    near: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(adversary.module(wanted_BCHW).flatten(), torch.tensor(golden["logits"]), **near)
    numbers = torch.stack([distance + judged.term, maker.WEIGHT * judged.adaptive, judged.hinge]).detach()
    torch.testing.assert_close(numbers, torch.tensor([golden["total"], golden["weight"], golden["hinge"]]), **near)
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad.flatten(), torch.tensor(golden["last"]), **near)
    for key, parameter in adversary.module.named_parameters():
        assert parameter.grad is not None
        shown = torch.stack([parameter.grad.norm(), (parameter.grad * maker.noise(tuple(parameter.shape), 903)).sum()])
        torch.testing.assert_close(shown, torch.tensor(golden["grads"][key]), **near)


def test_first_weights_are_spread_as_in_vqgan() -> None:
    torch.manual_seed(0)
    parameters = dict(PatchDiscriminator(3, 16).named_parameters())
    convolutions = torch.cat([p.flatten() for p in parameters.values() if p.ndim == 4])
    scales = torch.cat([p for name, p in parameters.items() if name.endswith("weight") and p.ndim == 1])
    for values, mean in ((convolutions, 0.0), (scales, 1.0)):
        assert float(values.detach().mean()) == pytest.approx(mean, abs=0.005)
        assert float(values.detach().std()) == pytest.approx(0.02, rel=0.15)
    norms = [p for name, p in parameters.items() if name.endswith("bias") and name not in ("main.0.bias", "main.11.bias")]
    assert len(norms) == 3
    assert all(not p.any() for p in norms)
