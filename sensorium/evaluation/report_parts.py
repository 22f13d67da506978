"""What an answer holds, as HTML that needs no other file: text, pictures, sound, video, and what could not be made.

Shape legend: N samples of sound.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image as PILImage

from sensorium.core.hands import Made
from sensorium.core.responder import Answer
from sensorium.core.sample import LOCATED_KINDS, MISSING, Part
from sensorium.media.audio_file import wav_bytes
from sensorium.media.image import load_image

THUMBNAIL_PX = 132
LONGEST_S = 10.0
"""Of sound that is shown."""
RATE_HZ = 16_000
"""Sound of more samples a second is halved until it has no more: a report is looked at, and sent."""
FRAMES = 24
"""Of a video that is shown."""


def answer_html(answer: Answer) -> str:
    """The answer in the order of its parts. Places are words here; they are drawn over the picture they lie in."""
    shown = [_part(part) for part in answer.parts] or [f"<b>{html.escape(answer.text)}</b>" if answer.text else ""]
    return " ".join(filter(None, shown)) or "<b>—</b>"


def thumbnail(pictures: Sequence[PILImage.Image], duration_ms: int = 0) -> str:
    """A small picture; of several, one that moves."""
    small = [picture.convert("RGB") for picture in pictures]
    for picture in small:
        picture.thumbnail((2 * THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    moving: dict[str, Any] = {"save_all": True, "append_images": small[1:], "duration": duration_ms, "loop": 0} if len(small) > 1 else {}
    small[0].save(buffer, "WEBP", quality=75, **moving)
    return f"<img alt='' src='data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"


def _part(part: Part) -> str:
    notes = [part.prompt, None if part.source is None else f"found: {part.source}"]
    told = "".join(f"<div class=dim>{html.escape(note)}</div>" for note in notes if note)
    if part.type == "text":
        return f"<b>{html.escape(part.value)}</b>" if part.value else ""
    if part.type == "image":
        return thumbnail([load_image(part.value).to_pil()]) + told
    if part.type == "audio":
        return _sound(part.value) + told
    if part.type == "video":
        return _video(part.value) + told
    if part.type == MISSING:
        return f"<div class=lost>no {html.escape(part.value['kind'])}: {html.escape(part.value['error'])}</div>" + told
    if part.type in LOCATED_KINDS:
        count = 1 if part.type == "mask" else len(part.value["places"])
        noun = {"mask": "mask", "boxes": "box", "points2d": "point"}[part.type]
        phrase = f" ({part.value['phrase']})" if part.value.get("phrase") else ""
        return f"<span class=dim>[{noun if count == 1 else f'{count} {part.type}'}{html.escape(phrase)}]</span>"
    return f"<span class=dim>[{html.escape(part.type)}]</span>"


def _sound(made: Made) -> str:
    samples_N, rate_hz = made.array, made.sample_rate_hz
    assert rate_hz is not None
    seconds = len(samples_N) / rate_hz
    samples_N = samples_N[: int(LONGEST_S * rate_hz)]
    while rate_hz > RATE_HZ and rate_hz % 2 == 0:
        samples_N = samples_N[: len(samples_N) // 2 * 2].reshape(-1, 2).mean(axis=1)
        rate_hz //= 2
    encoded = base64.b64encode(wav_bytes(samples_N, rate_hz)).decode()
    cut = f"<div class=dim>the first {LONGEST_S:.0f} of {seconds:.0f} seconds</div>" if seconds > LONGEST_S else ""
    return f"<audio controls preload=none src='data:audio/wav;base64,{encoded}'></audio>{cut}"


def _video(made: Made) -> str:
    step = -(-len(made.array) // FRAMES)
    frames = [PILImage.fromarray(np.ascontiguousarray(frame)) for frame in made.array[::step]]
    return thumbnail(frames, round(1000 * step / (made.fps or 8)))
