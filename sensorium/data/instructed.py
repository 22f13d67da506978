"""Samples that are told what they are for: a system message in front of rows that have none."""

from __future__ import annotations

from dataclasses import replace

from sensorium.core.sample import Message, Part, Sample
from sensorium.data.source import Over, Source


class Instructed(Over):
    """A source's Samples behind a system message; one that a row has already stays."""

    def __init__(self, source: Source, system: str) -> None:
        super().__init__(source, "instructed")
        self._message = Message("system", (Part("text", system),))

    def __getitem__(self, index: int) -> Sample:
        sample = self._source[index]
        if sample.messages and sample.messages[0].role == "system":
            return sample
        return replace(sample, messages=(self._message, *sample.messages))
