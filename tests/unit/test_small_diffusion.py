"""A small pipeline of our own, states measured against their own mean, and what refuses to teach."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from sensorium.core.errors import ConfigError
from sensorium.core.hands import ConditionShape, Making
from sensorium.generators.small_diffusion import SmallDiffusionConfig
from sensorium.generators.stable_diffusion import StableDiffusion, StableDiffusionConfig
from sensorium.nn.standard import StandardStates
from sensorium.output_projectors.mapper import MapperConfig

needs_diffusers = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")


def test_states_are_measured_against_their_own_mean() -> None:
    torch.manual_seed(0)
    standard = StandardStates(2, 3)
    states_BKD = 50 + torch.randn(64, 2, 3) * torch.tensor([1.0, 0.1, 5.0])
    for _ in range(200):
        standard(states_BKD)
    # Items that stand for nothing stay so, and count for no mean.
    both_BKD = torch.cat([states_BKD, torch.zeros(4, 2, 3)])
    learnt_BKD = standard(both_BKD)
    standard.eval()
    known_BKD = standard(both_BKD)
    for out_BKD in (learnt_BKD, known_BKD):
        assert torch.equal(out_BKD[64:], torch.zeros(4, 2, 3))
        torch.testing.assert_close(out_BKD[:64].mean(0), torch.zeros(2, 3), atol=0.02, rtol=0)
        torch.testing.assert_close(out_BKD[:64].std(0), torch.ones(2, 3), atol=0.02, rtol=0)
    torch.testing.assert_close(standard(states_BKD[:1]), known_BKD[:1])
    standard.train()
    torch.testing.assert_close(standard(states_BKD[:1]), known_BKD[:1])


def test_a_linear_mapper_of_standard_states_makes_its_bias_of_nothing() -> None:
    torch.manual_seed(0)
    mapper = MapperConfig(mode="linear", standard=True, noise=0.5).build(8, 3, ConditionShape(3, 5))
    assert torch.equal(mapper(torch.zeros(2, 3, 8)), mapper.out.bias.expand(2, 3, 5))
    states_BKD = torch.randn(4, 3, 8)
    assert not torch.equal(mapper(states_BKD), mapper(states_BKD)), "noise while it learns"
    mapper.eval()
    assert torch.equal(mapper(states_BKD), mapper(states_BKD))
    plain = MapperConfig(mode="linear").build(8, 3, ConditionShape(3, 5))
    assert set(plain.state_dict()) == {"out.weight", "out.bias"}


@needs_diffusers
def test_it_is_a_stable_diffusion_whose_guidance_has_an_end() -> None:
    torch.manual_seed(0)
    config = SmallDiffusionConfig.tiny()
    small = config.build()
    assert isinstance(small, StableDiffusion)
    assert set(dict(small.decoder.named_children())) == {"vae", "unet"}
    # The last level alone attends, so that a larger side of latents costs little.
    assert {name.split(".")[1] for name, _ in small.unet.named_parameters() if "down_blocks" in name and "attentions" in name} == {"1"}
    assert {name.split(".")[1] for name, _ in small.unet.named_parameters() if "up_blocks" in name and "attentions" in name} == {"0"}
    # It ends in pure noise.
    assert float(small.alphas_T[-1]) == pytest.approx(0, abs=1e-6)
    condition_BLC, negative_1LC = torch.randn(1, 2, 16), torch.zeros(1, 2, 16)
    drawn = [small.generate(condition_BLC, negative_BLC=negative_1LC, making=Making(steps=2, guidance=g))[0].array for g in (1.0, 3.0, 7.5)]
    assert drawn[0].shape == (64, 64, 3)
    assert not (drawn[0] == drawn[1]).all()
    assert (drawn[1] == drawn[2]).all()


@needs_diffusers
def test_another_size_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("small") / "saved"
    tiny = SmallDiffusionConfig.tiny()
    tiny.build().save(folder)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigError, match="side of a picture is 64; expected 32"):
        tiny.model_copy(update={"size_px": 32}).build(folder)


@needs_diffusers
def test_all_of_a_pipeline_moves_where_a_stage_has_moved_what_learns() -> None:
    pipeline: Any = StableDiffusionConfig.tiny().build()
    pipeline.decoder.to("meta")
    pipeline.to(torch.device("meta"))
    assert {part.device.type for part in pipeline.pipe.components.values() if isinstance(part, torch.nn.Module)} == {"meta"}


@needs_diffusers
def test_sizes_are_those_that_diffusers_takes() -> None:
    small = SmallDiffusionConfig(length=2, width=16, vae_widths=(8, 8, 8), unet_widths=(16, 16)).build()
    condition_BLC = torch.randn(1, 2, 16)
    with pytest.raises(ConfigError, match="68 x 64 pixels; expected multiples of 8"):
        small.generate(condition_BLC, making=Making(steps=1, size=(68, 64)))
    assert small.generate(condition_BLC, making=Making(steps=1, size=(72, 64)))[0].array.shape == (72, 64, 3)
