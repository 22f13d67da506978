"""The LLM writes the prompt: a text goes through the generator's own text encoder and on as its condition.

Needs no output projector and no training; what is lost is all that words do not say (compared in GILL, arXiv:2305.17216).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import torch
from pydantic import SerializeAsAny, model_validator
from torch import Tensor

from sensorium.core.config import kinds
from sensorium.core.errors import ConfigError
from sensorium.core.hands import (
    Asked,
    ConditionShape,
    Generator,
    GeneratorConfig,
    Made,
    MadeKind,
    Making,
    ReadingGenerator,
)
from sensorium.generators import GENERATORS


class TextRouteConfig(GeneratorConfig):
    """A generator told by text; `weights` are the generator's."""

    kind: Literal["text_route"] = "text_route"
    generator: Annotated[SerializeAsAny[GeneratorConfig], kinds(GENERATORS, GeneratorConfig)]

    @classmethod
    def tiny(cls) -> TextRouteConfig:
        return cls(generator=GENERATORS.find("stable_diffusion").tiny())

    @model_validator(mode="after")
    def _weights_once(self) -> TextRouteConfig:
        if self.generator.weights:
            raise ValueError("weights of a text route's generator stand at the route, not inside")
        return self

    @property
    def makes(self) -> MadeKind:
        return self.generator.makes

    @property
    def told_by_text(self) -> bool:
        return True

    @property
    def heeds(self) -> frozenset[Asked]:
        return self.generator.heeds

    @property
    def condition(self) -> ConditionShape:
        raise ConfigError("a text route is told by text and takes no condition", where="generator text_route")

    def fetch(self, path: str) -> str | None:
        return self.generator.fetch(path)

    def build(self, folder: Path | None = None) -> TextRoute:
        return TextRoute(self, self.generator.build(folder))


class TextRoute:
    """Encodes a text and hands it on.

    Raises:
        ConfigError: the generator has no text encoder.
    """

    def __init__(self, config: TextRouteConfig, generator: Generator) -> None:
        if not hasattr(generator, "encode_text"):
            raise ConfigError(
                f"generator {config.generator.kind} has no text encoder", where="generator text_route",
                fix="choose one that is steered by texts, such as stable_diffusion",
            )  # fmt: skip
        self.config = config
        self.generator = cast(ReadingGenerator, generator)

    def to(self, device: torch.device) -> TextRoute:
        """Move the generator, where it can be."""
        move = getattr(self.generator, "to", None)
        if move is not None:
            move(device)
        return self

    def speak(self, text: str, making: Making = Making()) -> Made:
        """The text as a medium; see `core.hands.Speaks`."""
        away_BLC = None if making.negative is None else self.generator.encode_text([making.negative])
        return self.generator.generate(self.generator.encode_text([text]), negative_BLC=away_BLC, making=making)[0]

    def generate(self, condition_BLC: Tensor, *, negative_BLC: Tensor | None = None, making: Making = Making()) -> list[Made]:
        """Refused.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a text route is told by text and takes no condition", where="generator text_route")
