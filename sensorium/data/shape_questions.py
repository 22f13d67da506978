"""Questions about described shapes that want words, not a picture: what to draw must not be taken for a wish to have it drawn."""

from __future__ import annotations

import random

from sensorium.data.scenes import COLORS

ROUND = ("circle", "ring")
FORMS = (
    "What color is {text}?", "What shape is {text}?", "Is {text} round? Answer yes or no.", "Is {text} {color}? Answer yes or no.",
    "Write down these words: {text}.", "Say again: {text}.", "Is drawing {text} the same as painting it? Answer yes or no.",
    "Which word is a shape in the request to draw {text}?", "How do I draw {text}?", "Write a sentence about {text}.",
)  # fmt: skip


def question_about(rng: random.Random, name: str, text: str) -> tuple[str, str]:
    """A question and its right answer.

    Args:
        name: a colour and a shape.
        text: the same with its article.
    """
    color, _, shape = name.partition(" ")
    # The right colour every other time.
    other = color if rng.random() < 0.5 else rng.choice([c for c in COLORS if c != color])
    number = rng.randrange(len(FORMS))
    answers = (color, shape, _yes(shape in ROUND), _yes(other == color), text, text, "no", shape,
               f"Take a {color} pen, draw the outline of the {shape} and fill it.", f"There is {text}.")  # fmt: skip
    return FORMS[number].format(text=text, color=other), answers[number]


def _yes(right: bool) -> str:
    return "yes" if right else "no"
