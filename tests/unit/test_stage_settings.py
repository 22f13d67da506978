"""Do schedule, optimiser and `learns` do what a stage says?"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sensorium.core.errors import ConfigError
from sensorium.encoders.clip import ClipConfig
from sensorium.input_projectors.qformer import QFormerConfig
from sensorium.model.config import LaneConfig
from sensorium.model.learning import Learn, learning_modules, set_learning
from sensorium.model.multimodal import MultimodalModel
from sensorium.recipes import RECIPES
from sensorium.training.config import Recipe, ScheduleConfig
from sensorium.training.optimiser import build_optimiser, rate


def rates(steps: int, **settings: object) -> list[float]:
    schedule = ScheduleConfig.from_dict(settings)
    return [round(rate(schedule, step, steps), 4) for step in range(steps)]


def test_warmup_may_be_a_share_of_the_steps() -> None:
    by_share = rates(100, warmup_ratio=0.03, final_ratio=0.0)
    assert by_share == rates(100, warmup_steps=3, final_ratio=0.0)
    assert by_share[:4] == [0.3333, 0.6667, 1.0, 1.0]
    # Rounded up, as transformers' scheduler does.
    assert rates(50, warmup_ratio=0.03) == rates(50, warmup_steps=2)
    with pytest.raises(ConfigError, match="either warmup_steps or warmup_ratio"):
        rates(10, warmup_steps=1, warmup_ratio=0.1)


def test_a_rate_may_fall_in_a_line() -> None:
    assert rates(6, shape="linear", warmup_steps=2, final_ratio=0.6) == [0.5, 1.0, 1.0, 0.9, 0.8, 0.7]


def model() -> MultimodalModel:
    lane = LaneConfig(encoder=ClipConfig.tiny(), projector=QFormerConfig.tiny())
    return MultimodalModel(RECIPES.find("tiny")().model.model_copy(update={"lanes": {"image": lane}}))


def test_one_module_of_a_part_learns() -> None:
    net = model()
    learn = Learn(part="projectors.image", module="out", lr=1.0)
    ((_, pairs),) = set_learning(net, (learn,))
    assert [name for name, _ in pairs] == ["projectors.image.out.weight", "projectors.image.out.bias"]
    assert {n for n, p in net.named_parameters() if p.requires_grad} == {name for name, _ in pairs}
    assert learning_modules(net, learn) == [net.get_submodule("projectors.image.out")]


@pytest.mark.parametrize(
    ("learn", "reason"),
    [
        (Learn(part="projectors.image", module="outt", lr=1.0), "did you mean 'out'"),
        (Learn(part="encoders.image", module="tower", last_blocks=1, lr=1.0), "both last_blocks and"),
    ],
)
def test_a_module_that_cannot_learn_alone_is_named(learn: Learn, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        set_learning(model(), (learn,))


def test_a_stage_sets_the_optimisers_betas_and_epsilon() -> None:
    pairs = [("x", torch.nn.Parameter(torch.zeros(2)))]
    optimiser = build_optimiser([(Learn(part="backbone", lr=1.0), pairs)], (0.9, 0.999), epsilon=1e-5)
    assert [(group["betas"], group["eps"]) for group in optimiser.param_groups] == [((0.9, 0.999), 1e-5)]


@pytest.mark.parametrize(("said", "meant"), [
    ("on", "on"), ("off", "off"), ("'on'", "on"), ("true", "on"), ("No", "off"), ("auto", "auto"),
])  # fmt: skip
def test_on_and_off_need_no_quotes(said: str, meant: str, tmp_path: Path) -> None:
    """YAML 1.1 takes them for true and false."""
    recipe = RECIPES.find("tiny")().override([f"stages.0.recompute={said}"])
    assert recipe.stages[0].recompute == meant
    written = recipe.to_yaml()
    for name, text in (("written", written), ("by_hand", written.replace(f"recompute: '{meant}'", f"recompute: {said}"))):
        (tmp_path / name).write_text(text)
        assert Recipe.load(tmp_path / name) == recipe
    with pytest.raises(ConfigError, match=r"recompute.*'auto', 'on' or 'off'"):
        RECIPES.find("tiny")().override(["stages.0.recompute=1"])
