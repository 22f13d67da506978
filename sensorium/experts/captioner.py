"""A captioner: any model of ours that is asked to describe a picture."""

from __future__ import annotations

from typing import Any, Literal

from sensorium.experts.base import ExpertConfig, Look
from sensorium.media.image import Image


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

        model = load(self.model, self.device)

        def look(image: Image) -> str:
            content: list[dict[str, Any]] = [
                {"type": "image", "image": image.to_pil()},
                {"type": "text", "text": self.question},
            ]
            messages = [{"role": "user", "content": content}]
            return model.respond(messages, max_tokens=self.max_tokens)

        return look
