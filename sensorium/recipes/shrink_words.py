"""The tiny form of an LLM that reads and writes pictures as tokens: bytes, its markers, and behind them words of codes."""

from __future__ import annotations

from typing import Any

from sensorium.core.parts import BackboneConfig
from sensorium.media.native import NativeResolution
from sensorium.model.config import ModelConfig
from sensorium.model.picture_words import CodeTablesConfig, PictureWordsConfig, marks

CODE_WIDTH = 4


def tiny_words(config: ModelConfig, bytes_: int) -> PictureWordsConfig:
    """A tiny tokenizer; small pictures, of several sizes where the full form takes them.

    Args:
        bytes_: words in front of the markers.
    """
    told = config.picture_words
    assert told is not None, "a model without picture words"
    tokenizer = type(told.tokenizer).tiny()
    changes: dict[str, Any] = {"tokenizer": tokenizer}
    if told.words:
        changes["words"] = ((bytes_ + len(marks(told, config.template)), tokenizer.codes),)
    if told.tables:
        changes["tables"] = CodeTablesConfig(width=CODE_WIDTH, depth=told.tables.depth)
    if isinstance(told.resolution, NativeResolution):
        changes["resolution"] = NativeResolution(patch_px=tokenizer.stride, merge=1, min_pixels=8**2, max_pixels=12**2)
    return told.model_copy(update=changes)


def words_backbone(config: ModelConfig, small: BackboneConfig, bytes_: int) -> BackboneConfig:
    """The tiny LLM with rows for markers and words; another one as it is."""
    told = config.picture_words
    if told is None:
        return small
    added = marks(told, config.template)
    rows = bytes_ + len(added) + (type(told.tokenizer).tiny().codes if told.words else 0)
    arch: dict[str, Any] = {**small.to_dict()["arch"], "vocab_size": rows, "pad_token_id": 0}
    # Dropout would hide that what is frozen gives the same twice.
    arch |= {"attention_dropout": 0.0} if "attention_dropout" in arch else {}
    return type(small).from_dict({**small.to_dict(), "arch": arch, "added_tokens": added})
