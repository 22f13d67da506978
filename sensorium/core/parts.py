"""The promises of each kind of part, as config base classes.

A part's config answers what the rest of the system must know without weights, and
builds the module. A new part subclasses one of these and adds a line to its folder's
name table; the contract test then finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from sensorium.core.batch import Grid, MediaShape, Preprocess, TilePlan
from sensorium.core.boxes import View
from sensorium.core.clips import ClipsConfig
from sensorium.core.config import Config
from sensorium.core.errors import ConfigError
from sensorium.core.weights import WeightSource

if TYPE_CHECKING:
    from torch import nn

    from sensorium.core.hands import HandShape
    from sensorium.core.picture_words import PictureWordsShape
    from sensorium.core.video import VideoConfig


class PartConfig(Config):
    """A node that builds a module."""

    kind: str

    @classmethod
    def tiny(cls) -> Self:
        """A version that runs on a CPU in milliseconds."""
        raise TypeError(f"{cls.__name__} does not define tiny()")


class EncoderConfig(PartConfig):
    """media tensors -> Features."""

    weights: tuple[WeightSource, ...] = ()
    """Where pretrained weights may come from; the first that is reachable wins."""

    @property
    def out_dim(self) -> int:
        """Width of the features."""
        raise TypeError(f"{type(self).__name__} does not define out_dim")

    def preprocess(self) -> Preprocess:
        """Size, mean and deviation the encoder was trained with."""
        raise TypeError(f"{type(self).__name__} does not define preprocess()")

    @property
    def native_patch_px(self) -> int | None:
        """Side of the patches that it takes of pictures of any size, beside whole inputs of one
        size; None: it takes these alone."""
        return None

    def grid(self) -> Grid:
        """Feature layout of one encoder input."""
        raise TypeError(f"{type(self).__name__} does not define grid()")

    def clips(self) -> Mapping[str, ClipsConfig]:
        """Kinds of media that it takes as clips, beside pictures, and how they are cut; each is one encoder input."""
        return {}

    def at_size(self, size_px: int) -> Self:
        """The same encoder, with the same weights, for pictures of another size.

        Raises:
            ConfigError: it takes one size alone.
        """
        raise ConfigError(
            f"pictures of {size_px} pixels for encoder {self.kind!r}",
            expected=f"{self.preprocess().size_px}, the only size it takes",
            fix="choose an encoder whose positions can be stretched: clip, blip2_vit, eva2, qwen_vit, vit_22b",
        )

    def check(self) -> None:
        """Refuse choices that do not fit together, before the module is built.

        Raises:
            ConfigError: naming them.
        """

    def num_tokens(self, shape: MediaShape) -> int:
        """Features for one medium of this shape; image towers resize, so it is constant."""
        del shape
        return self.grid().tokens

    def build(self, folder: Path | None = None) -> nn.Module:
        """The module `forward(pixels_NCHW: uint8) -> Features`, with the weights that lie
        in `folder` in the part's native layout, or random ones. With `native_patch_px` also
        `forward(patches_NCHW, grids)`: the patches of several pictures and each one's layout; with
        `clips` also `forward(clips, kind)`, see `MediaBatch`."""
        raise TypeError(f"{type(self).__name__} does not define build()")


@dataclass(frozen=True, slots=True)
class TextVocabulary:
    """Sizes of what a part reads: different tokens, and tokens of one text."""

    words: int
    longest: int


class InputProjectorConfig(PartConfig):
    """Features of encoder width -> Features of LLM width."""

    def out_grid(self, grid: Grid) -> Grid:
        """Layout after projecting an item laid out as `grid`.

        Raises:
            ConfigError: the projector cannot take this grid.
        """
        raise TypeError(f"{type(self).__name__} does not define out_grid()")

    def num_tokens(self, grid: Grid) -> int:
        """Tokens that an item laid out as `grid` becomes."""
        return self.out_grid(grid).tokens

    @property
    def two_steps(self) -> bool:
        """True: its module has `pooled(features) -> Features` of the encoder's width, and `widen` brings them to the LLM's."""
        return False

    @property
    def vocabulary(self) -> TextVocabulary | None:
        """What the projector can read beside the features; None: nothing."""
        return None

    def build(self, d_in: int, d_out: int) -> nn.Module:
        """The module: `forward(features: Features) -> Features`, and with a vocabulary
        `forward(features, texts)`, the token ids of one text for each item."""
        raise TypeError(f"{type(self).__name__} does not define build()")


@dataclass(frozen=True, slots=True)
class TextFrame:
    """How a text tower wants its texts, each a whole of its own."""

    longest: int
    """Tokens; of a longer text the end is cut, but for its last token, which ends it."""
    fill: bool = False
    """True: shorter texts are filled up with padding that is read like any token."""
    bare: bool = False
    """True: in lower case, without punctuation."""


class BackboneConfig(PartConfig):
    """Token embeddings -> hidden states -> logits."""

    weights: tuple[WeightSource, ...] = ()
    """Where pretrained weights and the tokenizer may come from; first match wins."""
    tokenizer: Literal["pretrained", "bytes"] = "pretrained"
    """`bytes`: a vocabulary of the 256 bytes and chat tokens, for models from scratch."""
    added_tokens: tuple[str, ...] = ()
    """Control tokens that the tokenizer lacks; they are appended in this order when the model is built.
    The rows of the embedding count them; their own begin at random."""
    tokenizer_from: tuple[WeightSource, ...] = ()
    """Where the tokenizer may come from while the weights start at random."""
    begins_with: str | None = None
    """The control token that begins every text; None: the tokenizer's own, if it has one."""

    @property
    def d_model(self) -> int:
        """Width of the hidden states."""
        raise TypeError(f"{type(self).__name__} does not define d_model")

    @property
    def d_media(self) -> int:
        """Width that projectors bring media to: that of the hidden states, or of a space that
        media and texts share."""
        return self.d_model

    @property
    def text_frame(self) -> TextFrame | None:
        """How texts are framed for a tower that answers with embeddings; None: it writes."""
        return None

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table."""
        raise TypeError(f"{type(self).__name__} does not define vocab_size")

    @property
    def max_positions(self) -> int:
        """Longest sequence the model was made for."""
        raise TypeError(f"{type(self).__name__} does not define max_positions")

    @property
    def num_layers(self) -> int:
        """Decoder layers, for fusion that inserts between them."""
        raise TypeError(f"{type(self).__name__} does not define num_layers")

    @property
    def mrope(self) -> bool:
        """True: a token has three positions, its time, row and column (Qwen2-VL's M-RoPE)."""
        return False

    @property
    def one_answer(self) -> bool:
        """True: a row has one answer, at its end (encoder-decoders)."""
        return False

    def lends(self, other: BackboneConfig) -> dict[str, str]:
        """Prefixes of this backbone's tensors that another one has too, when it starts from this one, and
        what it calls them; the rest is left behind."""
        del other
        return {"": ""}

    def build(self, folder: Path | None = None) -> nn.Module:
        """The module, with the weights in `folder` (Hugging Face layout) or random ones;
        see `backbones.causal_lm.CausalLM` for its interface."""
        raise TypeError(f"{type(self).__name__} does not define build()")


class FusionConfig(PartConfig):
    """How projected features meet the LLM."""

    @property
    def fills_slots(self) -> bool:
        """True: features replace placeholder tokens. False: they enter inside layers."""
        raise TypeError(f"{type(self).__name__} does not define fills_slots")

    @property
    def reaches_back(self) -> bool:
        """True: what is written before a Sample's first medium sees that medium, too."""
        return False

    def same_position(self, count: int) -> range:
        """Of a medium's `count` tokens, those that stand at the position of the one before."""
        return range(0)

    def build(self, d_model: int, num_layers: int, d_media: int) -> nn.Module:
        """The module that the model calls; see `fusion`."""
        raise TypeError(f"{type(self).__name__} does not define build()")


class ResolutionConfig(PartConfig):
    """How a picture of any shape becomes encoder inputs."""

    def plan(self, shape: MediaShape, size_px: int, tile: Grid, pictures: int = 1) -> TilePlan:
        """The layout for a picture of `shape` when one tile costs `tile.tokens`.

        Args:
            pictures: how many the Sample holds.
        """
        raise TypeError(f"{type(self).__name__} does not define plan()")

    def cut(self, image: Any, plan: TilePlan, preprocess: Preprocess) -> Any:
        """The encoder inputs (N, size, size, 3), uint8, of an RGB picture: plan.images tiles, or its
        patches."""
        raise TypeError(f"{type(self).__name__} does not define cut()")

    def views(self, shape: MediaShape, plan: TilePlan, size_px: int) -> tuple[View, ...]:
        """Where the picture lies in each tile, in the order of `cut`; in all its patches together."""
        raise TypeError(f"{type(self).__name__} does not define views()")

    def frame(self, shape: MediaShape, plan: TilePlan, size_px: int) -> View:
        """Where it lies in the frame that coordinates in text refer to."""
        raise TypeError(f"{type(self).__name__} does not define frame()")

    def scale(self, shape: MediaShape, plan: TilePlan, size_px: int) -> float:
        """The largest part of its own height or width at which the picture is seen."""
        return max(max(view.scale_x, view.scale_y) for view in self.views(shape, plan, size_px))


class LaneShape(Protocol):
    """What the Processor must know of one modality's way into the LLM."""

    @property
    def encoder(self) -> EncoderConfig: ...
    @property
    def projector(self) -> InputProjectorConfig: ...
    @property
    def resolution(self) -> ResolutionConfig: ...
    @property
    def detail(self) -> EncoderConfig | None: ...
    @property
    def fast_decode(self) -> bool: ...
    @property
    def looks_for_words(self) -> bool: ...
    def tile_grid(self, patches: Grid | None = None) -> Grid:
        """Tokens of one encoder input after the projector, or of a picture of its own size."""
        ...


class ModelShape(Protocol):
    """What the Processor must know of a model."""

    @property
    def lanes(self) -> Mapping[str, LaneShape]: ...
    @property
    def hands(self) -> Mapping[Any, HandShape]: ...
    @property
    def picture_words(self) -> PictureWordsShape | None: ...
    @property
    def video(self) -> VideoConfig | None: ...
    @property
    def backbone(self) -> BackboneConfig: ...
    @property
    def fusion(self) -> FusionConfig: ...
    @property
    def template(self) -> str: ...
    @property
    def image_markers(self) -> tuple[str, ...]: ...
    @property
    def boxes(self) -> str | None: ...
    @property
    def placeholder_token(self) -> str | None: ...
    @property
    def text_frame(self) -> TextFrame | None: ...
    def lane_of(self, kind: str) -> str:
        """The name of the lane that a kind of media goes through, or a ConfigError."""
        ...
