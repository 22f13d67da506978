"""Training data in which experts' words stand in place of pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from sensorium.core.sample import Sample
from sensorium.data.config import AnySource, SourceConfig
from sensorium.data.source import Over, Source
from sensorium.experts.base import AnyExpert, Panel


class ExpertSource(SourceConfig):
    """Another source, told by experts: for language models that take no pictures."""

    kind: Literal["experts"] = "experts"
    source: AnySource
    experts: tuple[AnyExpert, ...]

    def open(self) -> Source:
        return Told(self.source.open(), Panel.of(self.experts))


class Told(Over):
    """A source's Samples as a panel tells them."""

    def __init__(self, source: Source, panel: Panel) -> None:
        super().__init__(source, "told")
        self._panel = panel

    def __getitem__(self, index: int) -> Sample:
        sample = self._source[index]
        return replace(sample, messages=self._panel.told(sample.messages, sample.root))
