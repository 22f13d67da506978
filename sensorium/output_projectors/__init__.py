"""Output projectors: hidden states of signal tokens -> what a generator is steered by."""

from sensorium.core.tables import NameTable

OUTPUT_PROJECTORS = NameTable("output projector", {})
