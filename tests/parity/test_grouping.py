"""NExT-GPT 1.5's groups beside transformers' GroupViT, whose stages they are.

transformers' stages have biases in self-attention, which are zero here; NExT-GPT's have none.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from any_to_any_originals import SEEN, WIDTH
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GroupViTVisionConfig
from transformers.models.groupvit import modeling_groupvit
from transformers.models.groupvit.modeling_groupvit import GroupViTStage

from sensorium.core.batch import Features, Grid
from sensorium.input_projectors.grouping import GroupingConfig
from sensorium.interop.originals.next_gpt_15 import GROUPING

INNER, DEPTHS, GROUPS, HEADS = 16, (2, 1, 1), (6, 3), 8
CONFIG = GroupingConfig(width=INNER, heads=HEADS, depths=DEPTHS, groups=GROUPS)
# transformers' names, and the authors'.
NAMES = (
    (r"^stages\.(\d)\.layers\.", r"layers.\1.blocks."), (r"^stages\.", "layers."), (r"layer_norm(\d)", r"norm\1"),
    (r"self_attn\.out_proj", "attn.proj"), (r"attn\.out_proj", "attn.proj"), (r"self_attn", "attn"),
)  # fmt: skip


class Theirs(nn.Module):
    """`GroupProjector` around transformers' stages."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        config = GroupViTVisionConfig(hidden_size=INNER, intermediate_size=4 * INNER, num_attention_heads=HEADS)
        self.in_fc, self.norm, self.out_fc = nn.Linear(SEEN, INNER), nn.LayerNorm(INNER), nn.Linear(INNER, WIDTH)
        counts = zip(DEPTHS, (0, *GROUPS), (*GROUPS, 0), strict=True)
        self.stages = nn.ModuleList(GroupViTStage(config, depth, before, here, here) for depth, before, here in counts)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                no_bias = re.search(r"self_attn\.[qkv]_proj\.bias", name)
                parameter.mul_(0) if no_bias else parameter.normal_(0, 0.4)

    def forward(self, items: Tensor) -> Tensor:
        x, tokens = self.in_fc(items), None
        for stage in self.stages:
            x, tokens = stage(x, tokens)[:2]
        return self.out_fc(self.norm(x))

    def named(self, of: Callable[[nn.Parameter], Tensor | None] = lambda p: p) -> dict[str, Tensor]:
        """What `of` gives for each of its parameters by the authors' names: queries, keys and values of a block in one."""
        found = {name: value for name, p in self.named_parameters() if (value := of(p)) is not None}
        for name in [n for n in found if "self_attn.q_proj" in n]:
            q, k, v = (found.pop(name.replace("q_proj", f"{x}_proj")) for x in "qkv")
            if name.endswith("weight"):
                found[name.replace("q_proj", "qkv")] = torch.cat([q, k, v])
        named: dict[str, Tensor] = {}
        for name, value in found.items():
            for pattern, new in NAMES:
                name = re.sub(pattern, new, name)
            named[name] = value.detach().clone()
        return named


@pytest.mark.parametrize("count", [1, 7], ids=["a pooled vector", "features"])
def test_groups_are_groupvits(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes out; in training, with the same noise, also the gradients, which go through the soft choice."""
    theirs, ours = Theirs(), CONFIG.build(SEEN, WIDTH)
    state = theirs.named()
    ours.load_state_dict(GROUPING.to_ours(state))
    back = GROUPING.to_theirs(ours.state_dict())
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    items = torch.randn(5, count, SEEN)
    packed = Features(items.flatten(0, 1), (Grid(1, count),) * 5)
    with torch.no_grad():
        expected = theirs.eval()(items)
        torch.testing.assert_close(ours.eval()(packed).values_ND, expected.flatten(0, 1), atol=1e-5, rtol=1e-4)
    monkeypatch.setattr(modeling_groupvit, "gumbel_softmax", lambda logits, dim, hard: F.gumbel_softmax(logits, hard=hard, dim=dim))
    made: list[Tensor] = []
    for run in (lambda: theirs.train()(items).flatten(0, 1), lambda: ours.train()(packed).values_ND):
        torch.manual_seed(7)
        made.append(run())
        made[-1].square().mean().backward()
    torch.testing.assert_close(made[1], made[0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(made[1], expected.flatten(0, 1), atol=1e-3)
    gradients = GROUPING.to_theirs({name: p.grad for name, p in ours.named_parameters() if p.grad is not None})
    for name, value in theirs.named(lambda p: p.grad).items():
        torch.testing.assert_close(gradients[name], value, atol=1e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")
