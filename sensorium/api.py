"""`sensorium.load(...)`: one object that answers, scores and embeds."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor

from sensorium.core.batch import Features
from sensorium.core.hands import Making
from sensorium.core.responder import Responder
from sensorium.core.sample import Message, Part, Sample, parse_messages, parse_sample
from sensorium.inference.engine import Answering, Engine
from sensorium.inference.joint_space import PROMPTS, JointSpace, NameRanker
from sensorium.inference.making import Maker
from sensorium.inference.regressing import Room
from sensorium.inference.sampling import Sampling
from sensorium.interop.shipped import SHIPPED, find_model
from sensorium.model.device import choose_device, media_to_device, to_device
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from sensorium.features.store import FeatureStore

__all__ = ["SHIPPED", "Model", "Scores", "find_model", "load"]


@dataclass(frozen=True, slots=True)
class Scores:
    """Teacher-forced scores of a whole conversation.

    `logits_TV[t]` scores the token that follows `token_ids[t]`; `learn[t]` says whether
    `token_ids[t]` belongs to an answer. The logits lie on the model's device.
    """

    token_ids: list[int]
    learn: list[bool]
    logits_TV: Tensor


class Model:
    """A loaded model with its Processor and Engine; inputs follow the model's device."""

    def __init__(self, model: MultimodalModel, tokenizer: Tokenizer) -> None:
        self.network = model
        self.tokenizer = tokenizer
        self.processor = Processor(model.config, tokenizer)
        self.engine = Engine(model, self.processor)

    @property
    def responder(self) -> Responder:
        """What answers requests: the engine, or of a dual encoder what ranks given answers."""
        return self.engine if self.network.config.text_frame is None else NameRanker(self.space)

    def answering(self, sampling: Sampling) -> Responder:
        """What writes answers with these settings; it refuses to if the model only compares."""
        return Answering(self.engine, sampling)

    def keep_features(self, folder: Path | None = None, *, limit_gb: float = 16.0) -> FeatureStore | None:
        """From now on, keep what frozen encoders make of pictures on disk, and find there what training or
        an earlier evaluation of the same tower left; answers stay the same.

        Args:
            folder: where the store lies; None: where training has it.
            limit_gb: the most that it may hold.

        Returns:
            The store, which may be closed; it closes itself at the end of the program. None: the model's
            lanes cannot use one, or the folder cannot be read or made, and standard error says why.
        """
        from sensorium.features.store import FeatureStore, StoreOptions, storable
        from sensorium.interop.cache import features_folder

        kinds, reasons = storable(self.network)
        for reason in reasons:
            print(f"features are not kept: {reason}", file=sys.stderr)
        if not kinds:
            return None
        options = StoreOptions(folder or features_folder(), limit_gb)
        try:
            store = FeatureStore(self.network, kinds, options)
        except OSError as error:
            print(f"features are not kept: {error}", file=sys.stderr)
            return None
        self.network.shelf = self.processor.shelf = store
        return store

    @property
    def space(self) -> JointSpace:
        """The space that a dual encoder has for pictures and texts.

        Raises:
            ConfigError: the model is none.
        """
        return JointSpace(self.network, self.processor)

    def similarity(self, pictures: Sequence[Any], texts: Sequence[str]) -> Tensor:
        """Scores of every picture with every text, (pictures, texts): CLIP's `logits_per_image`.

        Raises:
            ConfigError: the model is no dual encoder.
        """
        space = self.space
        return space.scores(space.pictures(pictures), space.texts(texts))

    def classify(
        self, pictures: Sequence[Any], names: Sequence[str], prompts: Sequence[str] = PROMPTS
    ) -> Tensor:
        """How probable each name is for each picture, (pictures, names).

        Args:
            prompts: sentences with `{}` for the name; a name is the mean of them.

        Raises:
            ConfigError: the model is no dual encoder.
        """
        space = self.space
        scores_MN = space.scores(space.pictures(pictures), space.names(names, prompts))
        return space.probabilities(scores_MN)

    @overload
    def respond(
        self,
        messages: Any,
        *,
        max_tokens: int = ...,
        stream: Literal[False] = ...,
        sampling: Sampling | None = ...,
        root: Path | None = ...,
    ) -> str: ...

    @overload
    def respond(
        self,
        messages: Any,
        *,
        max_tokens: int = ...,
        stream: Literal[True],
        sampling: Sampling | None = ...,
        root: Path | None = ...,
    ) -> Iterator[str]: ...

    def respond(
        self,
        messages: Any,
        *,
        max_tokens: int = 128,
        stream: bool = False,
        sampling: Sampling | None = None,
        root: Path | None = None,
    ) -> str | Iterator[str]:
        """Answer a conversation.

        Args:
            messages: the Sample's own JSON; a medium is a path, bytes, a PIL image or an
                array. A plain string is one user message.
            stream: return an iterator of text pieces instead of the whole text.
            root: folder that relative media paths start from.

        Raises:
            DataError: malformed messages, media that do not decode, or a prompt too long.
        """
        prompt = self.processor.prompt(parse_messages(_as_messages(messages)), root)
        if stream:
            return self.engine.stream(prompt, max_tokens=max_tokens, sampling=sampling)
        ids = self.engine.generate([prompt], max_tokens=max_tokens, sampling=sampling)[0]
        return self.engine.text(self.engine.completed(prompt, ids, max_tokens, sampling))

    def answer(
        self, messages: Any, *, max_tokens: int = 128, sampling: Sampling | None = None, making: Making | None = None,
        root: Path | None = None, speak: bool = False,
    ) -> Message:  # fmt: skip
        """Answer a conversation with all that the model makes: text, and pictures (PIL), sound or video (`Made`). What could
        not be made, or was stopped, is a part `missing` that says why; the rest is there.

        Args:
            messages: as of `respond`.
            making: steps, guidance, size and seed of what is made.
            speak: end with the text as sound, in the voice of the model's hand `audio`, Piper's where it is installed, or eSpeak NG's.

        Raises:
            DataError: as `respond`; a picture that is asked for as tokens (`making.draw`) has no room.
        """
        asked = Sample(parse_messages(_as_messages(messages)), root=root)
        artist = self.engine.artist if making is not None and making.draw else None
        prompt = artist.prompt(asked.messages, root) if artist else self.processor.prompt(asked.messages, root)
        ids = self.engine.generate([prompt], max_tokens=max_tokens, sampling=sampling, making=making)[0]
        maker = Maker(self.network, self.processor, making or Making(), self.engine.maker.failed)
        return Message("assistant", maker.parts(prompt, ids, asked, speak=speak, room=Room(max_tokens - len(ids), sampling)))

    @torch.inference_mode()
    def logits(self, messages: Any, *, root: Path | None = None) -> Scores:
        """Token ids and logits of a conversation, answers included (teacher forcing)."""
        sample = Sample(messages=parse_messages(_as_messages(messages)), root=root)
        example = self.processor.encode(sample)
        batch = self.network.read(to_device(collate([[example]], self.tokenizer.pad_id), self.network.device))
        hidden_BTD = self.network(batch).hidden_BTD
        return Scores(batch.input_ids_BT[0].tolist(), example.learn, self.network.logits(hidden_BTD)[0])

    @torch.inference_mode()
    def embed(self, media: Any | Sequence[Any], *, kind: str = "image") -> list[Features]:
        """Projected features of one or several media, one Features each: what the LLM sees.

        They lie on the model's device. In a list each is a medium: a video of pictures is a list in it, `embed([pictures], kind="video")`.
        """
        items = list(media) if isinstance(media, list | tuple) else [media]
        out: list[Features] = []
        for item in items:
            sample = parse_sample(
                {"messages": [{"role": "user", "content": [Part(kind, item)]}]}, where=kind
            )
            example = self.processor.encode(sample)
            there = media_to_device(example.media, self.network.device)
            out.append(self.network.features(there)[kind])
        return out


def _as_messages(messages: Any) -> Any:
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else messages


def load(name: str | Path, device: str = "auto") -> Model:
    """Load `nano`, a folder saved by Sensorium, or a hub id of such a folder.

    Args:
        device: `auto` (the best there is), `cpu`, `cuda`, `cuda:1`, `mps`, ...

    Raises:
        ConfigError: this machine has no such device.
        WeightsError: there is no such model, or its files are damaged.
    """
    from sensorium.interop.saved import load_model

    # Chosen first: a wrong name should not cost the time of reading the weights.
    target = choose_device(device)
    network, tokenizer = load_model(find_model(name))
    return Model(network.to(target), tokenizer)
