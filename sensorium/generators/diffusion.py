"""Generators that are pipelines of diffusers: a condition of ours goes in where the pipeline's own text encoder's would.

A kind of generator says which folder it takes (`layout`), what it is steered by, how conditions become the
pipeline's arguments, and how its output becomes `Made`. What is here is common: the folder, shapes and sizes that are
refused, seeds, progress, stopping, failures.

Each item is drawn from a random generator of its own that begins with the same seed, on the CPU, so that an item does
not depend on what stands beside it, nor its noise on the device. Other pictures of one condition want other seeds.

Shape legend: B items, L condition tokens, C condition width, H/W pixels, F frames, N samples of sound.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from sensorium.core.errors import ConfigError, GenerationError, WeightsError
from sensorium.core.hands import Asked, ConditionShape, GeneratorConfig, Made, Making
from sensorium.generators.pipeline_folder import (
    Layout,
    fetch_command,
    load_pipeline,
    need_diffusers,
    quiet,
    settled,
)
from sensorium.generators.steps import Steps

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class DiffusionConfig(GeneratorConfig):
    """A pipeline of diffusers and the condition that it takes."""

    length: int
    """Condition tokens."""
    width: int
    """Their width."""
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    scale: Literal["published", "tiny"] = "published"
    """`tiny`: without a folder, a small pipeline with random weights is made."""

    @property
    def condition(self) -> ConditionShape:
        return ConditionShape(self.length, self.width)

    @property
    def layout(self) -> Layout:
        """The folder it takes."""
        raise TypeError(f"{type(self).__name__} does not define layout")

    def fetch(self, path: str) -> str:
        return fetch_command(self.layout, Path(path))

    @property
    def heeds(self) -> frozenset[Asked]:
        everything: frozenset[Asked] = frozenset({"steps", "guidance", "negative", "seed", "size"})
        return everything - {"size"} if self.makes == "audio" else everything

    def build(self, folder: Path | None = None) -> DiffusionGenerator:
        diffusers = need_diffusers(self.kind)
        if folder is not None:
            pipe = load_pipeline(self.kind, self.layout, folder, DTYPES[self.dtype])
        elif self.scale == "tiny":
            with quiet():
                pipe = settled(self.tiny_pipeline(diffusers))
        else:
            raise WeightsError(
                "no folder, and a pipeline of published size with random weights makes noise",
                where=f"generator {self.kind}",
                fix=(self.fetch("FOLDER") if self.layout.made_by else f"name a folder or hub id in `weights`, such as {self.layout.published}")
                + ", or set scale: tiny",
            )
        self.check_pipeline(pipe)
        return self.generator(pipe)

    def tiny_pipeline(self, diffusers: Any) -> Any:
        """A pipeline of a few channels with random weights.

        Args:
            diffusers: the package.
        """
        raise TypeError(f"{type(self).__name__} does not define tiny_pipeline()")

    def check_pipeline(self, pipe: Any) -> None:
        """Refuse a pipeline that takes conditions of another shape.

        Raises:
            ConfigError: naming both.
        """
        raise TypeError(f"{type(self).__name__} does not define check_pipeline()")

    def generator(self, pipe: Any) -> DiffusionGenerator:
        """What runs the pipeline."""
        raise TypeError(f"{type(self).__name__} does not define generator()")


class DiffusionGenerator:
    """Runs a pipeline; one run at a time, for its scheduler has a state."""

    sized: ClassVar[bool] = False
    """Whether a medium has a height and a width."""
    timed: ClassVar[bool] = False
    """Whether it has a length in seconds."""
    own_negative: ClassVar[bool] = False
    """True: what it leads away from is fixed, and none may be given."""

    def __init__(self, config: DiffusionConfig, pipe: Any) -> None:
        self.config = config
        self.pipe = pipe
        self._lock = Lock()

    @property
    def device(self) -> torch.device:
        return self.pipe.unet.device

    def to(self, device: torch.device) -> Self:
        """Move all components."""
        # Asked for at every step of a training, and diffusers looks at each module of each component even where nothing moves. All are
        # looked at: where a UNet learns, its stage has moved that one alone.
        parts = [part for part in self.pipe.components.values() if isinstance(part, nn.Module)]
        if any(cast(Any, part).device != device for part in parts):
            self.pipe.to(device)
        return self

    def generate(self, condition_BLC: Tensor, *, negative_BLC: Tensor | None = None, making: Making = Making()) -> list[Made]:
        """See `core.hands.Generator`."""
        self._check_condition("condition", condition_BLC)
        self._check_making(making)
        items = len(condition_BLC)
        if not items:
            return []
        negative_BLC = self._negative(negative_BLC, items)
        seeds = [torch.Generator().manual_seed(making.seed) for _ in range(items)]
        steps = Steps(self.config.kind, self.pipe, making)
        with self._lock, steps.watched():
            output = self.pipe(
                **self.arguments(self._ready(condition_BLC), None if negative_BLC is None else self._ready(negative_BLC)),
                **self._asked(making, items), **steps.callback(),
                num_inference_steps=making.steps, guidance_scale=making.guidance, generator=seeds, output_type="np",
            )  # fmt: skip
            return self.made(output)

    def arguments(self, condition_BLC: Tensor, negative_BLC: Tensor | None) -> dict[str, Any]:
        """The pipeline's arguments that are the condition."""
        raise TypeError(f"{type(self).__name__} does not define arguments()")

    def made(self, output: Any) -> list[Made]:
        """The pipeline's output as media."""
        raise TypeError(f"{type(self).__name__} does not define made()")

    def span(self, seconds: float) -> dict[str, Any]:
        """The pipeline's argument for a length in seconds."""
        raise TypeError(f"{type(self).__name__} does not define span()")

    def _ready(self, values: Tensor) -> Tensor:
        return values.detach().to(self.device, self.pipe.unet.dtype)

    def _negative(self, negative_BLC: Tensor | None, items: int) -> Tensor | None:
        if negative_BLC is None:
            return None
        where = f"generator {self.config.kind}"
        if self.own_negative:
            raise ConfigError("a negative condition was given", expected="none: the pipeline has its own", where=where)
        self._check_condition("negative condition", negative_BLC)
        if len(negative_BLC) not in (1, items):
            raise ConfigError(f"{len(negative_BLC)} negative conditions for {items} items", expected="one, or one each", where=where)
        return negative_BLC.expand(items, -1, -1)

    def _check_condition(self, noun: str, values: Tensor) -> None:
        shape = self.config.condition
        if values.ndim != 3 or tuple(values.shape[1:]) != (shape.length, shape.width):
            raise ConfigError(
                f"a {noun} of shape {tuple(values.shape)}", expected=f"(items, {shape.length}, {shape.width})",
                where=f"generator {self.config.kind}", fix="the output projector's condition must be the generator's",
            )  # fmt: skip

    def _check_making(self, making: Making) -> None:
        where = f"generator {self.config.kind}"
        longest = self.pipe.scheduler.config.num_train_timesteps
        if not 1 <= making.steps <= longest:
            raise ConfigError(f"{making.steps} steps", expected=f"1 to {longest}", where=where)
        if making.size is not None:
            if not self.sized:
                raise ConfigError("a size of sound", expected="none", where=where)
            # Whatever its VAE, diffusers asks for multiples of eight.
            side = max(8, self.pipe.vae_scale_factor)
            if min(making.size) < side or any(pixels % side for pixels in making.size):
                raise ConfigError(f"a size of {making.size[0]} x {making.size[1]} pixels", expected=f"multiples of {side}", where=where)
        if making.seconds is not None:
            if not self.timed:
                raise ConfigError("a length in seconds of a picture", expected="none", where=where)
            if not 0 < making.seconds < float("inf"):
                raise ConfigError(f"{making.seconds} seconds", expected="more than none", where=where)

    def _asked(self, making: Making, items: int) -> dict[str, Any]:
        """The pipeline's arguments for size and length, and whatever else is asked for."""
        del items
        asked: dict[str, Any] = {}
        if making.size is not None:
            asked["height"], asked["width"] = making.size
        return asked | (self.span(making.seconds) if making.seconds is not None else self.own_span())

    def own_span(self) -> dict[str, Any]:
        """The argument where no length is asked for."""
        return {}


class PictureGenerator(DiffusionGenerator):
    """Its output is pictures."""

    sized = True

    def made(self, output: Any) -> list[Made]:
        if any(getattr(output, "nsfw_content_detected", None) or ()):
            raise GenerationError(
                "the pipeline's safety checker refused what was made", where=f"generator {self.config.kind}",
                fix="ask for something else or use another seed",
            )  # fmt: skip
        return [Made("image", array) for array in as_bytes(output.images, self.config.kind)]


def as_bytes(values: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    """Values 0..1 as uint8, rounded.

    Raises:
        GenerationError: some are not finite.
    """
    return (_finite(values, kind) * 255).round().astype(np.uint8)


def as_sound(values: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    """Samples as float32 between -1 and 1, beyond which they are cut off."""
    return _finite(values, kind).astype(np.float32).clip(-1.0, 1.0)


def _finite(values: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    if not np.isfinite(values).all():
        raise GenerationError("the decoder made values that are not finite", where=f"generator {kind}", fix="try dtype fp32")
    return values
