"""Janus' VQ model, through transformers.

Source: arXiv:2410.13848, after LlamaGen (arXiv:2406.06525): 384 pixels, 24 x 24 codes of 16,384. Codes are brought to
length one before they are decoded. The authors' code compares lengths of one, too, when it encodes
(github.com/deepseek-ai/Janus, janus/models/vq_model.py); transformers, which is followed here, compares vectors as they are.

Shape legend: B pictures, C colours, H/W pixels, N codes of a picture, D code width, h/w codes of a column and row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Grid
from sensorium.generators.published_vq import PublishedVqConfig, pixel_scales


class JanusVqConfig(PublishedVqConfig):
    """Defaults are Janus-Pro's."""

    hub: ClassVar[str] = "deepseek-community/Janus-Pro-1B"
    kind: Literal["janus_vq"] = "janus_vq"
    size_px: int = 384
    codes: int = 16384
    code_width: int = 8
    latent_width: int = 256
    width: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)

    @classmethod
    def tiny(cls) -> JanusVqConfig:
        return cls(size_px=16, codes=24, code_width=4, latent_width=8, width=32, multipliers=(1, 1, 2), blocks=1)

    @classmethod
    def published(cls, said: Mapping[str, Any], pictures: Mapping[str, Any]) -> JanusVqConfig:
        from transformers import JanusConfig
        from transformers.models.janus.configuration_janus import JanusVQVAEConfig

        vq: Any = JanusConfig(**said).vq_config if "vq_config" in said else JanusVQVAEConfig(**said)
        sizes = cls.sizes(vq)
        size_px = vq.num_patches * 2 ** (len(sizes["multipliers"]) - 1)
        return cls(size_px=size_px, codes=vq.num_embeddings, **sizes, **pixel_scales(pictures))

    def build_model(self) -> nn.Module:
        from transformers.models.janus.configuration_janus import JanusVQVAEConfig
        from transformers.models.janus.modeling_janus import JanusVQVAE

        return JanusVQVAE(JanusVQVAEConfig(num_embeddings=self.codes, num_patches=self.grid().h, **self.hf_sizes()))

    def ids_of(self, model: Any, values_BCHW: Tensor) -> Tensor:
        return model.encode(values_BCHW).image_tokens

    def values_of(self, model: Any, ids_BN: Tensor, grid: Grid) -> Tensor:
        # Not through the model's own `decode`, which knows square pictures of one size alone.
        codes_BND = F.normalize(model.quantize.embedding(ids_BN), dim=-1)
        return model.decoder(model.post_quant_conv(codes_BND.transpose(1, 2).unflatten(2, (grid.h, grid.w))))
