"""Build a model with the pretrained weights that its config names."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

from sensorium.core.errors import ConfigError, WeightsError
from sensorium.core.naming import of_detail
from sensorium.core.parts import BackboneConfig
from sensorium.core.picture_tokenizer import PictureTokenizerConfig
from sensorium.core.weights import with_fetch
from sensorium.encoders.fused import FusedConfig
from sensorium.generators.seed import SeedTokenizer
from sensorium.interop.locate import locate
from sensorium.model.check import check_model
from sensorium.model.config import ModelConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.text.byte_tokenizer import byte_tokenizer
from sensorium.text.reader import Reader
from sensorium.text.tokenizer import Tokenizer


def part_folders(config: ModelConfig) -> dict[str, Path]:
    """Part name -> local folder, for every part that names a source of weights.

    Raises:
        WeightsError: naming every part none of whose sources can be had.
    """
    wanted: dict[str, Callable[[], Path | None]] = {"backbone": partial(locate, config.backbone.weights)}
    for kind, lane in config.lanes.items():
        encoder = lane.encoder
        wanted[f"encoders.{kind}"] = (
            partial(_fused_folder, encoder)
            if isinstance(encoder, FusedConfig)
            else partial(locate, encoder.weights)
        )
        if lane.detail:
            wanted[f"encoders.{of_detail(kind)}"] = partial(locate, lane.detail.weights)
    if config.picture_words is not None:
        wanted["picture_tokenizer"] = partial(_tokenizer_folder, config.picture_words.tokenizer)
    folders: dict[str, Path] = {}
    errors: list[WeightsError] = []
    for part, find in wanted.items():
        try:
            folder = find()
        except WeightsError as error:
            errors.append(cast(WeightsError, error.at(part)))
            continue
        if folder is not None:
            folders[part] = folder
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise WeightsError("".join(f"\n  {error}" for error in errors), where=f"{len(errors)} parts have no weights")
    return folders


def _tokenizer_folder(config: PictureTokenizerConfig) -> Path | None:
    try:
        return locate(config.weights)
    except WeightsError as error:
        raise with_fetch(error, config.weights, config.fetch) from None


def _fused_folder(config: FusedConfig) -> Path | None:
    """A folder with one link for each tower that has weights."""
    found = {"first": locate(config.first.weights), "second": locate(config.second.weights)}
    if not any(found.values()):
        return None
    folder = Path(tempfile.mkdtemp(prefix="sensorium-fused-"))
    for name, target in found.items():
        if target is not None:
            (folder / name).symlink_to(target.resolve(), target_is_directory=True)
    return folder


def build_pretrained(
    config: ModelConfig, tokenizer_folder: Path | None = None, reader: Reader | None = None
) -> tuple[MultimodalModel, Tokenizer]:
    """The model with pretrained parts and random new ones, and its tokenizer.

    Args:
        tokenizer_folder: where the tokenizer lies, if not with the backbone's weights.
        reader: the tokenizer of a projector that reads, where it is at hand; else it comes from
            beside the LLM's, or from the source that the projector names.

    Raises:
        WeightsError: a part's weights cannot be had.
        ConfigError: parts that do not fit together; with the added tokens the tokenizer has more than the embedding.
    """
    check_model(config)
    folders = part_folders(config)
    tokenizer = completed(_tokenizer(config, folders, tokenizer_folder), config.backbone)
    tokenizer.reader = tokenizer.reader or reader or _reader(config)
    model = MultimodalModel(config, folders).eval()
    # A generator of gigabytes is looked for when something is made, not before.
    model.generators.locate = locate
    if isinstance(model.picture_tokenizer, SeedTokenizer):
        model.picture_tokenizer.locate = locate
    return model, tokenizer


def _tokenizer(config: ModelConfig, folders: dict[str, Path], folder: Path | None) -> Tokenizer:
    if folder is not None:
        return Tokenizer.load(folder)
    folder = folders.get("backbone") or locate(config.backbone.tokenizer_from)
    if config.backbone.tokenizer == "bytes" or folder is None:
        return _bytes(config)
    return Tokenizer.load(folder)


def reads_bytes(config: ModelConfig) -> bool:
    """Whether the language model, from scratch, reads bytes because nothing brings a tokenizer."""
    backbone = config.backbone
    return backbone.tokenizer != "bytes" and not backbone.weights and not backbone.tokenizer_from


def _bytes(config: ModelConfig) -> Tokenizer:
    """The tokenizer of bytes.

    Raises:
        ConfigError: the embedding has fewer rows.
    """
    tokenizer, rows = byte_tokenizer(), config.backbone.vocab_size
    if rows < len(tokenizer):
        raise ConfigError(
            f"vocab_size {rows} for the tokenizer of bytes, which has {len(tokenizer)} tokens",
            where="model.backbone.arch.vocab_size",
            fix=f"raise it to {len(tokenizer)}, or name where the tokenizer lies in tokenizer_from",
        )
    return tokenizer


def _reader(config: ModelConfig) -> Reader | None:
    """The first one that a projector names a source of."""
    for lane in config.lanes.values():
        folder = locate(getattr(lane.projector, "reader", ()))
        if folder is not None:
            return Reader.load(folder)
    return None


def completed(tokenizer: Tokenizer, backbone: BackboneConfig) -> Tokenizer:
    """The tokenizer with the control tokens that the backbone knows beside its own.

    Raises:
        ConfigError: it has more tokens than the embedding has rows.
    """
    added = backbone.added_tokens
    tokenizer.add(added)
    if backbone.begins_with is not None:
        tokenizer.bos_id = tokenizer.special_id(backbone.begins_with)
    if added and len(tokenizer) > backbone.vocab_size:
        raise ConfigError(
            f"{len(tokenizer)} tokens for an embedding of {backbone.vocab_size} rows, "
            f"{', '.join(added)} included",
            where="model.backbone.added_tokens",
            fix="raise vocab_size in the backbone's arch",
        )
    return tokenizer
