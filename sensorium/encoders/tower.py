"""What all transformer towers share: choice of layer, choice of features.

The towers themselves come from transformers; this file picks from their outputs.

Shape legend: N pictures, L tokens of a picture, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from sensorium.core.batch import Features, Grid, Preprocess
from sensorium.core.errors import ConfigError
from sensorium.core.parts import EncoderConfig
from sensorium.encoders.pixels import Normalise

FeatureChoice = Literal["patch", "cls_patch", "cls", "pooled"]
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


class TowerConfig(EncoderConfig):
    """A vision transformer's shape and which of its features to take."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    image_size_px: int
    patch_size_px: int
    select_layer: int | None = None
    """Index into the list of hidden states (0 = embeddings, -1 = last layer before any
    final norm). None: the tower's own output, which most towers have normed; CLIP's has been
    only with `norm_tokens`."""
    feature: FeatureChoice = "patch"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"

    @property
    def prefix_tokens(self) -> int:
        """Tokens in front of the patches: CLS and registers."""
        return 1

    @property
    def has_pooled(self) -> bool:
        """Whether the tower has a pooled token of its own."""
        return True

    @property
    def out_dim(self) -> int:
        return self.width

    def preprocess(self) -> Preprocess:
        return Preprocess(self.image_size_px, self.mean, self.std, self.interpolation)

    def grid(self) -> Grid:
        side = self.image_size_px // self.patch_size_px
        if self.feature in ("cls", "pooled"):
            return Grid(1, 1)
        return Grid(side, side, prefix=self.prefix_tokens if self.feature == "cls_patch" else 0)

    def hf_shape(self) -> dict[str, Any]:
        """The shape under the names that most transformers configs use."""
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.mlp_width,
            "image_size": self.image_size_px,
            "patch_size": self.patch_size_px,
        }

    def check(self) -> None:
        """Refuse choices that this tower cannot serve.

        Raises:
            ConfigError: no CLS token, a layer that does not exist, or a pooled feature of
                an inner layer.
        """
        if self.feature in ("cls", "cls_patch") and not self.prefix_tokens:
            raise ConfigError(
                f"feature {self.feature!r} of a {self.kind} tower, which has no CLS token",
                expected="patch or pooled",
            )
        if self.feature == "pooled" and not self.has_pooled:
            raise ConfigError(f"pooled features of a {self.kind} tower", expected="patch")
        if self.select_layer is None:
            return
        if self.feature == "pooled":
            raise ConfigError(
                "pooled features of an inner layer", expected="select_layer: null with pooled"
            )
        if not -self.layers - 1 <= self.select_layer <= self.layers:
            raise ConfigError(
                f"select_layer {self.select_layer}",
                expected=f"-{self.layers + 1} to {self.layers} for {self.layers} layers",
            )

    def build(self, folder: Path | None = None) -> Tower:
        self.check()
        return Tower(self, self.build_tower(folder))

    def build_tower(self, folder: Path | None) -> nn.Module:
        """The transformers module, with the weights in `folder` or random ones."""
        raise TypeError(f"{type(self).__name__} does not define build_tower()")

    def run_tower(self, tower: Any, pixel_values_NCHW: Tensor) -> Any:
        """The tower's own output."""
        return tower(pixel_values_NCHW)

    def output_tokens(self, tower: Any, output: Any) -> Tensor:
        """The tokens (N, L, D) of a tower's own output."""
        del tower
        return output.last_hidden_state

    def blocks(self, tower: nn.Module) -> list[nn.Module]:
        """The tower's layers, from input to output."""
        raise TypeError(f"{type(self).__name__} does not define blocks()")


class Tower(nn.Module):
    """A transformers vision tower behind the encoder interface."""

    def __init__(self, config: TowerConfig, tower: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.normalise = Normalise(config.preprocess())
        self.tower = tower

    def trainable_blocks(self) -> list[nn.Module]:
        """Layers from input to output, for training only the last few."""
        return self.config.blocks(self.tower)

    def forward(self, pixels_NCHW: Tensor) -> Features:
        """(N, 3, S, S) uint8 -> the chosen features."""
        return self.features(self.normalise(pixels_NCHW))

    def features(self, pixel_values_NCHW: Tensor) -> Features:
        """The chosen features of pixels that are already normalised."""
        config = self.config
        dtype = next(self.tower.parameters()).dtype
        hidden_NLD, output = self._run(pixel_values_NCHW.to(dtype))
        grid = config.grid()
        grids = (grid,) * len(pixel_values_NCHW)
        if config.feature == "pooled":
            return Features(output.pooler_output, grids)
        if config.feature == "cls":
            return Features(hidden_NLD[:, 0], grids)
        if config.feature == "patch":
            hidden_NLD = hidden_NLD[:, config.prefix_tokens :]
        return Features(hidden_NLD.flatten(0, 1), grids)

    def _run(self, pixel_values_NCHW: Tensor) -> tuple[Tensor, Any]:
        """The chosen layer's hidden states and the tower's own output.

        A hook catches the one layer that is wanted; the list of all of them, which not
        every tower offers, is never kept.
        """
        choice, layers = self.config.select_layer, self.trainable_blocks()
        if choice is None:
            output: Any = self.config.run_tower(self.tower, pixel_values_NCHW)
            return self.config.output_tokens(self.tower, output), output
        # Index 0 is what enters the first layer, index i what leaves layer i - 1.
        index = choice if choice >= 0 else len(layers) + 1 + choice
        caught: list[Tensor] = []

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            caught.append(args[0] if args else kwargs["hidden_states"])

        def after(module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
            caught.append(_first(result))

        if index == 0:
            handle = layers[0].register_forward_pre_hook(before, with_kwargs=True)
        else:
            handle = layers[index - 1].register_forward_hook(after)
        try:
            output = self.config.run_tower(self.tower, pixel_values_NCHW)
        finally:
            handle.remove()
        return caught[0], output


def _first(output: Any) -> Tensor:
    """A layer returns its hidden states alone or first in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def run_stretched(tower: Any, pixel_values_NCHW: Tensor) -> Any:
    """A transformers tower on pictures of another size than it was built for: it stretches its table."""
    other = pixel_values_NCHW.shape[-1] != tower.config.image_size
    return tower(pixel_values_NCHW, interpolate_pos_encoding=other)


def tiny_shape(**changes: Any) -> dict[str, Any]:
    """The shape of a tower that runs in milliseconds."""
    shape: dict[str, Any] = {
        "width": 32,
        "layers": 3,
        "heads": 4,
        "mlp_width": 48,
        "image_size_px": 32,
        "patch_size_px": 8,
    }
    return shape | changes
