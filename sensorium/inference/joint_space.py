"""Pictures and texts in the space that a dual encoder has for both: scores and zero-shot names.

Source: CLIP (arXiv:2103.00020), section 3.1: a class is the mean of what several sentences about it
embed to.

Shape legend: M pictures, N texts, J width of the space. Pictures of a Q-Former have a vector for each of Q
queries: (M, Q, J) where (M, J) is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sensorium.core.batch import Example
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.responder import Answer, Request
from sensorium.core.sample import Message, Part, Sample
from sensorium.model.device import media_to_device, to_device
from sensorium.model.joint import joint_parts, picture_vectors, reading_parts, text_vectors
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor

PROMPTS = ("a photo of a {}.",)


class JointSpace:
    """Embeds with one model; vectors have length 1 and lie on its device."""

    def __init__(self, model: MultimodalModel, processor: Processor, *, batch_size: int = 32) -> None:
        """Take a model.

        Raises:
            ConfigError: it is not a dual encoder.
        """
        self.tower, self.scorer = joint_parts(model)
        self.model = model.eval()
        # Rows of training data may ask for another template; a text alone is written by this one.
        self.processor = processor.with_template("pair")
        self.batch_size = batch_size

    @torch.inference_mode()
    def pictures(self, pictures: Sequence[Any], root: Path | None = None) -> Tensor:
        """(M, J) of paths, bytes, PIL images or arrays."""
        found = [self._encode("user", Part("image", picture), root) for picture in pictures]
        rows = [self.model.features(media_to_device(e.media, self.model.device))["image"] for e in found]
        return F.normalize(torch.cat([picture_vectors(self.model, row) for row in rows]), dim=-1)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """(N, J); a text that is too long is cut, as the originals do."""
        found = [self._encode("assistant", Part("text", text), None) for text in texts]
        rows: list[Tensor] = []
        for start in range(0, len(found), self.batch_size):
            group = [[example] for example in found[start : start + self.batch_size]]
            batch = to_device(collate(group, self.processor.tokenizer.pad_id), self.model.device)
            rows.append(text_vectors(self.tower, batch))
        return F.normalize(torch.cat(rows), dim=-1)

    @torch.inference_mode()
    def names(self, names: Sequence[str], prompts: Sequence[str] = PROMPTS) -> Tensor:
        """(N, J): each name is the mean of sentences about it.

        Args:
            prompts: the sentences, with `{}` where the name stands.

        Raises:
            ConfigError: a prompt has no place for the name.
        """
        for prompt in prompts:
            if "{}" not in prompt:
                raise ConfigError(f"prompt {prompt!r} has no place for a name", expected="{} in it")
        written = [prompt.replace("{}", name) for name in names for prompt in prompts]
        mean_NJ = self.texts(written).unflatten(0, (len(names), len(prompts))).mean(dim=1)
        return F.normalize(mean_NJ, dim=-1)

    @torch.inference_mode()
    def scores(self, pictures_MJ: Tensor, texts_NJ: Tensor) -> Tensor:
        """The model's own scores, (M, N): cosines with its factor, and its bias if it has one."""
        return self.scorer.scores(pictures_MJ, texts_NJ)

    @torch.inference_mode()
    def probabilities(self, scores_MN: Tensor) -> Tensor:
        """Of each text among the others; where the scores have a bias, each by itself."""
        return scores_MN.softmax(dim=-1) if self.scorer.logit_bias is None else scores_MN.sigmoid()

    @torch.inference_mode()
    def matches(self, pictures: Sequence[Any], texts: Sequence[str], root: Path | None = None) -> Tensor:
        """How probably each picture and the text at its place belong together, read together, (M,).

        Raises:
            ConfigError: the model only compares vectors.
            DataError: there are not as many texts as pictures.
        """
        reader, scorer = reading_parts(self.model)
        if len(pictures) != len(texts):
            raise DataError(f"{len(texts)} texts for {len(pictures)} pictures", expected="as many")
        out: list[Tensor] = []
        for picture, text in zip(pictures, texts, strict=True):
            messages = (Message("user", (Part("image", picture),)), Message("assistant", (Part("text", text),)))
            example = self.processor.encode(Sample(messages=messages, root=root))
            batch = to_device(collate([[example]], self.processor.tokenizer.pad_id), self.model.device)
            context = scorer.context(self.model.features(batch.media), batch.media, len(batch.input_ids_BT))
            media = scorer.inserter(context, batch.media_index_BT, batch.slots)
            assert media is not None
            out.append(reader.matches(batch, media).softmax(dim=-1)[:, 1])
        return torch.cat(out)

    def _encode(self, role: str, part: Part, root: Path | None) -> Example:
        return self.processor.encode(Sample(messages=(Message(role, (part,)),), root=root))


class NameRanker:
    """A Responder that chooses: of the answers that a request allows, the one nearest to its picture."""

    def __init__(self, space: JointSpace, prompts: Sequence[str] = PROMPTS) -> None:
        self.space = space
        self.prompts = tuple(prompts)
        self._embedded: dict[tuple[str, ...], Tensor] = {}

    def respond(self, requests: Sequence[Request]) -> Iterator[Answer]:
        """One of each request's choices; nothing where there is no picture to compare with.

        Raises:
            DataError: a request has no choices.
        """
        for request in requests:
            if not request.choices:
                raise DataError(
                    f"request {request.id!r} wants a text in free words from a model that only compares",
                    expected="answers to choose from",
                    fix="ask for benchmarks with choices: naming and category",
                )
            pictures = [p.value for m in request.messages for p in m.content if p.type == "image"]
            yield Answer(request.id, self._choose(request, pictures) if pictures else "")

    def _choose(self, request: Request, pictures: list[Any]) -> str:
        if request.choices not in self._embedded:
            self._embedded[request.choices] = self.space.names(request.choices, self.prompts)
        seen_MJ = self.space.pictures(pictures, request.root)
        scores_N = self.space.scores(seen_MJ, self._embedded[request.choices]).mean(dim=0)
        return request.choices[int(scores_N.argmax())]
