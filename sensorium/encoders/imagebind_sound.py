"""ImageBind's ear: a transformer over patches of mel bands (Girdhar et al., arXiv:2305.05665).

Source: github.com/facebookresearch/ImageBind, imagebind/models/ (imagebind_model.py, multimodal_preprocessors.py, transformer.py), of
`imagebind_huge` the part `audio`: patches that overlap, and in each attention a learned key and value beside those of the tokens. Its layers are never left
out at random here, nor are its vectors made twenty times as long, as what compares them with one another does.

Shape legend: N clips, F mel bands, T rows, L tokens, D width, H heads, E width of a head, J width of the shared space.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.clips import MelClips
from sensorium.core.config import Config
from sensorium.core.errors import ConfigError


class SoundConfig(Config):
    """Defaults are those of `imagebind_huge`."""

    width: int = Field(default=768, ge=1)
    layers: int = Field(default=12, ge=1)
    heads: int = Field(default=12, ge=1)
    mlp_width: int = Field(default=3072, ge=1)
    patch: int = Field(default=16, ge=1)
    """Side of a patch, in bands and rows."""
    stride: int = Field(default=10, ge=1)
    norm_eps: float = 1e-6
    cut: MelClips = MelClips()

    @classmethod
    def tiny(cls) -> SoundConfig:
        return cls(width=32, layers=2, heads=4, mlp_width=48, cut=MelClips(clips=2, seconds=1, bands=32, rows=40))

    @property
    def patches(self) -> int:
        """Of one clip."""
        return ((self.cut.bands - self.patch) // self.stride + 1) * ((self.cut.rows - self.patch) // self.stride + 1)

    def check(self) -> None:
        """Refuse sizes that do not fit together.

        Raises:
            ConfigError: naming them.
        """
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} of sound in {self.heads} heads", expected="a width that the heads divide")
        if min(self.cut.bands, self.cut.rows) < self.patch:
            raise ConfigError(f"patches of {self.patch} on clips of {self.cut.bands} bands and {self.cut.rows} rows", expected="clips no smaller than a patch")


class SoundTower(nn.Module):
    """(N, F, T) -> (N, J) of unit length."""

    def __init__(self, config: SoundConfig, joint: int) -> None:
        super().__init__()
        config.check()
        width, eps = config.width, config.norm_eps
        self.patches = nn.Conv2d(1, width, config.patch, stride=config.stride, bias=False)
        self.patch_norm = nn.LayerNorm(width)
        self.cls_D = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positions_LD = nn.Parameter(torch.randn(1 + config.patches, width) * width**-0.5)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width, eps)
        self.out = nn.Linear(width, joint, bias=False)

    def forward(self, mels_NFT: Tensor) -> Tensor:
        patches_NLD = self.patches(mels_NFT[:, None].to(self.patches.weight.dtype)).flatten(2).transpose(1, 2)
        cls_N1D = self.cls_D.expand(len(mels_NFT), 1, -1)
        tokens_NLD = torch.cat([cls_N1D, self.patch_norm(patches_NLD)], dim=1) + self.positions_LD
        for layer in self.layers:
            tokens_NLD = layer(tokens_NLD)
        return F.normalize(self.out(self.norm(tokens_NLD[:, 0])), dim=-1)


class Layer(nn.Module):
    """Attention, then a feed-forward part, each behind a norm."""

    def __init__(self, config: SoundConfig) -> None:
        super().__init__()
        self.norm_self, self.norm_ff = (nn.LayerNorm(config.width, config.norm_eps) for _ in range(2))
        self.attention = AttentionWithMore(config.width, config.heads)
        self.up, self.down = nn.Linear(config.width, config.mlp_width), nn.Linear(config.mlp_width, config.width)

    def forward(self, tokens_NLD: Tensor) -> Tensor:
        tokens_NLD = tokens_NLD + self.attention(self.norm_self(tokens_NLD))
        return tokens_NLD + self.down(F.gelu(self.up(self.norm_ff(tokens_NLD))))


class AttentionWithMore(nn.Module):
    """Self-attention with one key and value that belong to no token."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.key_D, self.value_D = (nn.Parameter(torch.randn(width) * width**-0.5) for _ in range(2))

    def forward(self, tokens_NLD: Tensor) -> Tensor:
        more_N1D = tuple(one.expand(len(tokens_NLD), 1, -1) for one in (self.key_D, self.value_D))
        q_NHLE = self._split(self.q(tokens_NLD))
        k_NHLE, v_NHLE = (self._split(torch.cat([made, one.to(made.dtype)], dim=1))
                          for made, one in zip((self.k(tokens_NLD), self.v(tokens_NLD)), more_N1D, strict=True))  # fmt: skip
        return self.out(F.scaled_dot_product_attention(q_NHLE, k_NHLE, v_NHLE).transpose(1, 2).flatten(2))

    def _split(self, x_NLD: Tensor) -> Tensor:
        return x_NLD.unflatten(-1, (self.heads, -1)).transpose(1, 2)
