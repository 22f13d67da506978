"""One modality's way out of the LLM: the tokens that stand for a medium, what reads them, and what makes it.

Source of the design: GILL (arXiv:2305.17216), NExT-GPT (arXiv:2309.05519).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from pydantic import SerializeAsAny, model_validator
from torch import nn

from sensorium.core.config import Config, kinds
from sensorium.core.errors import ConfigError
from sensorium.core.hands import GeneratorConfig, MadeKind, OutputProjectorConfig
from sensorium.generators import GENERATORS
from sensorium.model.choice import ChoiceConfig
from sensorium.output_projectors import OUTPUT_PROJECTORS

AnyGenerator = Annotated[SerializeAsAny[GeneratorConfig], kinds(GENERATORS, GeneratorConfig)]
AnyOutputProjector = Annotated[SerializeAsAny[OutputProjectorConfig] | None, kinds(OUTPUT_PROJECTORS, OutputProjectorConfig)]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to make a kind of medium of signal tokens."""

    kind: MadeKind
    signals: tuple[str, ...]
    projector: OutputProjectorConfig
    generator: GeneratorConfig

    @property
    def reads(self) -> int:
        """How many states of the LLM make one medium."""
        return self.generator.condition.length if self.projector.feeds_back else len(self.signals)

    def build(self, d_model: int) -> nn.Module:
        """The output projector.

        Raises:
            ConfigError: it cannot make what the generator wants of so many tokens.
        """
        return self.projector.build(d_model, len(self.signals), self.generator.condition)


class OtherConfig(Config):
    """What else reads the states of a hand's signal tokens, and what makes a medium of it."""

    projector: Annotated[SerializeAsAny[OutputProjectorConfig], kinds(OUTPUT_PROJECTORS, OutputProjectorConfig)]
    generator: AnyGenerator


class HandConfig(Config):
    """Signal tokens -> output projector -> generator, or words -> a generator that is told by text."""

    signals: tuple[str, ...] = ()
    """Control tokens that the LLM writes where a medium is to stand, in this order; they are among the backbone's
    `added_tokens`, or in its tokenizer already. Of a generator that is told by text, the two between which the LLM writes
    what it is told; none: it is a voice, which says the answer's text where an answer is to be spoken. Tokens
    of the tokenizer's own between the first and the last mean nothing by themselves (the spaces of NExT-GPT 1.5); they are read with the others."""
    projector: AnyOutputProjector = None
    """None: the generator is told by text."""
    generator: AnyGenerator
    other: OtherConfig | None = None
    """A second way to the same medium by the same tokens, the part `hands.KIND_other` (GILL draws pictures, or finds them)."""
    choice: ChoiceConfig | None = None
    """What decides between both, the part `hands.KIND_choice`; None: the first way is taken."""

    @property
    def feeds_back(self) -> bool:
        """Whether its vectors are made one after another, and each is read before the next; they stand between two
        signals then."""
        return self.projector is not None and self.projector.feeds_back is not None

    @property
    def told(self) -> bool:
        """Whether the LLM writes what the generator is told, between two tokens."""
        return self.generator.told_by_text and bool(self.signals)

    @property
    def reader(self) -> OutputProjectorConfig:
        """The output projector.

        Raises:
            ConfigError: the generator is told by text or by boxes, and there is none.
        """
        if self.projector is None:
            raise ConfigError("no output projector", expected="signals, a projector, and a generator that takes a condition")
        return self.projector

    @model_validator(mode="after")
    def _chooses_between_two(self) -> HandConfig:
        if self.choice is not None and self.other is None:
            raise ValueError("choice without other: there is nothing to choose")
        if self.other is not None and (self.projector is None or self.other.generator.makes != self.generator.makes):
            raise ValueError(f"other by {self.other.generator.kind} beside {self.generator.kind}; both are to take a condition and make the same kind")
        return self

    @model_validator(mode="after")
    def _fits(self) -> HandConfig:
        # Where signals begin and end is found by these tokens alone, and two of a kind side by side are one too many.
        if any(self.signals.count(end) > 1 for end in (*self.signals[:1], *self.signals[-1:])) or any(a == b for a, b in pairwise(self.signals)):
            raise ValueError(f"signals {list(self.signals)} name a token twice")
        kind = self.generator.kind
        if self.generator.cuts_boxes and not self.signals and self.projector is None:
            return self
        if not self.generator.told_by_text:
            if not self.signals or self.projector is None:
                raise ValueError(f"a hand with generator {kind} and without signals or projector; it takes a condition, which a projector makes of signals")
            return self
        if self.projector is not None:
            raise ValueError(f"a projector in front of generator {kind}, which is told by text; leave projector out")
        if len(self.signals) != 2 and (self.signals or self.generator.makes != "audio"):
            raise ValueError(f"{len(self.signals)} signals for generator {kind}, which is told by text; name two, between which the LLM writes "
                             "what it is told" + (", or none for a voice" if self.generator.makes == "audio" else ""))
        return self
