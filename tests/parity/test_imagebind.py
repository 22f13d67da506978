"""ImageBind's eye and ear, from its own file, and how media are cut for them: what the authors' code computed with the same numbers (golden/make_imagebind.py)."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorium.core.clips import FrameClips, MelClips
from sensorium.core.errors import ConfigError, MediaError, WeightsError
from sensorium.core.weights import FileSource
from sensorium.encoders.imagebind import ImageBind, ImageBindConfig
from sensorium.encoders.imagebind_sound import SoundConfig
from sensorium.interop.locate import locate
from sensorium.interop.tower_files import IMAGEBIND, IMAGEBIND_SOUND
from sensorium.media.audio_file import wav_bytes
from sensorium.media.limits import ImageLimits
from sensorium.media.sound import load_sound, resampled
from sensorium.processing.clips import Clips

GOLDEN = Path(__file__).parent / "golden"
WIDTH = 16
CONFIG = ImageBindConfig(width=WIDTH, layers=2, heads=4, mlp_width=4 * WIDTH, patch_size_px=56, joint=12, video=FrameClips(),
                         audio=SoundConfig(width=WIDTH, layers=2, heads=2, mlp_width=4 * WIDTH))  # fmt: skip
LOUDER = 20.0
"""By what ImageBind's own comparisons lengthen vectors of sound, and NExT-GPT does not."""
HALF_A_STEP = 0.5 / 255 / min(CONFIG.std)
"""Frames travel as bytes."""


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return json.loads(gzip.decompress((GOLDEN / "imagebind.json.gz").read_bytes()))


@pytest.fixture(scope="module")
def maker() -> Any:
    sys.path.insert(0, str(GOLDEN))
    spec = importlib.util.spec_from_file_location("make_imagebind", GOLDEN / "make_imagebind.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def file(golden: dict[str, Any], maker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`imagebind_huge.pth`, with what is neither seen nor heard, and the lengths that vectors are given."""
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    more = {"modality_postprocessors.audio.1.log_logit_scale": torch.tensor(LOUDER).log(), "modality_heads.depth.2.weight": torch.zeros(3, 3)}
    torch.save(maker.weights(golden["shapes"]) | more, tmp_path / "imagebind_huge.pth")
    return tmp_path / "imagebind_huge.pth"


def built(file: Path, config: ImageBindConfig = CONFIG) -> ImageBind:
    return config.build(locate((FileSource(path=str(file), format="imagebind"),))).eval()


def cut(kind: str, source: Any) -> Tensor:
    return Clips(kind, CONFIG, ImageLimits()).prepare(source, None, None).pixels_NCHW


def video(maker: Any, name: str) -> Any:
    return SimpleNamespace(array=maker.frames(name).numpy(), fps=maker.VIDEOS[name][3])


def sound(maker: Any, name: str) -> Any:
    return SimpleNamespace(array=maker.samples(name).numpy(), sample_rate_hz=16_000)


@pytest.mark.parametrize("name", ["wide", "tall", "one", "whole", "lost"])
def test_frames_of_clips_are_the_authors(name: str, golden: dict[str, Any], maker: Any) -> None:
    clips = cut("video", video(maker, name))
    count, places, colours, frames, *sides = golden[name]["shape"]
    assert list(clips.shape) == [count, places, frames, colours, *sides]
    assert clips.dtype == torch.uint8
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CONFIG.mean, CONFIG.std))
    shown = ((clips / 255 - mean) / std).transpose(2, 3)[..., :: maker.PIXELS, :: maker.PIXELS]
    torch.testing.assert_close(shown, torch.tensor(golden[name]["clips"]).view_as(shown), atol=HALF_A_STEP + 1e-4, rtol=0)


@pytest.mark.parametrize("name", ["long", "two", "short"])
def test_mel_bands_of_clips_are_the_authors(name: str, golden: dict[str, Any], maker: Any) -> None:
    clips = cut("audio", sound(maker, name))
    count, places, _, *sides = golden[name]["shape"]
    assert list(clips.shape) == [count, places, *sides]
    shown = clips[..., :: maker.MEL[0], :: maker.MEL[1]]
    torch.testing.assert_close(shown, torch.tensor(golden[name]["clips"]).view_as(shown), atol=2e-4, rtol=0)


@torch.no_grad()
def test_its_file_is_read_and_computes_what_it_computed(file: Path, golden: dict[str, Any], maker: Any, record: Callable[..., None]) -> None:
    encoder = built(file)
    record("imagebind", "weights", "made", ours=encoder(maker.pictures()).values_ND, theirs=torch.tensor(golden["pictures"]))
    # Of a video that needs no scaling all bytes are theirs.
    whole = encoder(cut("video", video(maker, "whole")), "video").values_ND[0]
    record("imagebind", "made", ours=whole, theirs=torch.tensor(golden["whole"]["vector"]))
    for name in maker.VIDEOS:
        found = encoder(cut("video", video(maker, name)), "video")
        # As far as bytes bring it, and much farther from a picture.
        torch.testing.assert_close(found.values_ND[0], torch.tensor(golden[name]["vector"]), atol=4e-3, rtol=0)
        assert float((found.values_ND[0] - torch.tensor(golden["pictures"][0])).abs().max()) > 0.1
    for name in maker.SOUNDS:
        found = encoder(cut("audio", sound(maker, name)), "audio")
        record("imagebind", "made", ours=found.values_ND[0] * LOUDER, theirs=torch.tensor(golden[name]["vector"]), of_largest=True)
    both = [cut("audio", sound(maker, name)) for name in ("long", "two")]
    together = encoder(torch.cat(both), "audio")
    assert len(together.grids) == 2
    torch.testing.assert_close(together.values_ND, torch.cat([encoder(one, "audio").values_ND for one in both]))


def test_names_go_there_and_back(golden: dict[str, Any], maker: Any) -> None:
    theirs = maker.weights(golden["shapes"])
    for keys, part in ((IMAGEBIND, ".vision."), (IMAGEBIND_SOUND, ".audio.")):
        mine = {name: value for name, value in theirs.items() if part in name}
        back = keys.to_theirs(keys.to_ours(mine))
        assert set(back) == set(mine)
        assert all(torch.equal(back[name], value) for name, value in mine.items())


def test_an_eye_alone_leaves_the_ear(file: Path) -> None:
    blind = CONFIG.model_copy(update={"video": None, "audio": None})
    assert built(file, blind).sound is None
    assert dict(blind.clips()) == {}


def test_a_file_that_does_not_hear(file: Path, golden: dict[str, Any], maker: Any) -> None:
    torch.save({name: value for name, value in maker.weights(golden["shapes"]).items() if ".vision." in name}, file)
    with pytest.raises(WeightsError, match="weights do not fit SoundTower"):
        built(file)


@pytest.mark.parametrize(("changes", "says"), [
    ({"feature": "patch"}, "means of clips"),
    ({"video": FrameClips(frames=3)}, "clips of 3 frames"),
    ({"audio": SoundConfig(width=16, heads=3)}, "heads divide"),
    ({"audio": SoundConfig(cut=MelClips(rows=8))}, "no smaller than a patch"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        CONFIG.model_copy(update=changes).build()


def test_a_sound_shorter_than_a_window_is_one() -> None:
    clips = cut("audio", wav_bytes(np.full(100, 0.5), 16_000))
    assert clips.shape == (1, 3, 128, 204)
    # One row of bands, and then what stands for none.
    nothing = -CONFIG.audio.cut.mean / CONFIG.audio.cut.deviation  # pyright: ignore[reportOptionalMemberAccess]
    torch.testing.assert_close(clips[..., 1:], torch.full((1, 3, 128, 203), nothing))
    assert float((clips[..., 0] - nothing).abs().min()) > 0.1


def test_clips_of_another_rate_are_those_of_the_whole() -> None:
    """Only what is in them is resampled."""
    whole = SimpleNamespace(array=np.random.default_rng(0).normal(0, 0.1, 44_100 * 7).astype(np.float32), sample_rate_hz=44_100)
    again = SimpleNamespace(array=resampled(load_sound(whole, 7.0), 16_000), sample_rate_hz=16_000)
    assert len(again.array) == 16_000 * 7
    assert torch.equal(cut("audio", whole), cut("audio", again))


def test_a_sound_that_is_too_long_is_refused() -> None:
    with pytest.raises(MediaError, match="at most 600 seconds"):
        cut("audio", SimpleNamespace(array=np.zeros(1000 * 601, np.float32), sample_rate_hz=1000))
