"""The gated feed-forward part that keeps two tensors: autograd's own values and gradients, to the last bit."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.backbones.causal_lm import CausalLM, CausalLMConfig
from sensorium.backbones.segments import run_segments
from sensorium.nn.learned_linear import learned_linears, multiplied
from sensorium.nn.segment_attention import layout_of
from sensorium.nn.swiglu import gated

WIDTH, INNER, ROWS = 192, 512, 300


class Low(nn.Linear):
    """Stands for a layer that is more than a linear one."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 1.5


def plain(gate: Tensor, up: Tensor, down: nn.Module) -> Tensor:
    return down(F.silu(gate) * up)


def run(way: Callable[[Tensor, Tensor, nn.Module], Tensor], down: nn.Module, shape: tuple[int, ...]) -> list[Tensor]:
    torch.manual_seed(1)
    down.zero_grad(set_to_none=True)
    gate, up = (torch.randn(*shape, INNER, requires_grad=True) for _ in range(2))
    out = way(gate, up, down)
    out.square().sum().backward()
    return [out.detach(), *(x.grad for x in (gate, up, *down.parameters()) if x.grad is not None)]


@pytest.mark.parametrize("shape", [(ROWS,), (1, ROWS), (2, 3)])
@pytest.mark.parametrize("kind", [nn.Linear, Low])
@pytest.mark.parametrize(("bias", "learns"), [(False, True), (True, True), (False, False)])
def test_values_and_gradients(kind: type[nn.Linear], bias: bool, learns: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    down = kind(INNER, WIDTH, bias=bias).requires_grad_(learns)
    for chosen in ([], learned_linears([down])):
        with multiplied(chosen):
            found, wanted = run(gated, down, shape), run(plain, down, shape)
        assert len(found) == len(wanted) == 3 + learns * (1 + bias)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def kept(lm: CausalLM, learned: list[nn.Linear]) -> list[tuple[int, ...]]:
    """Shapes of the tensors of the inner width that wait for the backward pass."""
    seen: dict[int, Tensor] = {}
    weights = {p.data_ptr() for p in lm.parameters()}

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            seen[tensor.data_ptr()] = tensor
        return tensor

    embeds_BTD = torch.randn(1, ROWS, WIDTH, requires_grad=True)
    positions_BT, segments_BT = torch.arange(ROWS)[None], torch.ones(1, ROWS, dtype=torch.long)
    with multiplied(learned), torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        run_segments(lm.lm, embeds_BTD, positions_BT, layout_of(segments_BT, torch.zeros_like(segments_BT)))
    return [tuple(x.shape) for x in seen.values() if x.shape[-1] == INNER and x.shape[0] != WIDTH]


def test_a_layer_keeps_two_of_the_inner_width() -> None:
    torch.manual_seed(0)
    lm = CausalLMConfig(tokenizer="bytes", arch={
        "model_type": "llama", "vocab_size": 64, "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}).build()  # fmt: skip
    learned = learned_linears(lm.modules())
    assert len(kept(lm, learned)) == 2 * 3
    listened = copy.deepcopy(lm)
    for layer in listened.decoder_layers():
        layer.mlp.act_fn.register_forward_hook(lambda *_: None)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    assert len(kept(listened, learned_linears(listened.modules()))) == 4 * 3
