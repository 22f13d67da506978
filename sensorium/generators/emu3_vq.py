"""Emu3's VQ model, through transformers: pictures only, which it sees as a clip of equal frames.

Source: arXiv:2409.18869; 32,768 codes, each of 8 x 8 pixels (and of four frames of a clip).

Shape legend: B pictures, C colours, H/W pixels, N codes of a picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from sensorium.core.batch import Grid
from sensorium.generators.published_vq import PublishedVqConfig, pixel_scales


class Emu3VqConfig(PublishedVqConfig):
    """Defaults are Emu3-VisionTokenizer's; it takes pictures of any size, 720 x 720 is the area that Emu3 draws."""

    hub: ClassVar[str] = "BAAI/Emu3-Chat-hf"
    kind: Literal["emu3_vq"] = "emu3_vq"
    size_px: int = 720
    codes: int = 32768
    code_width: int = 4
    latent_width: int = 4
    width: int = 256
    multipliers: tuple[int, ...] = (1, 2, 2, 4)
    frames: int = 4
    """That one code stands for."""
    attention_levels: tuple[int, ...] = (3,)

    @classmethod
    def tiny(cls) -> Emu3VqConfig:
        return cls(size_px=16, codes=24, width=32, multipliers=(1, 2), blocks=1, attention_levels=(1,))

    @classmethod
    def published(cls, said: Mapping[str, Any], pictures: Mapping[str, Any]) -> Emu3VqConfig:
        from transformers import Emu3VQVAEConfig

        vq = Emu3VQVAEConfig(**said.get("vq_config", said))
        return cls(codes=vq.codebook_size, frames=vq.temporal_downsample_factor, attention_levels=tuple(vq.attn_resolutions),
                   **cls.sizes(vq), **pixel_scales(pictures))  # fmt: skip

    def build_model(self) -> nn.Module:
        from transformers import Emu3VQVAE, Emu3VQVAEConfig

        return Emu3VQVAE(
            Emu3VQVAEConfig(
                codebook_size=self.codes, temporal_downsample_factor=self.frames, attn_resolutions=list(self.attention_levels),
                # Its attention runs at the coarsest level.
                hidden_size=self.width * self.multipliers[-1], **self.hf_sizes(),
            )
        )  # fmt: skip

    def ids_of(self, model: Any, values_BCHW: Tensor) -> Tensor:
        sizes_B2 = torch.tensor([values_BCHW.shape[2:]] * len(values_BCHW))
        return torch.stack(model.encode(values_BCHW, sizes_B2).image_tokens)

    def values_of(self, model: Any, ids_BN: Tensor, grid: Grid) -> Tensor:
        return model.decode(ids_BN.view(-1, grid.h, grid.w))
