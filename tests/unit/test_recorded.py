"""What is recorded for a GPU computes what layers do: padding and room for more samples change nothing. (The recording itself: `tests/gpu`.)"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_batches import model_and_batches
from torch import Tensor
from torch.nn import functional as F

from sensorium.backbones import recorded as module
from sensorium.backbones.causal_lm import CausalLM
from sensorium.backbones.layer_halves import Halves, back_half, compiled_halves, front_half, halved
from sensorium.backbones.recorded import Recorded, Span, Stack, span_of
from sensorium.core.batch import Batch
from sensorium.model.multimodal import MultimodalModel
from sensorium.training.objectives.next_token import next_token_losses


class Unrecorded(Recorded):
    """Plays by calling."""

    records = 0

    def _record(self, hidden_1ND: Tensor, cos_1NE: Tensor, sin_1NE: Tensor, span: Span) -> None:
        self._stack = Stack(self.layers, self.halves, span.longest)
        self.records += 1


def by_samples(q: Tensor, k: Tensor, v: Tensor, bounds_S1: Tensor, longest: int, scale: float | None) -> Tensor:
    lengths = bounds_S1.diff().tolist()
    assert max(lengths) <= longest
    assert sum(lengths) == q.shape[2]
    parts = zip(*(x.split(lengths, dim=2) for x in (q, k, v)), strict=True)
    mixed = [F.scaled_dot_product_attention(*part, is_causal=True, scale=scale, enable_gqa=q.shape[1] != k.shape[1]) for part in parts]
    return torch.cat(mixed, dim=2).transpose(1, 2)


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "varlen_attention", by_samples)
    monkeypatch.setattr(module, "can_varlen", lambda *_: True)


def gradients(model: MultimodalModel, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    loss = next_token_losses(model, batch).total
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return float(loss.detach()), found


def close(found: tuple[float, dict[str, Tensor]], wanted: tuple[float, dict[str, Tensor]]) -> None:
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    assert found[1].keys() == wanted[1].keys()
    faint = 1e-6 * max(float(value.abs().max()) for value in wanted[1].values())
    for name, value in wanted[1].items():
        torch.testing.assert_close(found[1][name], value, rtol=0, atol=1e-4 * float(value.abs().max()) + faint, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.usefixtures("on_cpu")
def test_losses_and_gradients(several: bool) -> None:
    model, batches = model_and_batches(5, "stages.instruct.pack=true", "stages.instruct.batch_size=2")
    assert isinstance(model.backbone, CausalLM)
    plain = [gradients(model, batch) for batch in batches if not model.zero_grad(set_to_none=True)]
    tokens = 2 * max(batch.input_ids_BT.shape[1] for batch in batches) + 128
    model.backbone.recorded = recorded = Unrecorded(model.backbone.lm, tokens, (front_half, back_half), several=several)
    for batch, wanted in zip(batches, plain, strict=True):
        model.zero_grad(set_to_none=True)
        close(gradients(model, batch), wanted)
    assert 1 <= recorded.records < len(batches), "room is kept"


@pytest.mark.usefixtures("on_cpu")
def test_gradients_of_passes_have_memory_of_their_own() -> None:
    """A recording writes each pass's gradients to the same memory, which autograd may have taken for the sum."""
    model, batches = model_and_batches(2, "stages.instruct.pack=true", "stages.instruct.batch_size=2")
    assert isinstance(model.backbone, CausalLM)
    recorded = Unrecorded(model.backbone.lm, 4096, (front_half, back_half), several=True)
    model.backbone.recorded = recorded
    sums: dict[str, int] = {}
    for _ in range(2):
        model.zero_grad(set_to_none=True)
        singles: list[dict[str, Tensor]] = []
        for batch in batches:
            before = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            _, after = gradients(model, batch)
            singles.append({n: g - before.get(n, 0) for n, g in after.items()})
        inside = {n: p for n, p in model.named_parameters() if ".layers.0." in n and n.startswith("backbone") and p.grad is not None}
        assert inside
        for name, p in inside.items():
            assert p.grad is not None
            torch.testing.assert_close(p.grad, singles[0][name] + singles[1][name])
            assert sums.setdefault(name, p.grad.data_ptr()) == p.grad.data_ptr()


def test_span() -> None:
    segments_BT = torch.tensor([[1, 1, 1, 2, 2, 0], [1, 1, 2, 2, 2, 2]])
    span = span_of(segments_BT)
    assert span.bounds_S1.tolist() == [0, 3, 5, 6, 8, 12] + [12] * 27
    assert (span.longest, span.bounds_S1.dtype) == (128, torch.int32)
    wide = span_of(torch.cat([torch.ones(1, 700), torch.zeros(1, 300)], dim=1).long(), span)
    assert wide.bounds_S1.tolist()[:5] == [0, 700, 768, 896, 1000]
    assert (wide.longest, len(wide.bounds_S1)) == (1024, 33)
    many = span_of(torch.arange(1, 41)[None], wide)
    assert (many.longest, len(many.bounds_S1)) == (1024, 65)


@pytest.mark.parametrize("halves", [(front_half, back_half), None])
def test_halves_are_the_layer(halves: Halves | None) -> None:
    model, batches = model_and_batches(3, "stages.instruct.pack=true", "stages.instruct.batch_size=2")
    assert isinstance(model.backbone, CausalLM)
    plain = [gradients(model, batch) for batch in batches if not model.zero_grad(set_to_none=True)]
    layers: list[Any] = model.backbone.decoder_layers()
    with halved(layers, halves or compiled_halves()):
        for batch, wanted in zip(batches, plain, strict=True):
            model.zero_grad(set_to_none=True)
            close(gradients(model, batch), wanted)
    assert not any("halves" in layer.__dict__ for layer in layers)
