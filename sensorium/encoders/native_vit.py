"""Vision transformers that take pictures of any size, several in one row, with rotary positions
in two dimensions: what the towers of Qwen2-VL and its relatives share.

Shape legend: N patches of all pictures end to end, in reading order; C channels, H/W pixels;
M pictures, S side; D width; H heads, E width of a head.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Features, Grid, Preprocess
from sensorium.core.errors import AlignmentError, ConfigError
from sensorium.core.parts import EncoderConfig
from sensorium.encoders.pixels import Normalise
from sensorium.nn.activations import ActivationName, activation
from sensorium.nn.norms import NormName, norm
from sensorium.nn.packed_attention import Groups, attend_in_groups, whole_pictures, windows
from sensorium.nn.pretrained import load_folder
from sensorium.nn.rotary import map_angles, map_places, rotate

Turn = tuple[Tensor, Tensor]
"""Cosine and sine of each patch's angles, (N, 1, E)."""


class NativeVitConfig(EncoderConfig):
    """The shape of a tower."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: ActivationName
    gated: bool = False
    """Whether the feed-forward has a gate (SwiGLU)."""
    norm: NormName = "layer"
    norm_eps: float = 1e-6
    patch_size_px: int = 14
    frames: int = 2
    """Frames of a video that a patch reaches over; a still picture is shown that many times."""
    class_token: bool = False
    """A learned token beside each picture's patches, with a learned place; no feature in the end."""
    norm_in: bool = False
    """A norm in front of the first layer."""
    window_px: int | None = None
    """Side of the squares in which patches attend to one another; None: the whole picture."""
    whole_layers: tuple[int, ...] = ()
    """Layers that attend to the whole picture in spite of `window_px`."""
    rope_theta: float = 10000.0
    image_size_px: int
    """Side of a picture under `resolution: fixed`; `native` does not ask."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"

    @property
    def out_dim(self) -> int:
        return self.width

    @property
    def native_patch_px(self) -> int:
        return self.patch_size_px

    def preprocess(self) -> Preprocess:
        return Preprocess(self.image_size_px, self.mean, self.std, self.interpolation)

    def grid(self) -> Grid:
        side = self.image_size_px // self.patch_size_px
        return Grid(side, side)

    def build(self, folder: Path | None = None) -> NativeVit:
        self.check()
        tower = NativeVit(self)
        if folder is not None:
            load_folder(tower, folder)
        return tower.eval()

    def check(self) -> None:
        """Refuse shapes that do not fit together.

        Raises:
            ConfigError: naming the numbers.
        """
        if self.class_token and self.window_px is not None:
            raise ConfigError("a class token with windows, in none of which it would be",
                              expected="window_px: null")  # fmt: skip
        if self.width % (4 * self.heads):
            raise ConfigError(
                f"width {self.width} with {self.heads} heads",
                expected="heads whose width is a multiple of 4: rows and columns turn half of it each",
            )
        for name, px in (("image_size_px", self.image_size_px), ("window_px", self.window_px)):
            if px is not None and px % self.patch_size_px:
                raise ConfigError(
                    f"{name} {px} with patches of {self.patch_size_px} px", expected="a multiple"
                )


class NativeVit(nn.Module):
    """Patches -> one feature for each."""

    def __init__(self, config: NativeVitConfig) -> None:
        super().__init__()
        self.config = config
        self.normalise = Normalise(config.preprocess())
        side = config.patch_size_px
        self.patch_embed: nn.Module = nn.Conv2d(3, config.width, side, side, bias=False)
        if config.frames > 1:
            size = (config.frames, side, side)
            self.patch_embed = nn.Conv3d(3, config.width, size, size, bias=False)
        if config.class_token:
            self.class_embedding = nn.Parameter(torch.randn(config.width) * config.width**-0.5)
            self.class_pos_emb = nn.Parameter(torch.randn(1, config.width // config.heads // 2))
        if config.norm_in:
            self.pre_layernorm = norm(config.norm, config.width, config.norm_eps)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])

    def trainable_blocks(self) -> list[nn.Module]:
        """Layers from input to output, for training only the last few."""
        return list(self.blocks)

    def forward(self, pixels_NCHW: Tensor, grids: tuple[Grid, ...] | None = None) -> Features:
        """Features of every patch.

        Args:
            pixels_NCHW: uint8. With grids the patches (N, 3, p, p) of pictures of any sizes, each in
                reading order; without, whole pictures (M, 3, S, S) of the config's size.
            grids: how the patches of each picture lie.

        Raises:
            AlignmentError: the grids have another number of patches.
        """
        if grids is None:
            grids = (self.config.grid(),) * len(pixels_NCHW)
            pixels_NCHW = to_patches(pixels_NCHW, self.config.patch_size_px)
        if len(pixels_NCHW) != sum(grid.tokens for grid in grids):
            raise AlignmentError(
                f"{len(pixels_NCHW)} patches", expected=f"{sum(g.tokens for g in grids)} by their grids"
            )
        hidden_ND = self.embed(self.normalise(pixels_NCHW))
        config, device, count = self.config, hidden_ND.device, len(hidden_ND)
        angles_NE = map_angles(map_places(grids, device), config.width // config.heads, config.rope_theta)
        if config.class_token:
            # Behind all patches, where they are out of the way of windows and maps.
            hidden_ND = torch.cat([hidden_ND, self.class_embedding.expand(len(grids), -1)])
            angles_NE = torch.cat([angles_NE, self.class_pos_emb.repeat(len(grids), 2)])
        if config.norm_in:
            hidden_ND = self.pre_layernorm(hidden_ND)
        turn = angles_NE.cos()[:, None], angles_NE.sin()[:, None]
        whole = whole_pictures(grids, device, extra=config.class_token)
        within = whole
        if config.window_px is not None:
            within = windows(grids, config.window_px // config.patch_size_px, device)
        for index, block in enumerate(self.blocks):
            hidden_ND = block(hidden_ND, turn, whole if index in config.whole_layers else within)
        return Features(hidden_ND[:count], grids)

    def embed(self, patches_NCHW: Tensor) -> Tensor:
        """(N, D). All frames of a still picture are the same, so that the convolution over them is
        one with the sum of its weights."""
        weight_DCHW = cast(Tensor, self.patch_embed.weight)
        if weight_DCHW.ndim == 5:
            weight_DCHW = weight_DCHW.sum(dim=2)
        return F.linear(patches_NCHW.flatten(1).to(weight_DCHW.dtype), weight_DCHW.flatten(1))


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm."""

    def __init__(self, config: NativeVitConfig) -> None:
        super().__init__()
        self.norm1 = norm(config.norm, config.width, config.norm_eps)
        self.norm2 = norm(config.norm, config.width, config.norm_eps)
        self.attn = PackedAttention(config.width, config.heads)
        self.mlp = Gated(config) if config.gated else Plain(config)

    def forward(self, x_ND: Tensor, turn: Turn, groups: Groups) -> Tensor:
        x_ND = x_ND + self.attn(self.norm1(x_ND), turn, groups)
        return x_ND + self.mlp(self.norm2(x_ND))


class PackedAttention(nn.Module):
    """Attention inside groups of patches, turned by their places."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_ND: Tensor, turn: Turn, groups: Groups) -> Tensor:
        q_NHE, k_NHE, v_NHE = self.qkv(x_ND).unflatten(-1, (3, self.heads, -1)).unbind(1)
        # In fp32, as in the original: half precision cannot tell far places apart.
        q_NHE, k_NHE = (rotate(x.float(), *turn).to(x.dtype) for x in (q_NHE, k_NHE))
        return self.proj(attend_in_groups(q_NHE, k_NHE, v_NHE, groups).flatten(1))


class Plain(nn.Module):
    """Two layers with an activation between them."""

    def __init__(self, config: NativeVitConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.act = activation(config.activation)
        self.fc2 = nn.Linear(config.mlp_width, config.width)

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x_ND)))


class Gated(nn.Module):
    """Two layers, the first times an activated gate."""

    def __init__(self, config: NativeVitConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.mlp_width)
        self.up_proj = nn.Linear(config.width, config.mlp_width)
        self.act = activation(config.activation)
        self.down_proj = nn.Linear(config.mlp_width, config.width)

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.down_proj(self.act(self.gate_proj(x_ND)) * self.up_proj(x_ND))


def to_patches(pixels_MCHW: Tensor, side: int) -> Tensor:
    """Whole pictures of one size -> their patches in reading order, (N, C, side, side)."""
    cells = pixels_MCHW.unfold(2, side, side).unfold(3, side, side)
    return cells.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
