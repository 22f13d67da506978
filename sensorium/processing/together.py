"""Features that a store found for all pictures of a batch, laid end to end before the model asks for them."""

from __future__ import annotations

from dataclasses import replace

import torch

from sensorium.core.batch import Batch, Features, MediaBatch


def features_together(batch: Batch) -> Batch:
    """The batch with one tensor of features for each kind of media whose pictures were all found; others stay as they are.

    What is known of each picture keeps its layout, and no values.
    """
    return replace(batch, media={kind: _together(media) for kind, media in batch.media.items()})


def _together(media: MediaBatch) -> MediaBatch:
    found = [one for one in media.kept if one is not None and one.features is not None]
    if media.features is not None or not found or len(found) < len(media.plans):
        return media
    features = [one.features for one in found if one.features is not None]
    values_ND = torch.cat([one.values_ND for one in features])
    kept = tuple(replace(one, features=Features(values_ND[:0], told.grids)) for one, told in zip(found, features, strict=True))
    return replace(media, features=Features(values_ND, tuple(grid for one in features for grid in one.grids)), kept=kept)
