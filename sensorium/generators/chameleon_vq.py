"""Chameleon's VQ model: the encoder through transformers, the decoder, which transformers lacks, here.

Source: arXiv:2405.09818; github.com/facebookresearch/chameleon, chameleon/inference/vqgan.py: 512 pixels, 32 x 32 codes of
8,192. Files in transformers' layout hold no decoder; the authors' own, and checkpoints made for drawing (Anole,
arXiv:2407.06135), name it `decoder.`, which is read where it is there.

Shape legend: B pictures, C colours, H/W pixels, N codes of a picture, D channels, h/w codes of a column and row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.batch import Grid
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.generators.published_vq import PublishedVqConfig, pixel_scales
from sensorium.generators.vq import Reconstruction
from sensorium.nn.pretrained import load_exact


class ChameleonVqConfig(PublishedVqConfig):
    """Defaults are Chameleon's, with the authors' scale of pixels; transformers' preprocessor_config.json has 0.0078 in place
    of 2 / 255."""

    trains: ClassVar[bool] = True
    hub: ClassVar[str] = "facebook/chameleon-7b"
    kind: Literal["chameleon_vq"] = "chameleon_vq"
    size_px: int = 512
    codes: int = 8192
    code_width: int = 256
    latent_width: int = 256
    width: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    decoder: bool = True
    """False: it tokenises and draws nothing."""
    attention_px: tuple[int, ...] = ()
    """Sides of the maps at which the encoder's levels attend; the coarsest always does in between the halves."""

    @classmethod
    def tiny(cls) -> ChameleonVqConfig:
        return cls(size_px=16, codes=24, code_width=4, latent_width=8, width=32, multipliers=(1, 1, 2), blocks=1)

    @classmethod
    def published(cls, said: Mapping[str, Any], pictures: Mapping[str, Any]) -> ChameleonVqConfig:
        from transformers import ChameleonVQVAEConfig

        vq = ChameleonVQVAEConfig(**said.get("vq_config", said))
        return cls(size_px=vq.resolution, codes=vq.num_embeddings, attention_px=tuple(vq.attn_resolutions or ()),
                   **cls.sizes(vq), **pixel_scales(pictures))  # fmt: skip

    @property
    def shown_rescale(self) -> float:
        # -1..1 becomes 0..255 however pixels went in.
        return 2 * self.mean[0] / 255

    def build_model(self) -> nn.Module:
        from transformers import ChameleonVQVAE, ChameleonVQVAEConfig

        sizes = self.hf_sizes()
        model: Any = ChameleonVQVAE(
            ChameleonVQVAEConfig(
                num_embeddings=self.codes, resolution=self.size_px, attn_resolutions=list(self.attention_px), **sizes
            )
        )
        model.decoder = ChameleonDecoder(self) if self.decoder else None
        return model

    def load(self, model: Any, tensors: dict[str, Tensor], where: str) -> None:
        if not any(name.startswith("decoder.") for name in tensors):
            model.decoder = None
        load_exact(model, tensors, where, self.fetch(where))

    def ids_of(self, model: Any, values_BCHW: Tensor) -> Tensor:
        return model.encode(values_BCHW).image_tokens

    def rebuilt(self, model: Any, values_BCHW: Tensor) -> Reconstruction:
        if model.decoder is None:
            raise ConfigError("a chameleon_vq without a decoder gives nothing back to learn by", where="tokenizer.decoder", expected="true")
        found = model.encode(values_BCHW)
        made_BCHW = model.decoder(model.post_quant_conv(found.quantized_last_hidden_state))
        ids_BN = found.image_tokens.reshape(len(values_BCHW), -1)
        return Reconstruction(made_BCHW, ids_BN, found.embedding_loss, model.decoder.conv_out.weight)

    def values_of(self, model: Any, ids_BN: Tensor, grid: Grid) -> Tensor:
        if model.decoder is None:
            raise WeightsError(
                "the weights hold no decoder: transformers' layout leaves it out", where="picture tokenizer chameleon_vq",
                fix="use a checkpoint made for drawing, which has tensors model.vqmodel.decoder.*",
            )  # fmt: skip
        codes_BND = model.quantize.embedding(ids_BN)
        return model.decoder(model.post_quant_conv(codes_BND.transpose(1, 2).unflatten(2, (grid.h, grid.w))))


class ChameleonDecoder(nn.Module):
    """The encoder's mirror with a residual block more at each level, and attention between the first two blocks alone.

    `up.0` is the finest level, as in the files.
    """

    def __init__(self, config: ChameleonVqConfig) -> None:
        super().__init__()
        from transformers.models.janus.configuration_janus import JanusVQVAEConfig
        from transformers.models.janus.modeling_janus import (
            JanusVQVAEMidBlock,
            JanusVQVAEResnetBlock,
        )

        # Janus' blocks are the same function under the same names.
        sizes: Any = JanusVQVAEConfig(**config.hf_sizes())
        before = config.width * config.multipliers[-1]
        self.conv_in = nn.Conv2d(config.latent_width, before, 3, padding=1)
        self.mid = JanusVQVAEMidBlock(sizes, before)
        levels: list[nn.Module] = []
        for level in reversed(range(len(config.multipliers))):
            after, up = config.width * config.multipliers[level], nn.Module()
            up.block = nn.ModuleList(JanusVQVAEResnetBlock(sizes, before if not i else after, after)
                                     for i in range(config.blocks + 1))  # fmt: skip
            up.upsample = Upsample(after) if level else nn.Identity()
            levels.append(up)
            before = after
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = nn.GroupNorm(32, before, eps=1e-6)
        self.conv_out = nn.Conv2d(before, 3, 3, padding=1)

    def forward(self, z_BDhw: Tensor) -> Tensor:
        x_BDHW = self.mid(self.conv_in(z_BDhw))
        for up in reversed(list(self.up)):
            for block in up.block:  # pyright: ignore[reportGeneralTypeIssues]
                x_BDHW = block(x_BDHW)
            x_BDHW = up.upsample(x_BDHW)  # pyright: ignore[reportCallIssue]
        return self.conv_out(F.silu(self.norm_out(x_BDHW)))


class Upsample(nn.Module):
    """Twice the sides by repeating, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x_BDHW: Tensor) -> Tensor:
        return self.conv(F.interpolate(x_BDHW, scale_factor=2.0, mode="nearest"))
