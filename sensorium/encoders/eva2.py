"""EVA2-CLIP towers (arXiv:2303.15389), as CogVLM and CogAgent use them.

EVA2-CLIP-E has norms behind attention and feed-forward, inside the residual; EVA2-CLIP-L has them
in front, rotary positions beside the learned ones, a gated feed-forward layer and norms inside both.
Of both the last block, which serves CLIP's pooled feature, is left out, and so is the final norm.

Sources: github.com/baaivision/EVA, github.com/THUDM/CogVLM (utils/models/eva_clip_model.py,
eva_clip_L_hf.py). Compared with timm's `Eva` in tests/parity/test_eva2.py.

Shape legend: N pictures, L tokens, D width, F inner width, H heads, E width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.errors import ConfigError
from sensorium.encoders.tower import OPENAI_MEAN, OPENAI_STD, FeatureChoice, TowerConfig, tiny_shape
from sensorium.nn.grid_rope import grid_angles, turn
from sensorium.nn.positions import stretched
from sensorium.nn.pretrained import load_folder


class Eva2Config(TowerConfig):
    """Defaults are EVA2-CLIP-E at 224 pixels without its last block, as CogVLM has it."""

    kind: Literal["eva2"] = "eva2"
    width: int = 1792
    layers: int = 63
    heads: int = 16
    mlp_width: int = 15360
    image_size_px: int = 224
    patch_size_px: int = 14
    norm: Literal["behind", "front"] = "behind"
    gated: bool = False
    """A gated feed-forward layer (SwiGLU)."""
    inner_norms: bool = False
    """Norms before the last map of attention and of feed-forward."""
    rotary_side: int | None = None
    """Turn queries and keys by their place on the map, counted as on a map of so many rows."""
    key_bias: bool = True
    """False: only queries and values have one."""
    positions_behind: bool = False
    """A second table of learned positions, added to the patches behind the last block (CogAgent)."""
    norm_eps: float = 1e-6
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    feature: FeatureChoice = "patch"

    @classmethod
    def tiny(cls) -> Eva2Config:
        return cls(**tiny_shape())

    @classmethod
    def large(cls, image_size_px: int = 336, **changes: Any) -> Eva2Config:
        """EVA2-CLIP-L without its last block."""
        shape: dict[str, Any] = {
            "width": 1024, "layers": 23, "mlp_width": 2730, "norm": "front", "gated": True,
            "inner_norms": True, "rotary_side": 16, "key_bias": False,
        }  # fmt: skip
        return cls(image_size_px=image_size_px, **(shape | changes))

    def check(self) -> None:
        super().check()
        if self.positions_behind and self.select_layer is not None:
            raise ConfigError("positions behind the last block of an inner layer",
                              expected="select_layer: null with positions_behind", where="encoder eva2")  # fmt: skip
        if self.rotary_side is not None and self.width % (4 * self.heads):
            raise ConfigError(
                f"a width of {self.width} with {self.heads} heads and rotary positions of a map",
                expected="heads whose width is a multiple of four",
                where="encoder eva2",
            )

    def at_size(self, size_px: int) -> Eva2Config:
        return self.model_copy(update={"image_size_px": size_px})

    def build_tower(self, folder: Path | None) -> nn.Module:
        tower = Eva2(self)
        if folder is not None:
            load_folder(tower, folder)
        return tower

    def blocks(self, tower: Any) -> list[nn.Module]:
        return list(tower.blocks)


@dataclass(frozen=True, slots=True)
class Eva2Output:
    """Tokens (N, L, D) and CLS (N, D), neither normed."""

    last_hidden_state: Tensor
    pooler_output: Tensor


class Eva2(nn.Module):
    """Patches, CLS, learned positions, blocks."""

    def __init__(self, config: Eva2Config) -> None:
        super().__init__()
        self.config = config
        size, count = config.patch_size_px, (config.image_size_px // config.patch_size_px) ** 2
        self.patches = nn.Conv2d(3, config.width, kernel_size=size, stride=size)
        self.cls_D = nn.Parameter(torch.randn(config.width) * 0.02)
        self.positions_LD = nn.Parameter(torch.randn(1 + count, config.width) * 0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        behind = torch.zeros(count, config.width)
        self.behind_LD = nn.Parameter(behind) if config.positions_behind else None

    def forward(self, pixel_values_NCHW: Tensor) -> Eva2Output:
        maps_NDHW: Tensor = self.patches(pixel_values_NCHW)
        height, width = maps_NDHW.shape[-2:]
        cls_N1D = self.cls_D.expand(len(maps_NDHW), 1, -1)
        table_LD = torch.cat([self.positions_LD[:1], stretched(self.positions_LD[1:], height, width)])
        x_NLD = torch.cat([cls_N1D, maps_NDHW.flatten(2).transpose(1, 2)], dim=1) + table_LD
        angles_LE = None
        if self.config.rotary_side is not None:
            head_dim = self.config.width // self.config.heads
            angles_LE = grid_angles(height, width, head_dim, self.config.rotary_side, x_NLD)
        for block in self.blocks:
            x_NLD = block(x_NLD, angles_LE)
        if self.behind_LD is not None:
            x_NLD = torch.cat([x_NLD[:, :1], x_NLD[:, 1:] + stretched(self.behind_LD, height, width)], dim=1)
        return Eva2Output(x_NLD, x_NLD[:, 0])


class Block(nn.Module):
    """Attention and feed-forward, each beside a residual."""

    def __init__(self, config: Eva2Config) -> None:
        super().__init__()
        self.front = config.norm == "front"
        self.norm_1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attention = SelfAttention(config)
        self.norm_2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x_NLD: Tensor, angles_LE: Tensor | None) -> Tensor:
        if self.front:
            x_NLD = x_NLD + self.attention(self.norm_1(x_NLD), angles_LE)
            return x_NLD + self.mlp(self.norm_2(x_NLD))
        x_NLD = x_NLD + self.norm_1(self.attention(x_NLD, angles_LE))
        return x_NLD + self.norm_2(self.mlp(x_NLD))


class SelfAttention(nn.Module):
    """Every token sees every token; CLS is not turned."""

    def __init__(self, config: Eva2Config) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width, bias=config.key_bias)
        self.v = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps) if config.inner_norms else nn.Identity()
        self.out = nn.Linear(width, width)

    def forward(self, x_NLD: Tensor, angles_LE: Tensor | None) -> Tensor:
        q_NHLE, k_NHLE, v_NHLE = (
            part(x_NLD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        if angles_LE is not None:
            q_NHLE, k_NHLE = (
                torch.cat([x[:, :, :1], turn(x[:, :, 1:], angles_LE)], dim=2) for x in (q_NHLE, k_NHLE)
            )
        mixed_NHLE = F.scaled_dot_product_attention(q_NHLE, k_NHLE, v_NHLE)
        return self.out(self.norm(mixed_NHLE.transpose(1, 2).flatten(2)))


class FeedForward(nn.Module):
    """GELU, or gated by SiLU."""

    def __init__(self, config: Eva2Config) -> None:
        super().__init__()
        width, inner = config.width, config.mlp_width
        self.gate = nn.Linear(width, inner) if config.gated else None
        self.up = nn.Linear(width, inner)
        self.norm = nn.LayerNorm(inner, eps=config.norm_eps) if config.inner_norms else nn.Identity()
        self.down = nn.Linear(inner, width)

    def forward(self, x_NLD: Tensor) -> Tensor:
        up_NLF = self.up(x_NLD)
        inner_NLF = F.gelu(up_NLF) if self.gate is None else F.silu(self.gate(x_NLD)) * up_NLF
        return self.down(self.norm(inner_NLF))
