"""ImageBind's eye for pictures (Girdhar et al., arXiv:2305.05665).

Source: github.com/facebookresearch/ImageBind, imagebind/models/imagebind_model.py, of `imagebind_huge` the part `vision`: CLIP's tower
with plain GELU, in whose patches two frames are one, so that a picture is two frames that are alike; `pooled` is
the normed class token in the space that all its modalities share, of unit length.

Shape legend: N pictures, C colours, T frames of a patch, H/W pixels.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.encoders.tower import (
    OPENAI_MEAN,
    OPENAI_STD,
    FeatureChoice,
    TowerConfig,
    run_stretched,
    tiny_shape,
)
from sensorium.nn.pretrained import load_folder

FRAMES = 2


class ImageBindConfig(TowerConfig):
    """Defaults are those of `imagebind_huge`."""

    kind: Literal["imagebind"] = "imagebind"
    width: int = 1280
    layers: int = 32
    heads: int = 16
    mlp_width: int = 5120
    image_size_px: int = 224
    patch_size_px: int = 14
    joint: int = 1024
    """Width of the space that its modalities share."""
    feature: FeatureChoice = "pooled"
    norm_eps: float = 1e-6
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD

    @classmethod
    def tiny(cls) -> ImageBindConfig:
        return cls(**tiny_shape(joint=24))

    @property
    def out_dim(self) -> int:
        return self.joint if self.feature == "pooled" else self.width

    def build_tower(self, folder: Path | None) -> nn.Module:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        shape = CLIPVisionConfig(**self.hf_shape(), hidden_act="gelu", layer_norm_eps=self.norm_eps, projection_dim=self.joint)
        tower = CLIPVisionModelWithProjection(shape)
        patches = TwiceConv(3, self.width, self.patch_size_px)
        tower.vision_model.embeddings.patch_embedding = patches  # pyright: ignore[reportAttributeAccessIssue]
        if folder is not None:
            load_folder(tower, folder)
        return tower

    def run_tower(self, tower: Any, pixel_values_NCHW: Tensor) -> Any:
        output = run_stretched(tower, pixel_values_NCHW)
        return SimpleNamespace(last_hidden_state=output.last_hidden_state, pooler_output=F.normalize(output.image_embeds, dim=-1))

    def blocks(self, tower: nn.Module) -> list[nn.Module]:
        return list(cast(Any, tower).vision_model.encoder.layers)


class TwiceConv(nn.Conv3d):
    """Patches of two frames, of a picture that is both."""

    def __init__(self, colours: int, width: int, patch_px: int) -> None:
        size = (FRAMES, patch_px, patch_px)
        super().__init__(colours, width, size, stride=size, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, width, rows, columns)."""
        pictures_NCTHW = input[:, :, None].expand(-1, -1, FRAMES, -1, -1)
        return super().forward(pictures_NCTHW)[:, :, 0]
