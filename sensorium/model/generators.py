"""What makes media, built when something is made for the first time.

A generator is no part of the model that is counted: its weights are its source's. One that an objective has taught is
saved beside the model's own weights, and comes from there again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from sensorium.core.errors import ConfigError, WeightsError
from sensorium.core.hands import Generator, GeneratorConfig, Speaks
from sensorium.core.hashing import sha256_bytes
from sensorium.core.naming import of_other
from sensorium.core.weights import WeightSource, with_fetch
from sensorium.generators import GENERATORS
from sensorium.model.origin import forget_origin

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from sensorium.model.config import ModelConfig

Locate = Callable[[tuple[WeightSource, ...]], Path | None]


class Taught(Protocol):
    """A generator of which a part can learn."""

    @property
    def decoder(self) -> nn.Module: ...
    def save(self, folder: Path) -> None: ...


class Published(Taught, Protocol):
    """One that authors publish inside a checkpoint of the whole system."""

    @property
    def network(self) -> nn.Module:
        """What such a checkpoint holds of it."""
        ...


class Generators:
    """The generators of one model, by the kind of what they make, or the name of its second way."""

    def __init__(self, config: ModelConfig, folders: Mapping[str, Path]) -> None:
        self._config = config
        self._known = all_generators(config)
        self._folders = folders
        self._built: dict[str, Generator] = {}
        self._voice: Speaks | None = None
        self._first: dict[str, str] = {}
        """What those that may learn were like before (`watch`)."""
        self._own: set[str] = set()
        """Kinds whose generator comes from beside the model's own weights."""
        self.locate: Locate | None = None
        """Finds the folder of a source of weights; who knows of hubs and wheels sets it."""

    def __getitem__(self, kind: str) -> Generator:
        """The generator of a kind of medium, or of its second way.

        Raises:
            ConfigError: the model makes none, or what it needs is not installed.
            WeightsError: its weights cannot be had.
        """
        if kind not in self._known:
            known = ", ".join(sorted(self._config.hands)) or "text only"
            raise ConfigError(f"this model does not make {kind}", expected=known)
        if kind not in self._built:
            self._built[kind] = self._known[kind].build(self._folder(kind))
        return self._built[kind]

    def _folder(self, kind: str) -> Path | None:
        """Where a kind's weights lie; None: none are named."""
        config, folder = self._known[kind], self._folders.get(f"generators.{kind}")
        if folder is not None or not config.weights or self.locate is None:
            return folder
        try:
            return self.locate(config.weights)
        except WeightsError as error:
            raise with_fetch(error, config.weights, config.fetch).at(f"generators.{kind}") from None

    def watch(self, module: nn.Module) -> None:
        """Remember what a generator is like whose layers an objective may teach: if it is another one when the model is saved,
        it is saved, too."""
        for kind, built in self._built.items():
            if getattr(built, "decoder", None) is module and kind not in self._first:
                self._first[kind] = _digest(cast(Taught, built))

    def ready(self, kind: str) -> bool:
        """Whether there is anything to make a medium from this way: an index, where pictures are found."""
        config = self._known[kind]
        return not config.needs_folder or kind in self._built or f"generators.{kind}" in self._folders or bool(config.weights)

    def on(self, kind: str, device: torch.device) -> Generator:
        """The generator of a kind of medium, on a device where it can be moved to one."""
        generator = self[kind]
        move = getattr(generator, "to", None)
        if move is not None:
            move(device)
        return generator

    def voice(self) -> Speaks:
        """What says an answer's text: that of the hand `audio` where it is a voice; Piper's where the extra `voice` is installed,
        for it is understood better; or eSpeak NG.

        Raises:
            MissingDependencyError: eSpeak NG is not installed.
            WeightsError: the hand's weights cannot be had.
        """
        hand = self._config.hands.get("audio")
        if hand is not None and hand.generator.told_by_text:
            return cast(Speaks, self["audio"])
        if self._voice is None:
            from sensorium.generators.piper import PiperConfig

            config = PiperConfig() if PiperConfig.installed() else GENERATORS.find("espeak")()
            self._voice = cast(Speaks, config.build())
        return self._voice

    def put(self, kind: str, generator: Generator) -> None:
        """Use this one: an index that was just built, say."""
        self._built[kind] = generator

    def own(self, kind: str) -> None:
        """Build a kind's generator as one whose weights are the model's own, are filled in, and are saved with it."""
        self._own.add(kind)
        if kind not in self._built:
            folder, config = self._folder(kind), self._known[kind]
            self._built[kind] = config.blank() if folder is None else config.build(folder)

    def tensors(self) -> dict[str, Tensor]:
        """What checkpoints of the whole system hold of the generators whose weights are the model's own: `generators.KIND.NAME`."""
        networks = {kind: cast(Published, self[kind]).network for kind in sorted(self._own) if hasattr(self[kind], "network")}
        return {f"generators.{kind}.{name}": value for kind, network in networks.items() for name, value in network.state_dict().items()}

    def save(self, folder: Path) -> list[str]:
        """Write those that have learnt, each into a folder of its kind.

        Returns:
            The kinds without which the model is not whole; an index can be made anew.
        """
        saved: list[str] = []
        for kind in self._known:
            changed = kind in self._first and _digest(cast(Taught, self._built[kind])) != self._first[kind]
            if changed or kind in self._own:
                cast(Taught, self[kind]).save(folder / kind)
                forget_origin(folder / kind)
                saved += [] if self._known[kind].needs_folder else [kind]
        return saved

    def saved_in(self, folder: Path, start: ModelConfig | None = None) -> None:
        """Take from here what `save` wrote, if anything.

        Args:
            start: of another model, which this one only starts from: its generators of other forms are left, and its index
                of pictures, which is of its own vectors.
        """
        found = {kind for kind in self._known if (folder / kind).is_dir()}
        if start is not None:
            theirs = all_generators(start)
            found = {kind for kind in found if theirs.get(kind) == self._known[kind] and not self._known[kind].needs_folder}
        self._own |= found
        self._folders = {**self._folders, **{f"generators.{kind}": folder / kind for kind in found}}


def all_generators(config: ModelConfig) -> dict[str, GeneratorConfig]:
    """By the kind of what they make, or the name of its second way."""
    first = {kind: hand.generator for kind, hand in config.hands.items()}
    return first | {of_other(kind): hand.other.generator for kind, hand in config.hands.items() if hand.other}


def _digest(generator: Taught) -> str:
    """Tensor by tensor: a UNet is gigabytes."""
    parts = (value.detach().cpu().contiguous().flatten() for value in generator.decoder.state_dict().values())
    return sha256_bytes("".join(sha256_bytes(part.float().numpy().tobytes()) for part in parts).encode())
