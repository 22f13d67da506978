"""CLIP's vision tower (Radford et al., arXiv:2103.00020), through transformers.

Shape legend: N pictures, L tokens of a picture, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.errors import ConfigError
from sensorium.encoders.tower import OPENAI_MEAN, OPENAI_STD, TowerConfig, run_stretched, tiny_shape
from sensorium.nn.pretrained import from_config


class ClipConfig(TowerConfig):
    """Defaults are ViT-L/14 at 336 pixels."""

    kind: Literal["clip"] = "clip"
    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp_width: int = 4096
    image_size_px: int = 336
    patch_size_px: int = 14
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    norm_eps: float = 1e-5
    norm_tokens: bool = False
    """Whether the tower's own output is normed as a whole, as mPLUG-Owl takes it
    (github.com/X-PLUG/mPLUG-Owl, modeling_mplug_owl.py). CLIP norms its pooled token alone."""
    token_projection: int | None = None
    """Width of CLIP's joint space, into which each normed token is then mapped, as LLaMA-Adapter V2 takes
    it (arXiv:2304.15010); None: tokens are not mapped."""
    unit_tokens: bool = False
    """Whether each token is then scaled to length 1, as Kosmos-2 takes it (arXiv:2306.14824)."""
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD

    @classmethod
    def tiny(cls) -> ClipConfig:
        return cls(**tiny_shape(select_layer=-2))

    @property
    def out_dim(self) -> int:
        return self.token_projection or self.width

    def check(self) -> None:
        if self.token_projection and (not self.norm_tokens or self.feature == "pooled"):
            raise ConfigError("tokens mapped into the joint space without the final norm, or the pooled one alone",
                              expected="norm_tokens: true, and a feature of tokens")  # fmt: skip
        if self.unit_tokens and not self.norm_tokens:
            raise ConfigError("tokens of length 1 without the final norm", expected="norm_tokens: true")
        if self.norm_tokens and self.select_layer is not None:
            raise ConfigError(
                "the final norm on the tokens of an inner layer",
                expected="select_layer: null with norm_tokens",
            )
        super().check()

    def output_tokens(self, tower: Any, output: Any) -> Tensor:
        tokens_NLD = super().output_tokens(tower, output)
        if not self.norm_tokens:
            return tokens_NLD
        normed_NLD = getattr(tower, "vision_model", tower).post_layernorm(tokens_NLD)
        if self.token_projection:
            normed_NLD = tower.visual_projection(normed_NLD)
        return F.normalize(normed_NLD, dim=-1) if self.unit_tokens else normed_NLD

    def at_size(self, size_px: int) -> ClipConfig:
        return self.model_copy(update={"image_size_px": size_px})

    def run_tower(self, tower: Any, pixel_values_NCHW: Tensor) -> Any:
        return run_stretched(tower, pixel_values_NCHW)

    def build_tower(self, folder: Path | None) -> nn.Module:
        from transformers import CLIPVisionConfig, CLIPVisionModel, CLIPVisionModelWithProjection

        joint = self.token_projection
        beside = ("text_model", "text_projection", "logit_scale")
        config = CLIPVisionConfig(
            **self.hf_shape(), hidden_act=self.activation, layer_norm_eps=self.norm_eps
        )
        config.projection_dim = joint or config.projection_dim
        return from_config(
            CLIPVisionModelWithProjection if joint else CLIPVisionModel,
            config,
            folder,
            beside=beside if joint else (*beside, "visual_projection"),
        )

    def blocks(self, tower: Any) -> list[nn.Module]:
        return list(getattr(tower, "vision_model", tower).encoder.layers)
