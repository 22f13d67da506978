"""What the published VQ models share that run through transformers: sizes, scales of pixels, loading.

They descend from arXiv:2012.09841: levels of residual blocks, halved in between, group norms of 32 groups.

Shape legend: B pictures, C colours, H/W pixels, N codes of a picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from sensorium.core.batch import Grid
from sensorium.core.picture_tokenizer import PictureTokenizerConfig
from sensorium.generators.pixel_values import PixelTokenizer
from sensorium.generators.vq import Reconstruction
from sensorium.nn.pretrained import from_hub, load_exact, need_weights, read_named

PREFIXES = ("model.vqmodel.", "vqmodel.")
"""Of the VQ model's tensors inside a whole checkpoint."""
SIZES = ("codes", "code_width", "latent_width", "width", "multipliers", "blocks")
"""What makes weights fit."""
OWN = "model."
"""Of all tensors, where a `PublishedVq` was saved."""


class PublishedVqConfig(PictureTokenizerConfig):
    """Sizes of a VQ model of the VQGAN family, and how it wants its pixels."""

    hub: ClassVar[str]
    """A published checkpoint that holds it, at the sizes that are the defaults."""
    code_width: int
    latent_width: int
    width: int
    """Channels at full resolution; `multipliers` times it at each level."""
    multipliers: tuple[int, ...]
    blocks: int = 2
    """Residual blocks of a level."""
    rescale: float = 1 / 255
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """A value is (pixel * rescale - mean) / std."""

    @property
    def shown_rescale(self) -> float:
        """The scale of values that become pixels again."""
        return self.rescale

    @property
    def stride(self) -> int:
        return 2 ** (len(self.multipliers) - 1)

    @classmethod
    def published(cls, said: Mapping[str, Any], pictures: Mapping[str, Any]) -> Self:
        """The config of a folder in transformers' layout.

        Args:
            said: its config.json, of the whole model or of the VQ model alone.
            pictures: its preprocessor_config.json; empty where it has none.
        """
        raise TypeError(f"{cls.__name__} does not define published()")

    def build_model(self) -> nn.Module:
        """The module that holds the tensors, under the names they have in a checkpoint."""
        raise TypeError(f"{type(self).__name__} does not define build_model()")

    def ids_of(self, model: Any, values_BCHW: Tensor) -> Tensor:
        """Codes in rows and columns, or in one row, of each picture."""
        raise TypeError(f"{type(self).__name__} does not define ids_of()")

    def values_of(self, model: Any, ids_BN: Tensor, grid: Grid) -> Tensor:
        """Values (B, 3, H, W) of codes."""
        raise TypeError(f"{type(self).__name__} does not define values_of()")

    def rebuilt(self, model: Any, values_BCHW: Tensor) -> Reconstruction:
        """There and back, with gradients, of a kind that trains."""
        raise TypeError(f"{type(self).__name__} does not define rebuilt()")

    @property
    def published_as(self) -> str | None:
        plain = type(self).from_dict({})
        return self.hub if all(getattr(self, name) == getattr(plain, name) for name in SIZES) else None

    def fetch(self, path: str) -> str:
        return from_hub(self.hub, path)

    def build(self, folder: Path | None = None) -> PublishedVq:
        if folder is None:
            self.refuse_random()
            return self.blank()
        need_weights(folder, self.fetch(str(folder)))
        tokenizer = self.blank()
        tensors = read_named(folder, PREFIXES)
        if all(name.startswith(OWN) for name in tensors):
            tensors = {name.removeprefix(OWN): value for name, value in tensors.items()}
        self.load(tokenizer.model, tensors, str(folder))
        return tokenizer

    def blank(self) -> PublishedVq:
        return PublishedVq(self, self.build_model()).eval()

    def load(self, model: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
        """Put a checkpoint's tensors into the module, all of them."""
        load_exact(model, tensors, where, self.fetch(where))

    @staticmethod
    def sizes(vq: Any) -> dict[str, Any]:
        """What all of transformers' configs call alike."""
        return {"code_width": vq.embed_dim, "latent_width": vq.latent_channels, "width": vq.base_channels,
                "multipliers": tuple(vq.channel_multiplier), "blocks": vq.num_res_blocks}  # fmt: skip

    def hf_sizes(self) -> dict[str, Any]:
        """`sizes`, the other way."""
        return {"embed_dim": self.code_width, "latent_channels": self.latent_width, "base_channels": self.width,
                "channel_multiplier": list(self.multipliers), "num_res_blocks": self.blocks}  # fmt: skip


def pixel_scales(pictures: Mapping[str, Any]) -> dict[str, Any]:
    """`rescale`, `mean`, `std` where preprocessor_config.json names them."""
    names = {"rescale_factor": "rescale", "image_mean": "mean", "image_std": "std"}
    found = {ours: pictures[theirs] for theirs, ours in names.items() if pictures.get(theirs) is not None}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


class PublishedVq(PixelTokenizer):
    """A VQ model of transformers behind the interface of picture tokenizers."""

    def __init__(self, config: PublishedVqConfig, model: nn.Module) -> None:
        super().__init__(config)
        self.config = config
        self.model = model

    def forward(self, values_BCHW: Tensor) -> Reconstruction:
        """What training looks at."""
        return self.config.rebuilt(self.model, values_BCHW)

    def to_values(self, pixels_BCHW: Tensor) -> Tensor:
        values_BCHW = pixels_BCHW.float() * self.config.rescale
        return (values_BCHW - _channels(self.config.mean, values_BCHW)) / _channels(self.config.std, values_BCHW)

    def to_pixels(self, values_BCHW: Tensor) -> Tensor:
        values_BCHW = values_BCHW.float()
        scaled_BCHW = values_BCHW * _channels(self.config.std, values_BCHW) + _channels(self.config.mean, values_BCHW)
        return (scaled_BCHW / self.config.shown_rescale).round().clamp(0, 255).to(torch.uint8)

    def encode_values(self, values_BCHW: Tensor) -> Tensor:
        return self.config.ids_of(self.model, values_BCHW).reshape(len(values_BCHW), -1)

    def decode_values(self, ids_BN: Tensor, grid: Grid) -> Tensor:
        return self.config.values_of(self.model, ids_BN, grid)


def _channels(three: tuple[float, float, float], like: Tensor) -> Tensor:
    return like.new_tensor(three).view(1, 3, 1, 1)
