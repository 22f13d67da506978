"""Does every generator keep the promises of its kind? Those of diffusers are skipped where it is not installed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sensorium.core.errors import ConfigError, GenerationError, MissingDependencyError, WeightsError
from sensorium.core.hands import CancelledError, Making, Speaks
from sensorium.generators import GENERATORS
from sensorium.generators.diffusion import DiffusionConfig, as_bytes
from sensorium.generators.text_route import TextRouteConfig

needs_diffusers = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
PIPELINES = [name for name in GENERATORS if issubclass(GENERATORS.find(name), DiffusionConfig)]
# Those that look at a picture look at this one.
LOOKED = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
TWO = Making(steps=2, guidance=3.0, pictures=(LOOKED,))


@cache
def built(kind: str) -> Any:
    torch.manual_seed(0)
    return GENERATORS.find(kind).tiny().build()


@cache
def conditions(kind: str) -> Tensor:
    shape = GENERATORS.find(kind).tiny().condition
    return torch.randn(2, shape.length, shape.width, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion in the published layout."""
    path = tmp_path_factory.mktemp("sd")
    built("stable_diffusion").pipe.save_pretrained(path)
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@needs_diffusers
@pytest.mark.parametrize("name", PIPELINES)
def test_what_a_pipeline_heeds_is_what_it_takes(name: str) -> None:
    generator, heeds = built(name), GENERATORS.find(name).tiny().heeds
    assert {"steps", "guidance", "seed"} <= heeds
    assert ("size" in heeds, "negative" in heeds) == (generator.sized, not generator.own_negative)


@pytest.mark.parametrize("name", GENERATORS)
def test_config_round_trips(name: str) -> None:
    config = GENERATORS.find(name).tiny()
    assert config.kind == name
    assert config.makes in ("image", "audio", "video", "mask")
    assert GENERATORS.find(name).from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("name", "changes", "length", "width"),
    [
        ("stable_diffusion", {}, 77, 768),
        ("stable_diffusion", {"width": 1024}, 77, 1024),
        ("unclip", {}, 1, 1024),
        ("sdxl", {}, 78, 2048),
        ("sdxl", {"length": 64, "width": 1792, "pooled": "mean"}, 64, 1792),
        ("text_to_video", {}, 77, 1024),
        ("audioldm", {}, 1, 512),
    ],
)
def test_published_conditions(name: str, changes: dict[str, Any], length: int, width: int) -> None:
    shape = GENERATORS.find(name)(**changes).condition
    assert (shape.length, shape.width) == (length, width)


@pytest.mark.parametrize("name", PIPELINES)
def test_the_missing_package_is_named_with_its_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "sensorium\[gen\]"'):
        GENERATORS.find(name).tiny().build()


@needs_diffusers
def test_published_size_without_a_folder_is_refused() -> None:
    with pytest.raises(WeightsError, match="stabilityai/stable-diffusion-2-1"):
        GENERATORS.find("stable_diffusion")(width=1024).build()


@needs_diffusers
@pytest.mark.parametrize("name", PIPELINES)
def test_a_seed_decides_everything(name: str) -> None:
    generator, condition_BLC = built(name), conditions(name)
    told: list[tuple[int, int]] = []
    made = generator.generate(condition_BLC, making=replace(TWO, progress=lambda *steps: told.append(steps)))
    again = generator.generate(condition_BLC, making=TWO)
    other = generator.generate(condition_BLC, making=replace(TWO, seed=1))
    assert told
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    for first, second, third in zip(made, again, other, strict=True):
        assert first.kind == generator.config.makes
        np.testing.assert_array_equal(first.array, second.array)
        assert (first.array != third.array).any()
    if generator.config.makes == "audio":
        assert made[0].array.dtype == np.float32
        assert made[0].array.ndim == 1
        assert made[0].sample_rate_hz == 4000
        assert np.abs(made[0].array).max() <= 1
    else:
        frames = (2,) if generator.config.makes == "video" else ()
        assert made[0].array.shape == (*frames, 64, 64, 3)
        assert made[0].array.dtype == np.uint8


@needs_diffusers
@pytest.mark.parametrize("name", PIPELINES)
def test_an_item_does_not_depend_on_its_neighbours(name: str) -> None:
    generator, condition_BLC = built(name), conditions(name)
    both = generator.generate(condition_BLC, making=TWO)
    alone = generator.generate(condition_BLC[1:], making=TWO)[0]
    assert (both[0].array != both[1].array).any()
    # Sums are taken in another order for two: a step of 255, or rounding.
    step = 1 if alone.array.dtype == np.uint8 else 1e-4
    assert np.abs(both[1].array.astype(float) - alone.array).max() <= step


@needs_diffusers
@pytest.mark.parametrize("name", PIPELINES)
def test_stopping_after_a_step_leaves_no_trace(name: str) -> None:
    generator, condition_BLC = built(name), conditions(name)[:1]
    before = generator.generate(condition_BLC, making=TWO)[0]
    told: list[int] = []
    with pytest.raises(CancelledError, match="after step 1 of"):
        generator.generate(condition_BLC, making=replace(
            TWO, steps=5, progress=lambda done, _: told.append(done), cancelled=lambda: True,
        ))  # fmt: skip
    assert told == [1]
    np.testing.assert_array_equal(generator.generate(condition_BLC, making=TWO)[0].array, before.array)


@needs_diffusers
def test_a_failure_midway_names_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, condition_BLC = built("unclip"), conditions("unclip")
    unet, calls = generator.pipe.unet, [0]
    forward = unet.forward

    def fails(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise RuntimeError("DefaultCPUAllocator: out of memory")
        return forward(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(unet, "forward", fails)
        with pytest.raises(GenerationError, match=r"after step 2 of 4 .*smaller size"):
            generator.generate(condition_BLC, making=replace(TWO, steps=4))
    with monkeypatch.context() as patch:
        patch.setattr(unet, "forward", lambda *args, **options: (torch.full_like(args[0], torch.nan),))
        with pytest.raises(GenerationError, match=r"step 1 of 2 made values that are not finite"):
            generator.generate(condition_BLC, making=TWO)
    with monkeypatch.context() as patch:
        patch.setattr(generator.pipe.vae, "decode", fails)
        calls[0] = 2
        with pytest.raises(GenerationError, match="after the last of 2 steps"):
            generator.generate(condition_BLC, making=TWO)
    assert len(generator.generate(condition_BLC, making=TWO)) == 2


@needs_diffusers
@pytest.mark.parametrize("name", PIPELINES)
def test_what_does_not_fit_is_refused_before_it_begins(name: str) -> None:
    generator, condition_BLC = built(name), conditions(name)
    wrong = [condition_BLC[0], condition_BLC[..., 1:], torch.cat([condition_BLC, condition_BLC], dim=1)]
    for values in wrong:
        with pytest.raises(ConfigError, match="a condition of shape"):
            generator.generate(values, making=TWO)
    with pytest.raises(ConfigError, match="negative condition"):
        generator.generate(condition_BLC, negative_BLC=condition_BLC[..., 1:], making=TWO)
    for steps in (0, 1001):
        with pytest.raises(ConfigError, match=f"{steps} steps"):
            generator.generate(condition_BLC, making=Making(steps=steps))
    with pytest.raises(ConfigError, match="size"):
        generator.generate(condition_BLC, making=replace(TWO, size=(60, 64)))
    with pytest.raises(ConfigError, match="seconds"):
        generator.generate(condition_BLC, making=replace(TWO, seconds=1.0 if generator.config.makes == "image" else -1.0))
    assert generator.generate(condition_BLC[:0], making=TWO) == []


@needs_diffusers
def test_sizes_and_lengths_that_are_asked_for() -> None:
    picture = built("stable_diffusion").generate(conditions("stable_diffusion")[:1], making=replace(TWO, size=(32, 48)))[0]
    assert picture.array.shape == (32, 48, 3)
    sound = built("audioldm").generate(conditions("audioldm")[:1], making=replace(TWO, seconds=0.03))[0]
    assert sound.array.shape == (120,)
    video = built("text_to_video").generate(conditions("text_to_video")[:1], making=replace(TWO, seconds=0.4))[0]
    assert video.array.shape == (3, 64, 64, 3)
    assert video.fps == 8.0


@needs_diffusers
def test_inside_inference_mode_and_outside_it_makes_the_same() -> None:
    generator, condition_BLC = built("unclip"), conditions("unclip")
    with torch.inference_mode():
        inside = generator.generate(condition_BLC * 1.0, making=TWO)
    np.testing.assert_array_equal(inside[1].array, generator.generate(condition_BLC, making=TWO)[1].array)


@needs_diffusers
def test_one_negative_condition_serves_all() -> None:
    generator, condition_BLC = built("sdxl"), conditions("sdxl")
    negative_BLC = condition_BLC[:1] * 0.5
    one = generator.generate(condition_BLC, negative_BLC=negative_BLC, making=TWO)
    each = generator.generate(condition_BLC, negative_BLC=negative_BLC.expand(2, -1, -1), making=TWO)
    none = generator.generate(condition_BLC, making=TWO)
    np.testing.assert_array_equal(one[1].array, each[1].array)
    assert (one[1].array != none[1].array).any()
    with pytest.raises(ConfigError, match="3 negative conditions for 2 items"):
        generator.generate(condition_BLC, negative_BLC=negative_BLC.expand(3, -1, -1), making=TWO)
    with pytest.raises(ConfigError, match="the pipeline has its own"):
        built("unclip").generate(conditions("unclip"), negative_BLC=conditions("unclip"), making=TWO)


@needs_diffusers
def test_a_missing_component_is_named_with_what_brings_it(copy: Path) -> None:
    config = GENERATORS.find("stable_diffusion")(length=24, width=32)
    config.build(copy)
    for name in config.layout.needed:
        aside = copy.parent / name
        (copy / name).rename(aside)
        with pytest.raises(WeightsError, match=rf"no {name}/.*hf download .* --include '{name}/\*'"):
            config.build(copy)
        aside.rename(copy / name)
    (copy / "unet/diffusion_pytorch_model.safetensors").rename(copy / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"unet/ has no safetensors, only diffusion_pytorch_model\.bin, which is not read"):
        config.build(copy)
    (copy / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="cannot load the pipeline"):
        config.build(copy)


@needs_diffusers
def test_other_folders_are_refused(copy: Path, tmp_path: Path) -> None:
    config = GENERATORS.find("stable_diffusion")(length=24, width=32)
    with pytest.raises(WeightsError, match="no such folder"):
        config.build(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="condition width is 32; expected 768"):
        GENERATORS.find("stable_diffusion")().build(copy)
    with pytest.raises(WeightsError, match="'StableDiffusionPipeline'; expected StableDiffusionXLPipeline"):
        GENERATORS.find("sdxl")().build(copy)
    index = copy / "model_index.json"
    written = json.loads(index.read_text())
    index.write_text(json.dumps(written | {"vae": ["os", "system"]}))
    with pytest.raises(WeightsError, match="code from a folder is not run"):
        config.build(copy)
    index.write_text(json.dumps(written))
    (copy / "vae/diffusers.py").write_text("raise SystemExit")
    with pytest.raises(WeightsError, match="code from a folder is not run"):
        config.build(copy)
    index.write_text("{")
    with pytest.raises(WeightsError, match="not JSON"):
        config.build(copy)
    index.unlink()
    with pytest.raises(WeightsError, match=r"no model_index\.json"):
        config.build(copy)


@needs_diffusers
def test_a_safety_checker_that_is_listed_and_absent_is_done_without(copy: Path) -> None:
    index = copy / "model_index.json"
    written = json.loads(index.read_text())
    written["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    written["requires_safety_checker"] = True
    index.write_text(json.dumps(written))
    generator = GENERATORS.find("stable_diffusion")(length=24, width=32).build(copy)
    assert generator.pipe.safety_checker is None
    refused = SimpleNamespace(images=np.zeros((1, 8, 8, 3)), nsfw_content_detected=[True])
    with pytest.raises(GenerationError, match="safety checker refused"):
        generator.made(refused)


def test_values_that_are_not_finite_are_no_picture() -> None:
    with pytest.raises(GenerationError, match="not finite"):
        as_bytes(np.full((1, 2, 2, 3), np.nan), "stable_diffusion")


@needs_diffusers
def test_the_text_route_tells_a_generator_by_text() -> None:
    route = GENERATORS.find("text_route").tiny().build()
    assert isinstance(route, Speaks)
    made = route.speak("a cat", TWO)
    same = route.generator.generate(route.generator.encode_text(["a cat"]), making=TWO)[0]
    np.testing.assert_array_equal(made.array, same.array)
    assert (route.speak("a dog", TWO).array != made.array).any()
    away = route.speak("a cat", replace(TWO, negative="a dog"))
    led = route.generator.generate(route.generator.encode_text(["a cat"]), negative_BLC=route.generator.encode_text(["a dog"]), making=TWO)[0]
    np.testing.assert_array_equal(away.array, led.array)
    assert (away.array != made.array).any()
    with pytest.raises(ConfigError, match="told by text"):
        route.generate(conditions("stable_diffusion"))
    with pytest.raises(ConfigError, match="has no text encoder"):
        TextRouteConfig(generator=GENERATORS.find("unclip").tiny()).build()
    with pytest.raises(ConfigError, match="told by text"):
        _ = route.config.condition
    with pytest.raises(ConfigError, match="stand at the route"):
        TextRouteConfig.from_dict({"generator": {"kind": "unclip", "weights": [{"kind": "folder", "path": "x"}]}})
