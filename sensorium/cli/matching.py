"""`match`: which of several texts fits a picture, by a dual encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sensorium.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class MatchOptions:
    """Who compares, where, and what with."""

    model: str
    device: str
    prompts: tuple[str, ...] = ()
    """Sentences with `{}`: the texts are names, each the mean of these about it."""
    together: bool = False
    """Read picture and text together, where the model can."""


def match_command(picture: str, texts: Sequence[str], options: MatchOptions, as_json: bool) -> None:
    """Print the texts, the fittest first."""
    from sensorium.api import load
    from sensorium.cli.main import print_json
    from sensorium.media.image import load_image

    if options.together and options.prompts:
        raise ConfigError("--prompt and --together", expected="one of them", fix="write whole sentences as texts")
    # Before the weights are read: a wrong path should not cost that time.
    load_image(picture)
    space = load(options.model, options.device).space
    if options.together:
        scores = probabilities = space.matches([picture] * len(texts), texts)
    else:
        texts_NJ = space.names(texts, options.prompts) if options.prompts else space.texts(texts)
        scores_MN = space.scores(space.pictures([picture]), texts_NJ)
        scores, probabilities = scores_MN[0], space.probabilities(scores_MN)[0]
    rows = sorted(zip(texts, scores.tolist(), probabilities.tolist(), strict=True), key=lambda row: -row[1])
    if as_json:
        print_json([{"text": t, "score": s, "probability": p} for t, s, p in rows])
        return
    for text, score, probability in rows:
        print(f"{probability:7.1%}  {score:9.4f}  {text}")
