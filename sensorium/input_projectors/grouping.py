"""Learned concepts that gather features (GroupViT, arXiv:2202.11094), as NExT-GPT 1.5 (arXiv:2309.05519) has them in front of its LLM.

A stage is transformer layers over features and learned group tokens, behind which every feature goes to one group alone. Groups are
the next stage's features; the last stage has no tokens of its own and gathers nothing. So any number of features, even one, becomes
as many tokens as the last grouping has groups.

Source: github.com/NExT-GPT/NExT-GPT, nextgpt/model/multimodal_projector/projector.py (`GroupProjector`) and group.py, its
arithmetic beside transformers' GroupViT (`tests/parity/test_grouping.py`).

Shape legend: M items, L features, G groups, P groups of the stage before, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Features, Grid
from sensorium.core.parts import InputProjectorConfig
from sensorium.nn.attention import Attention
from sensorium.nn.ragged import map_items

MLP_FACTOR = 4


class GroupingConfig(InputProjectorConfig):
    """Defaults are NExT-GPT 1.5's."""

    kind: Literal["grouping"] = "grouping"
    width: int = 512
    heads: int = 8
    depths: tuple[int, ...] = (6, 3, 3)
    """Layers of each stage."""
    groups: tuple[int, ...] = Field(default=(64, 8), min_length=1)
    """Of each stage but the last: as many tokens, and as many groups behind it."""

    @model_validator(mode="after")
    def _fits(self) -> GroupingConfig:
        if len(self.depths) != len(self.groups) + 1:
            raise ValueError(f"{len(self.depths)} depths for {len(self.groups)} numbers of groups; the last stage has layers and no groups")
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads in a width of {self.width}; choose a divisor")
        return self

    @classmethod
    def tiny(cls) -> GroupingConfig:
        return cls(width=16, heads=2, depths=(1, 1, 1), groups=(6, 3))

    def out_grid(self, grid: Grid) -> Grid:
        return Grid(1, self.groups[-1])

    def build(self, d_in: int, d_out: int) -> Grouping:
        return Grouping(self, d_in, d_out)


class Grouping(nn.Module):
    """Features (any number, d_in) -> (groups, d_out)."""

    def __init__(self, config: GroupingConfig, d_in: int, d_out: int) -> None:
        super().__init__()
        self.config = config
        self.enter = nn.Linear(d_in, config.width)
        befores, groups = (0, *config.groups), (*config.groups, 0)
        self.stages = nn.ModuleList(
            GroupingStage(config, depth, here, before) for depth, here, before in zip(config.depths, groups, befores, strict=True)
        )
        self.norm = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, d_out)

    def forward(self, features: Features) -> Features:
        return map_items(features, self._project, self.config.out_grid)

    def _project(self, items_MLD: Tensor, grid: Grid) -> Tensor:
        hidden_MLD, tokens_MPD = self.enter(items_MLD), None
        for stage in self.stages:
            hidden_MLD, tokens_MPD = stage(hidden_MLD, tokens_MPD)
        return self.out(self.norm(hidden_MLD))


class GroupingStage(nn.Module):
    """Layers over features and group tokens; behind them each feature goes to a group."""

    def __init__(self, config: GroupingConfig, depth: int, groups: int, before: int) -> None:
        """`groups` of this stage and of the one `before`; 0: none."""
        super().__init__()
        width = config.width
        self.layers = nn.ModuleList(GroupingLayer(config) for _ in range(depth))
        self.tokens_GD = nn.Parameter(torch.zeros(groups, width)) if groups else None
        self.carry = Carry(width, before, groups) if groups and before else None
        self.gather = Gather(config, groups) if groups else None
        if self.tokens_GD is not None and self.carry is None:
            # Those of later stages differ from the beginning by what they carry on.
            nn.init.trunc_normal_(self.tokens_GD, std=0.02)

    def forward(self, hidden_MLD: Tensor, before_MPD: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What the next stage reads: features, and this stage's tokens if it has any."""
        count = hidden_MLD.shape[1]
        if self.tokens_GD is not None:
            tokens_MGD = self.tokens_GD.expand(len(hidden_MLD), -1, -1)
            if self.carry is not None and before_MPD is not None:
                tokens_MGD = tokens_MGD + self.carry(before_MPD)
            hidden_MLD = torch.cat([hidden_MLD, tokens_MGD], dim=1)
        for layer in self.layers:
            hidden_MLD = layer(hidden_MLD)
        if self.gather is None:
            return hidden_MLD, None
        tokens_MGD = hidden_MLD[:, count:]
        return self.gather(hidden_MLD[:, :count], tokens_MGD), tokens_MGD


class GroupingLayer(nn.Module):
    """Self-attention and feed-forward, a norm before each; queries, keys and values have no bias."""

    def __init__(self, config: GroupingConfig) -> None:
        super().__init__()
        width = config.width
        self.norm_self, self.norm_ff = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, width, num_heads=config.heads, head_dim=width // config.heads)
        self.attention.out = nn.Linear(width, width)
        self.ff = Mlp(width, MLP_FACTOR * width, width)

    def forward(self, hidden_MLD: Tensor) -> Tensor:
        normed_MLD = self.norm_self(hidden_MLD)
        hidden_MLD = hidden_MLD + self.attention(normed_MLD, normed_MLD)
        return hidden_MLD + self.ff(self.norm_ff(hidden_MLD))


class Carry(nn.Module):
    """The tokens of the stage before -> what this stage's begin with."""

    def __init__(self, width: int, before: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = Mlp(before, width // 2, groups)

    def forward(self, tokens_MPD: Tensor) -> Tensor:
        return self.mix(self.norm(tokens_MPD).mT).mT


class Gather(nn.Module):
    """Features and group tokens -> groups: each feature belongs to the one that it is nearest to.

    A group is the sum of its features by one more than their number. In training noise is added to nearness (Gumbel's), and
    gradients go through the soft choice.
    """

    def __init__(self, config: GroupingConfig, groups: int) -> None:
        super().__init__()
        width = config.width
        self.norm_tokens, self.norm_mixed, self.norm_features = (nn.LayerNorm(width) for _ in range(3))
        self.mix = Mlp(groups, width // 2, groups)
        # Groups look at all features before they gather their own; a norm comes behind, not before.
        self.look = Attention(width, width, num_heads=config.heads, head_dim=width // config.heads, bias=True)
        self.norm_look_ff, self.norm_look = nn.LayerNorm(width), nn.LayerNorm(width)
        self.look_ff = Mlp(width, MLP_FACTOR * width, width)
        self.q, self.k, self.v, self.assigned = (nn.Linear(width, width) for _ in range(4))
        self.norm_ff = nn.LayerNorm(width)
        self.ff = Mlp(width, MLP_FACTOR * width, width)

    def forward(self, features_MLD: Tensor, tokens_MGD: Tensor) -> Tensor:
        features_MLD = self.norm_features(features_MLD)
        groups_MGD = self.norm_mixed(self.mix(self.norm_tokens(tokens_MGD).mT).mT)
        groups_MGD = groups_MGD + self.look(groups_MGD, features_MLD)
        groups_MGD = self.norm_look(groups_MGD + self.look_ff(self.norm_look_ff(groups_MGD)))
        share_MGL = self.shares(groups_MGD, features_MLD)
        share_MGL = share_MGL / (share_MGL.sum(dim=-1, keepdim=True) + 1)
        groups_MGD = self.assigned(share_MGL @ self.v(features_MLD)) + groups_MGD
        return groups_MGD + self.ff(self.norm_ff(groups_MGD))

    def shares(self, groups_MGD: Tensor, features_MLD: Tensor) -> Tensor:
        """(M, G, L): 1 where a feature belongs to a group, else 0."""
        nearness_MGL = self.q(groups_MGD) @ self.k(features_MLD).mT * groups_MGD.shape[-1] ** -0.5
        if self.training:
            return F.gumbel_softmax(nearness_MGL, hard=True, dim=1)
        return torch.zeros_like(nearness_MGL).scatter(1, nearness_MGL.argmax(dim=1, keepdim=True), 1.0)


class Mlp(nn.Module):
    """Two linear maps with GELU between."""

    def __init__(self, inputs: int, inner: int, outputs: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(inputs, inner), nn.Linear(inner, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))
