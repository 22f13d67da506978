"""`ask --choices`: the likeliest answer of a file of answers."""

from __future__ import annotations

from sensorium.cli.answering import Answerer, AnswerOptions, asked_turn
from sensorium.core.errors import ConfigError

SHOWN = 5
"""Answers that are printed as JSON."""


def choose_command(picture: str, question: str | None, options: AnswerOptions, choices: tuple[str, ...], as_json: bool) -> None:
    """Print the likeliest of the choices; as JSON, the likeliest few with their scores.

    Raises:
        ConfigError: a temperature or beams, which are for who writes, beside what `Answerer` raises.
    """
    from sensorium.cli.main import print_json
    from sensorium.inference.ranking import Ranker

    for name, given, usual in (("--temperature", options.temperature, 0), ("--beams", options.beams, 1)):
        if given != usual:
            raise ConfigError(f"{name} {given} with --choices, where nothing is written", expected="one of them")
    answerer = Answerer(options, looks=question is not None)
    messages = answerer.told([asked_turn(picture, question)])
    engine = answerer.loaded.engine
    found = Ranker(engine).rank(engine.processor.prompt(messages), choices)
    if not as_json:
        print(choices[found.places[0]])
        return
    best = [{"text": choices[i], "score": s} for i, s in zip(found.places, found.scores, strict=True)]
    print_json({"answer": choices[found.places[0]], "model": options.model, "choices": best[:SHOWN]})
