"""The videos of a Sample as their frames: pictures one behind the other, between tokens that say what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sensorium.core.sample import Message, Part, Sample
from sensorium.core.video import VideoConfig
from sensorium.media.limits import ImageLimits
from sensorium.media.video import frames_of
from sensorium.processing.signals import is_made
from sensorium.text.render import TOKEN


def with_frames(sample: Sample, video: VideoConfig | None, made: Mapping[str, bool], limits: ImageLimits) -> Sample:
    """The Sample without videos, where the model reads them so; those that it makes stay what they are.

    Raises:
        MediaError: one cannot be read.
    """
    if video is None or not any(part.type == "video" for part in sample.media()):
        return sample
    messages: list[Message] = []
    for message in sample.messages:
        parts: list[Part] = []
        for part in message.content:
            if part.type != "video" or is_made(message, part, made):
                parts.append(part)
                continue
            frames = frames_of(part.value, video.frames, video.pick, root=sample.root, limits=limits)
            parts += [Part(TOKEN, token) for token in video.begin]
            # What an answer holds is learned as a picture is.
            pool = 1 if message.role == "assistant" else video.pool
            parts += [Part("image", frame, pool=pool) for frame in frames]
            parts += [Part(TOKEN, token) for token in video.end]
        messages.append(Message(message.role, tuple(parts)))
    return replace(sample, messages=tuple(messages))
