"""A small drawer of our own: codes of a VQ tokenizer drawn behind a condition, which becomes a picture.

Its folder holds config.json, painter.safetensors, and the tokenizer in a folder of its own (`tokenizer`), as `sensorium
tokenizer train` writes one. A folder with a tokenizer alone, such as that command's, gives a drawer that has learnt codes
and not yet to draw.

Shape legend: B items, L condition tokens, C their width, or colours beside H/W pixels, D the painter's width, N codes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn

from sensorium.core.atomic import write_json
from sensorium.core.errors import ConfigError, GenerationError, WeightsError
from sensorium.core.hands import (
    Asked,
    CancelledError,
    ConditionShape,
    GeneratorConfig,
    Made,
    MadeKind,
    Making,
)
from sensorium.generators.painter import Painter, PainterShape, Strokes
from sensorium.generators.vq import VqConfig, VqTokenizer
from sensorium.nn.pretrained import load_exact, need_weights, read_file

PAINTER, TOKENIZER = "painter.safetensors", "tokenizer"


class DrawerConfig(GeneratorConfig):
    """A picture has as many steps as codes."""

    kind: Literal["drawer"] = "drawer"
    tokenizer: VqConfig = VqConfig()
    length: int = Field(default=6, ge=1)
    condition_width: int = Field(default=192, ge=1)
    width: int = Field(default=192, ge=1)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=6, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    """What scores are divided by when a code is drawn; 0: always the likeliest one."""
    top_p: float = Field(default=0.95, gt=0, le=1)
    """Only the likeliest codes that together have this probability."""
    strongest: float = Field(default=4.0, ge=1)
    """Guidance beyond this is taken as this: diffusion's usual 7.5 leaves an autoregressive drawer one code to choose."""

    @classmethod
    def tiny(cls) -> DrawerConfig:
        return cls(tokenizer=VqConfig.tiny(), length=2, condition_width=12, width=32, layers=1, heads=2)

    @property
    def makes(self) -> MadeKind:
        return "image"

    @property
    def heeds(self) -> frozenset[Asked]:
        return frozenset({"guidance", "size", "negative", "seed"})

    @property
    def condition(self) -> ConditionShape:
        return ConditionShape(self.length, self.condition_width)

    def fetch(self, path: str) -> str:
        return (f"none is published; sensorium train nano-draws makes one: copy generators/image of its model to {path}, or name that "
                "folder, or that of a tokenizer alone, which sensorium tokenizer train makes")  # fmt: skip

    def build(self, folder: Path | None = None) -> Drawer:
        if self.width % self.heads:
            raise ConfigError(f"{self.heads} heads in a width of {self.width}", expected="a divisor", where="generator drawer")
        drawer = Drawer(self)
        if folder is not None:
            drawer.load(folder)
        return drawer.eval()


class Drawer(nn.Module):
    """A tokenizer of pictures, and a painter of its codes."""

    def __init__(self, config: DrawerConfig) -> None:
        super().__init__()
        self.config = config
        self.tokenizer: VqTokenizer = config.tokenizer.build()
        grid = self.tokenizer.grid
        self.painter = Painter(
            PainterShape(config.tokenizer.codes, grid, config.condition, config.width, config.layers, config.heads)
        )

    @property
    def decoder(self) -> nn.Module:
        """What can learn of it: all."""
        return self

    @property
    def side_px(self) -> int:
        """Of its pictures."""
        return self.tokenizer.size_px

    def load(self, folder: Path) -> None:
        """Take weights from a folder of either layout.

        Raises:
            WeightsError: a file or tensors are missing, left over, or of another shape.
        """
        inner, fix = folder / TOKENIZER, self.config.fetch(str(folder))
        tokenizer = inner if inner.is_dir() else folder
        if tokenizer == folder and (folder / PAINTER).exists() and not (folder / "model.safetensors").exists():
            raise WeightsError(f"no {TOKENIZER}/ beside {PAINTER}", where=str(folder), fix=fix)
        need_weights(tokenizer, fix)
        load_exact(self.tokenizer, read_file(tokenizer / "model.safetensors"), str(tokenizer), fix)
        if inner.is_dir() or (folder / PAINTER).exists():
            if not (folder / PAINTER).exists():
                raise WeightsError(f"no {PAINTER} beside {TOKENIZER}/", where=str(folder), fix=fix)
            load_exact(self.painter, read_file(folder / PAINTER), str(folder / PAINTER), fix)

    def save(self, folder: Path) -> None:
        """Write config and weights."""
        (folder / TOKENIZER).mkdir(parents=True)
        write_json(folder / "config.json", self.config.to_dict())
        write_json(folder / TOKENIZER / "config.json", self.config.tokenizer.to_dict())
        save_file(_stored(self.tokenizer), folder / TOKENIZER / "model.safetensors", metadata={"format": "pt"})
        save_file(_stored(self.painter), folder / PAINTER, metadata={"format": "pt"})

    @property
    def codes(self) -> int:
        """Entries of its codebook."""
        return self.tokenizer.codes

    def encode(self, pixels_BCHW: Tensor) -> Tensor:
        """uint8 pictures -> ids_BN of codes."""
        return self.tokenizer.encode(pixels_BCHW)

    def redraw(self, pixels_BCHW: Tensor) -> Tensor:
        """uint8 pictures through the tokenizer and back: the best that could be drawn of them."""
        return self.tokenizer.decode(self.encode(pixels_BCHW))

    @torch.no_grad()
    def generate(
        self, condition_BLC: Tensor, *, negative_BLC: Tensor | None = None, making: Making = Making()
    ) -> list[Made]:
        """See `core.hands.Generator`; without a negative condition, it leads away from what is drawn without any."""
        self._check(condition_BLC, negative_BLC, making)
        items = len(condition_BLC)
        if not items:
            return []
        painter, grid = self.painter, self.tokenizer.grid
        where = painter.nothing_LD
        prefix_BLD = painter.prefix(condition_BLC.detach().to(where))
        strokes = Strokes(min(making.guidance, self.config.strongest), self.config.temperature, self.config.top_p)
        away_BLD = None if strokes.guidance == 1 else self._away(negative_BLC, items)
        # Each item is drawn by the same chances, so that its neighbours change nothing.
        chances_N = torch.rand(grid.tokens, generator=torch.Generator().manual_seed(making.seed), dtype=torch.float64)
        codes = Codes(making, grid.tokens)
        ids_BN = painter.draw(prefix_BLD, away_BLD, strokes, chances_N.expand(items, -1), codes)
        pixels_BHWC = self.tokenizer.decode(ids_BN).permute(0, 2, 3, 1).cpu().numpy()
        return [Made("image", pixels_HWC.copy()) for pixels_HWC in pixels_BHWC]

    def _away(self, negative_BLC: Tensor | None, items: int) -> Tensor:
        painter = self.painter
        if negative_BLC is not None:
            return painter.prefix(negative_BLC.detach().to(painter.nothing_LD)).expand(items, -1, -1)
        return (painter.nothing_LD + painter.lengthwise_LD).expand(items, -1, -1)

    def _check(self, condition_BLC: Tensor, negative_BLC: Tensor | None, making: Making) -> None:
        shape, where = self.config.condition, "generator drawer"
        for noun, values in (("condition", condition_BLC), ("negative condition", negative_BLC)):
            if values is not None and (values.ndim != 3 or tuple(values.shape[1:]) != (shape.length, shape.width)):
                raise ConfigError(
                    f"a {noun} of shape {tuple(values.shape)}", expected=f"(items, {shape.length}, {shape.width})", where=where,
                    fix="the output projector's condition must be the generator's",
                )  # fmt: skip
        if not bool(condition_BLC.isfinite().all()):
            raise GenerationError("a condition that is not finite", where=where, fix="look at the weights of the model")
        if negative_BLC is not None and len(negative_BLC) not in (1, len(condition_BLC)):
            raise ConfigError(f"{len(negative_BLC)} negative conditions for {len(condition_BLC)} items", expected="one, or one each", where=where)
        side = self.config.tokenizer.size_px
        if making.size not in (None, (side, side)):
            raise ConfigError(f"a size of {making.size} pixels", expected=f"{side} x {side}, the tokenizer's", where=where)
        if making.seconds is not None:
            raise ConfigError("a length in seconds of a picture", expected="none", where=where)


class Codes:
    """Tells of each code drawn, and asks whether to go on."""

    def __init__(self, making: Making, total: int) -> None:
        self.making = making
        self.total = total

    def __call__(self, done: int) -> None:
        if self.making.progress is not None:
            self.making.progress(done, self.total)
        if self.making.cancelled is not None and self.making.cancelled():
            raise CancelledError(f"generator drawer: stopped after step {done} of {self.total}")


def _stored(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
