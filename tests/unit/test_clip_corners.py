"""Videos that are odd: pictures of several sizes, strips, and files that are large."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from test_clips_seen import sample, tiny

from sensorium.core.clips import FrameClips
from sensorium.core.errors import MediaError
from sensorium.encoders.imagebind import ImageBindConfig
from sensorium.features.store import FeatureStore, StoreOptions, used_by
from sensorium.media.limits import ImageLimits
from sensorium.processing import clips as clips_module
from sensorium.processing.clips import Clips


def test_each_frame_keeps_its_proportions() -> None:
    """A wide picture beside a square one shows what it shows alone."""
    square, wide = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 160, 3), np.uint8)
    wide[:, 60:100] = 255
    cut = Clips("video", ImageBindConfig.tiny().model_copy(update={"video": FrameClips(clips=1, crops=1)}), ImageLimits())
    beside, alone = (cut.prepare(frames, None, None).pixels_NCHW[0, 0, 1] for frames in ([square, wide], [wide, wide]))
    assert torch.equal(beside, alone)
    assert (alone > 127).float().mean() > 0.9


def test_no_medium_takes_memory_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A strip would become as long as its sides differ; a film is hashed by pieces."""
    model = tiny()
    for shape in ((3, 20_000, 3), (20_000, 3, 3)):
        with pytest.raises(MediaError, match=r"(20000x3|3x20000) pixels"):
            model.processor.encode(sample(tmp_path, {"type": "video", "video": [np.zeros(shape, np.uint8)]}))
    (tmp_path / "film.mp4").write_bytes(bytes(2**24))
    still = np.zeros((40, 30, 3), np.uint8)
    store = FeatureStore(model.network, ["video"], StoreOptions(tmp_path / "store"))
    monkeypatch.setattr(clips_module, "clips_of", lambda *_, **__: [[still, still]])
    with used_by(model.network, model.processor, store):
        tracemalloc.start()
        model.processor.encode(sample(tmp_path, {"type": "video", "video": "film.mp4"}))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**23
