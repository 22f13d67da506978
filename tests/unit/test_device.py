"""Answering on a device: every tensor is where the model is; wrong names are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_gpu import GPU, OnGpu, PretendGpu, move_to_gpu
from test_model import CASES, make, samples

from sensorium.api import Model, load
from sensorium.core.errors import ConfigError
from sensorium.inference.sampling import Sampling
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.model import device as device_module
from sensorium.model.device import choose_device
from sensorium.recipes.tiny import tiny_model


def test_the_pretended_gpu_refuses_mixed_operations() -> None:
    """Or the tests below would prove nothing."""
    with PretendGpu() as gpu:
        there, here = torch.arange(3, device="cuda"), torch.arange(3)
        assert there.device == GPU == (there + 1).device == there[None].device
        assert here.device.type == "cpu" == there.cpu().device.type
        assert type(here.to(there.device)) is OnGpu
        assert gpu.operations >= 3
        for mixed in (lambda: there + here, lambda: torch.cat([there, here]),
                      lambda: there.masked_fill(here > 0, 0)):  # fmt: skip
            with pytest.raises(RuntimeError, match="cuda:0 and cpu"):
                mixed()


@pytest.mark.parametrize(("fusion", "lm"), CASES)
@pytest.mark.parametrize("plain_steps", [False, True])
def test_answers_on_a_gpu(fusion: str, lm: str, plain_steps: bool) -> None:
    """Prompts, caches, masks and single-token steps follow the model; texts stay equal."""
    model = make(fusion, lm)
    model.processor.stop_ids.clear()
    prompts = [model.processor.prompt(s.messages[:1]) for s in samples()]
    sampling = Sampling(repetition_penalty=1.3)
    if plain_steps:
        model.engine._fast = None
    expected = model.engine.generate(prompts, max_tokens=5, sampling=sampling)
    move_to_gpu(model.network)
    with PretendGpu() as gpu:
        assert model.network.device == GPU
        assert model.engine.generate(prompts, max_tokens=5, sampling=sampling) == expected
        drawn = Sampling(temperature=1.0, top_k=9, top_p=0.8)
        assert model.engine.generate(prompts[:1], max_tokens=3, sampling=drawn)
    assert gpu.operations > 100


def test_scores_and_features_on_a_gpu(picture: Path) -> None:
    model = make("splice")
    content = [{"type": "image", "image": str(picture)}, {"type": "text", "text": "what?"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "yes"}]
    expected, features = model.logits(messages).logits_TV, model.embed(picture)[0].values_ND
    move_to_gpu(model.network)
    with PretendGpu():
        assert model.logits(messages).logits_TV.device == GPU
        assert torch.allclose(model.logits(messages).logits_TV.cpu(), expected, atol=1e-5)
        assert torch.equal(model.embed(picture)[0].values_ND.cpu(), features)


def test_fused_steps_are_made_again_when_the_model_moves() -> None:
    model = make("splice")
    first: Any = model.engine._fast
    model.engine.generate([model.processor.prompt(samples()[1].messages[:1])], max_tokens=2)
    assert model.engine._fast is first
    move_to_gpu(model.network)
    assert not first.current()
    with PretendGpu():
        model.engine.generate([model.processor.prompt(samples()[1].messages[:1])], max_tokens=2)
        again: Any = model.engine._fast
        assert again.layers[0].qkv.device == GPU
    assert not again.layers[0].qkv.is_inference()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(*build_pretrained(tiny_model()), tmp_path / "m", learnt=set())
    return tmp_path / "m"


def test_load_puts_the_model_where_it_is_asked_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.device] = []
    move = torch.nn.Module.to

    def to(module: torch.nn.Module, target: torch.device) -> torch.nn.Module:
        asked.append(target)
        return move(module, "cpu")

    monkeypatch.setattr(torch.nn.Module, "to", to)
    pretend_machine(monkeypatch, cuda=2)
    for name in ("auto", "cpu", "cuda:1"):
        assert isinstance(load(folder, name), Model)
    assert [str(d) for d in asked] == ["cuda", "cpu", "cuda:1"]


def pretend_machine(monkeypatch: pytest.MonkeyPatch, cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)


def test_auto_takes_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, expected in ((1, True, "cuda"), (0, True, "mps"), (0, False, "cpu")):
        pretend_machine(monkeypatch, cuda, mps)
        assert choose_device() == torch.device(expected)


def test_other_accelerators_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_machine(monkeypatch)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    assert device_module.usable_devices() == {"cpu": 1, "xpu": 1}
    assert choose_device("xpu") == torch.device("xpu")


def test_wrong_devices_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_machine(monkeypatch)
    with pytest.raises(ConfigError, match=r"unknown device 'cudda'.*did you mean 'cuda'"):
        load(folder, "cudda")
    with pytest.raises(ConfigError, match="'cuda' is not available to torch here; expected auto, cpu"):
        load(folder, "cuda")
    with pytest.raises(ConfigError, match="'meta' is not available"):
        load(folder, "meta")
    pretend_machine(monkeypatch, cuda=2)
    with pytest.raises(ConfigError, match=r"'cuda:2' is not available.*cuda \(0 to 1\)"):
        choose_device("cuda:2")
