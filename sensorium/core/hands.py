"""The promises of output projectors and generators: from an LLM's hidden states to a condition, from a condition to a medium.

Shape legend: B items, K signal tokens, D LLM width, L condition tokens, C condition width, or colours beside H/W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from pydantic import Field

from sensorium.core.config import Config
from sensorium.core.errors import ConfigError
from sensorium.core.parts import PartConfig
from sensorium.core.weights import WeightSource

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from sensorium.core.boxes import Box

MadeKind = Literal["image", "audio", "video", "mask"]
Asked = Literal["steps", "guidance", "size", "negative", "seed"]
"""What of a `Making` somebody may ask for."""
Space = Literal["llm", "encoder"]
"""Where embeddings of pictures lie: as the LLM reads them, or as the encoder makes them."""


@dataclass(frozen=True, slots=True)
class ConditionShape:
    """What a generator is steered by: so many vectors of such a width."""

    length: int
    width: int


@dataclass(frozen=True, slots=True)
class Made:
    """One medium that a generator made.

    `array` is uint8: (H, W, 3) of an image, (F, H, W, 3) of a video; float32 in -1..1, (N,) of audio; bool, (H, W), of a
    mask of a picture.
    """

    kind: MadeKind
    array: np.ndarray[Any, Any]
    sample_rate_hz: int | None = None
    fps: float | None = None
    source: str | None = None
    """Of what was found, not made: its id in the index."""
    similarity: float | None = None
    """Of what was found: its cosine with what was looked for."""


class HandShape(Protocol):
    """What the Processor must know of how a medium is made."""

    @property
    def signals(self) -> tuple[str, ...]: ...
    @property
    def feeds_back(self) -> bool: ...
    @property
    def told(self) -> bool: ...


class Drawing(Config):
    """How an LLM chooses a picture's tokens; temperature 0 takes the likeliest.

    Scores are led away from those of a prompt that says less: `u + guidance * (c - u)`.
    """

    guidance: float = 1.0
    """1: nothing is led away from."""
    picture_guidance: float | None = None
    """Of the prompt's pictures, where `away` is `pictures`, against nothing; `guidance` is then that of its text against
    them (arXiv:2211.09800)."""
    away: Literal["text", "pads", "pictures"] = "text"
    """What is led away from. `text`: a prompt that says `negative`; `pads`: the prompt with padding in place of all but its
    first token and the picture's markers (Janus); `pictures`: its pictures alone, and these from nothing (Chameleon)."""
    negative: str = ""
    temperature: float = Field(default=1.0, ge=0.0)
    top_k: int = Field(default=0, ge=0)
    """0: all codes."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)


class CancelledError(Exception):
    """Somebody asked a generator to stop; nothing was made."""


@dataclass(frozen=True, slots=True)
class Making:
    """How to make a medium. The same numbers and condition give the same medium on the same kind of device."""

    steps: int = 50
    guidance: float = 7.5
    """Weight of the condition against the negative one; 1: the negative one is not looked at."""
    picture_guidance: float = 1.5
    """Of generators that edit: weight of the picture that is looked at against none."""
    size: tuple[int, int] | None = None
    """Height and width in pixels; None: the generator's own."""
    seconds: float | None = None
    """Of audio and video; None: the generator's own."""
    seed: int = 0
    progress: Callable[[int, int], None] | None = field(default=None, compare=False)
    """Called with steps done and steps in all."""
    draw: bool = False
    """Of an LLM that writes pictures as tokens: an answer begins with one."""
    drawing: Drawing | None = None
    """How such tokens are chosen; None: the model's own way."""
    cancelled: Callable[[], bool] | None = field(default=None, compare=False)
    """Asked after each step; true ends the work with `CancelledError`."""
    without: tuple[str, ...] = ()
    """Ids that are not to be found again, by generators that find: what was shown already."""
    pictures: tuple[np.ndarray[Any, Any], ...] = field(default=(), compare=False)
    """What is looked at, by generators that look at pictures: uint8 (H, W, 3), one for all items or one for each."""
    negative: str | None = None
    """What is led away from, in words; None: a generator's own. Generators that take a condition get one of it (`negative_BLC`)."""

    def pictures_of(self, items: int, where: str) -> tuple[np.ndarray[Any, Any], ...]:
        """The picture that each item looks at.

        Raises:
            ConfigError: there is none, or they are neither one nor one for each.
        """
        if len(self.pictures) not in (1, items):
            raise ConfigError(f"{len(self.pictures)} pictures for {items} items", where=where, expected="one for all, or one for each")
        return self.pictures * items if len(self.pictures) == 1 else self.pictures


class Generator(Protocol):
    """Makes media from conditions."""

    def generate(self, condition_BLC: Tensor, *, negative_BLC: Tensor | None = None, making: Making = Making()) -> list[Made]:
        """One medium for each item of the condition.

        Args:
            negative_BLC: what to lead away from; None: the generator's own (of a diffusion pipeline, its empty text).

        Raises:
            ConfigError: a condition of another shape, or a size that it cannot make.
            CancelledError: somebody asked to stop.
            GenerationError: it failed on its way; the message names the step.
        """
        ...


@runtime_checkable
class Speaks(Protocol):
    """What makes a medium of a text, and has no condition."""

    def speak(self, text: str, making: Making = Making()) -> Made:
        """The text as a medium.

        Raises:
            ConfigError: a text that it cannot say.
            CancelledError: somebody asked to stop.
        """
        ...


@runtime_checkable
class Cuts(Protocol):
    """What makes masks of boxes: which pixels in a box belong to what fills it."""

    def cut(self, picture_HWC: NDArray[np.uint8], boxes: Sequence[Box], making: Making = Making()) -> list[Made]:
        """A mask of the whole picture, (H, W), for each box, which is in the picture's own pixels.

        Raises:
            ConfigError: the picture is no uint8 (H, W, 3).
            CancelledError: somebody asked to stop.
            GenerationError: it failed, and made nothing.
        """
        ...


class ReadingGenerator(Generator, Protocol):
    """One that has a text encoder of its own."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """What it is steered by for each text, (B, L, C)."""
        ...


class GeneratorConfig(PartConfig):
    """A condition -> a medium."""

    weights: tuple[WeightSource, ...] = ()
    """Where the pipeline's folder may come from; the first that is reachable wins."""

    @property
    def makes(self) -> MadeKind:
        """What comes out."""
        raise TypeError(f"{type(self).__name__} does not define makes")

    @property
    def looks(self) -> bool:
        """True: it looks at a picture (`Making.pictures`), that which is masked or edited."""
        return False

    @property
    def heeds(self) -> frozenset[Asked]:
        """What of a `Making` makes a difference to it, or is refused where it cannot be; the rest changes nothing."""
        return frozenset()

    @property
    def needs_folder(self) -> bool:
        """True: it makes nothing of itself, such as an index without pictures."""
        return False

    @property
    def told_by_text(self) -> bool:
        """True: it builds what `Speaks` promises, and there is no condition."""
        return False

    @property
    def cuts_boxes(self) -> bool:
        """True: it builds what `Cuts` promises, so that a hand needs no signals: each box of an answer gets its mask."""
        return False

    @property
    def condition(self) -> ConditionShape:
        """What goes in.

        Raises:
            ConfigError: nothing does; it is told by text (`Speaks`).
        """
        raise TypeError(f"{type(self).__name__} does not define condition")

    def fetch(self, path: str) -> str | None:
        """What brings weights to this path, a command where they are published; None: nothing is known."""
        del path
        return None

    def build(self, folder: Path | None = None) -> Generator:
        """The generator, with the weights that lie in `folder` in the original's layout, or random ones, which those are refused that
        are published and would make noise.

        Raises:
            MissingDependencyError: the extra that it needs is not installed; the message has the command.
            WeightsError: the folder or a component is missing; the message names it, and what brings it.
        """
        raise TypeError(f"{type(self).__name__} does not define build()")

    def blank(self) -> Generator:
        """The generator with random weights of whatever size, for weights that are filled in afterwards."""
        return self.build()


class OutputProjectorConfig(PartConfig):
    """Hidden states of signal tokens -> a condition."""

    @property
    def adds_embeddings(self) -> bool:
        """True: what goes in is the hidden state plus the token's own input embedding (GILL, NExT-GPT)."""
        return False

    @property
    def reads_before(self) -> bool:
        """True: what goes in are the states that predict the signal tokens, each one place before its
        token (MiniGPT-5, LISA). False: those at the tokens (FROMAGe, GILL, NExT-GPT)."""
        return False

    @property
    def has_negative(self) -> bool:
        """True: what the module makes of zeros in place of hidden states is what a generator is led away from
        (MiniGPT-5, MGIE). False: that is the generator's own."""
        return False

    @property
    def feeds_back(self) -> Space | None:
        """Where the LLM reads each vector of the condition before it makes the next (Emu): in its own space, or in the
        encoder's, from which the lane's projector brings it. There are two signal tokens then, and the vectors stand between
        them. None: all vectors are made at once."""
        return None

    def build(self, d_model: int, signals: int, condition: ConditionShape) -> nn.Module:
        """The module `forward(hidden_BKD) -> condition_BLC`.

        Args:
            signals: K, how many tokens stand for one medium.

        Raises:
            ConfigError: it cannot make a condition of this shape of so many tokens.
        """
        raise TypeError(f"{type(self).__name__} does not define build()")
