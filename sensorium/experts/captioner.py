"""A captioner: any model of ours that is asked to describe a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

from sensorium.experts.base import ExpertConfig, Look
from sensorium.media.image import Image

if TYPE_CHECKING:
    from sensorium.api import Model

_loaded: WeakValueDictionary[tuple[str, str], Model] = WeakValueDictionary()
"""By name and device, as long as somebody uses them: two sources that one model tells hold its weights once."""


class CaptionerConfig(ExpertConfig):
    """`model` is a shipped name, a folder or a hub id."""

    kind: Literal["captioner"] = "captioner"
    label: str = "Caption"
    model: str = "nano"
    question: str = "Describe the picture."
    max_tokens: int = 48
    device: str = "auto"

    def build(self) -> Look:
        from sensorium.api import load

        model = _loaded.get((self.model, self.device)) or load(self.model, self.device)
        _loaded[self.model, self.device] = model

        def look(image: Image) -> str:
            content: list[dict[str, Any]] = [
                {"type": "image", "image": image.to_pil()},
                {"type": "text", "text": self.question},
            ]
            messages = [{"role": "user", "content": content}]
            return model.respond(messages, max_tokens=self.max_tokens)

        return look
