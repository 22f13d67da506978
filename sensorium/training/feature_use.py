"""Whether a stage may use the feature store, and the block in which it does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sensorium.features.store import FeatureStore, StoreOptions, storable, used_by
from sensorium.model.multimodal import MultimodalModel
from sensorium.training.config import StageConfig
from sensorium.training.precision import Chosen, stage_precision

if TYPE_CHECKING:
    from sensorium.training.preflight import StageParts


def why_not(stage: StageConfig) -> str | None:
    """What makes kept features wrong for all of a stage's pictures; None: nothing."""
    if stage.objective.reads_pixels:
        return f"objective {stage.objective.kind!r} compares pictures by their pixels"
    if all(_ever_new(stage, k) for k in range(len(stage.data))):
        return "all pictures are augmented anew each time (set augment.views to see each in a few ways only)"
    return None


@contextmanager
def features_kept(
    stage: StageConfig, model: MultimodalModel, parts: StageParts, folder: Path, fast: Chosen
) -> Iterator[None]:
    """While the block lasts, features of frozen encoders are kept, if the stage asks for it and it is right;
    where it is not, standard error says why.

    Args:
        fast: the run's number format.
    """
    with used_by(model, parts.processor, _open(stage, model, folder, fast)):
        yield


def _open(stage: StageConfig, model: MultimodalModel, folder: Path, fast: Chosen) -> FeatureStore | None:
    if not stage.cache_features:
        return None
    kinds, reasons = kinds_kept(stage, model)
    for reason in reasons:
        print(f"stage {stage.name}: cache_features {_off(kinds)}: {reason}", file=sys.stderr)
    if not kinds:
        return None
    options = StoreOptions(
        folder, stage.feature_store_gb, half=stage.feature_format == "half",
        number_format=stage_precision(stage, fast, model.device).precision,
    )  # fmt: skip
    try:
        return FeatureStore(model, kinds, options)
    except OSError as error:
        print(f"stage {stage.name}: cache_features is off: {error}", file=sys.stderr)
        return None


def kinds_kept(stage: StageConfig, model: MultimodalModel) -> tuple[list[str], list[str]]:
    """Kinds of media whose features a stage keeps where it asks for it, and why it keeps no others."""
    reason = why_not(stage)
    kinds, reasons = ([], [reason]) if reason else storable(model, trains=True)
    if not reason and any(_ever_new(stage, k) for k in range(len(stage.data))):
        reasons.append("pictures of some sources are augmented anew each time; others are kept")
    return kinds, reasons


def describe_keeping(stage: StageConfig, model: MultimodalModel) -> str:
    """One line for the plan."""
    if not stage.cache_features:
        return "features are not kept: the stage does not ask for it (cache_features)"
    kinds, reasons = kinds_kept(stage, model)
    kept = [f"features of {', '.join(kinds)} are kept, {stage.feature_store_gb:g} GB at most"] if kinds else []
    return "; ".join([*kept, *(f"cache_features {_off(kinds)}: {reason}" for reason in reasons)])


def _off(kinds: list[str]) -> str:
    return "is off for these pictures" if kinds else "is off"


def _ever_new(stage: StageConfig, source: int) -> bool:
    augment = stage.data[source].augment
    return augment is not None and augment.views is None
