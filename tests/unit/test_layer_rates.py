"""Do learning rates fall from layer to layer, and do losses weigh what their source says?"""

from __future__ import annotations

import pytest
import torch

from sensorium.core.batch import Batch, Example
from sensorium.core.errors import ConfigError
from sensorium.data.config import PictureBookSource
from sensorium.interop.assemble import build_pretrained
from sensorium.model.device import to_device
from sensorium.model.learning import Learn, set_learning
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.training.objectives.contrastive import ContrastiveConfig
from sensorium.training.objectives.next_token import next_token_losses
from sensorium.training.optimiser import build_optimiser
from sensorium.training.preflight import check_stages, loader_options, prepare_stage

TOWER = "encoders.image"


def test_rates_fall_towards_the_input() -> None:
    model = MultimodalModel(RECIPES.find("tiny")().model)
    groups = set_learning(model, (Learn(part=TOWER, lr=1.0, layer_decay=0.5, weight_decay=0.1),))
    rate = {name: learn.lr for learn, pairs in groups for name, _ in pairs}
    blocks = model.encoders["image"].trainable_blocks()  # pyright: ignore[reportCallIssue]
    assert set(rate) == {n for n, _ in model.named_parameters() if n.startswith(f"{TOWER}.")}
    for name, found in rate.items():
        if ".layers." in name:
            number = int(name.split(".layers.")[1].split(".")[0]) + 1
            assert found == 0.5 ** (len(blocks) + 1 - number), name
        else:
            assert found == (1.0 if "tower.layernorm." in name else 0.5 ** (len(blocks) + 1)), name
    optimiser = build_optimiser(groups, (0.9, 0.98))
    of = {id(p): group["peak"] for group in optimiser.param_groups for p in group["params"]}
    assert {n: of[id(p)] for n, p in model.named_parameters() if id(p) in of} == rate
    assert {group["weight_decay"] for group in optimiser.param_groups} == {0.0, 0.1}


def test_the_last_blocks_keep_their_rates() -> None:
    model = MultimodalModel(RECIPES.find("tiny")().model)
    groups = set_learning(model, (Learn(part=TOWER, lr=1.0, layer_decay=0.5, last_blocks=2),))
    assert [learn.lr for learn, _ in groups] == [0.25, 0.5]


def test_a_part_without_blocks_is_named() -> None:
    model = MultimodalModel(RECIPES.find("tiny")().model)
    with pytest.raises(ConfigError, match=r"'projectors\.image' has no blocks"):
        set_learning(model, (Learn(part="projectors.image", lr=1.0, layer_decay=0.5),))


def test_the_plan_says_all_rates() -> None:
    recipe = TINY_FORMS.find("qwen-vl")()
    model, tokenizer = build_pretrained(recipe.model)
    plans, _ = check_stages(recipe, model, Processor(recipe.model, tokenizer))
    for stage, plan in zip(recipe.stages[:2], plans[:2], strict=True):
        ((part, rates),) = plan.rates
        assert part == TOWER
        assert rates == sorted(rates)
        (tower,) = (learn for learn in stage.learns if learn.part == TOWER)
        assert rates[-1] == pytest.approx(0.95 * tower.lr)
        assert rates[0] == pytest.approx(rates[-1] * 0.95 ** (len(rates) - 1))
    assert not plans[2].rates


def test_adafactor_keeps_sums_instead_of_moments() -> None:
    matrix, vector = torch.nn.Parameter(torch.ones(6, 4)), torch.nn.Parameter(torch.ones(4))
    groups = [(Learn(part="backbone", lr=0.1), [("m", matrix), ("v", vector)])]
    optimiser = build_optimiser(groups, (0.9, 0.98), "adafactor")
    (matrix.sum() + vector.sum()).backward()
    optimiser.step()
    kept = sum(v.numel() for s in optimiser.state.values() for k, v in s.items() if k != "step")
    assert kept == 6 + 4 + 4
    assert bool((matrix < 1).all())
    assert bool((vector < 1).all())


def examples(model: MultimodalModel, weights: tuple[float, ...]) -> list[Example]:
    rows: list[Example] = []
    for i, weight in enumerate(weights):
        ids = [3 + i, 5, 7 + i, 9, 11][: 4 + i % 2]
        learn = [False, False, *[True] * (len(ids) - 2)]
        rows.append(Example(ids, learn, media_index=[0] * len(ids), loss_weight=weight))
    return rows


def text_model() -> MultimodalModel:
    torch.manual_seed(0)
    return MultimodalModel(RECIPES.find("tiny")().model.model_copy(update={"lanes": {}})).eval()


def gradients(model: MultimodalModel, batches: list[Batch]) -> dict[str, torch.Tensor]:
    """As a step with so many batches computes them."""
    model.zero_grad()
    count = 0
    for batch in batches:
        losses = next_token_losses(model, to_device(batch, torch.device("cpu")))
        losses.total.backward()
        count += losses.count
    return {n: p.grad / count for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("packed", [False, True])
def test_losses_weigh_what_their_source_says(packed: bool) -> None:
    model = text_model()
    rows = examples(model, (1.0, 0.2, 0.03))
    batch = collate([rows] if packed else [[row] for row in rows], pad_id=0)
    losses = next_token_losses(model, batch)
    alone = [next_token_losses(model, collate([[row]], pad_id=0)) for row in examples(model, (1.0, 1.0, 1.0))]
    expected = sum(float(one.total) * w for one, w in zip(alone, (1.0, 0.2, 0.03), strict=True))
    assert float(losses.total.detach()) == pytest.approx(expected, rel=1e-5)
    assert losses.count == sum(one.count for one in alone)
    # What is logged is comparable between runs with other weights.
    assert losses.parts["next_token"] == pytest.approx(
        sum(float(one.total) for one in alone) / losses.count, rel=1e-5
    )


def test_accumulated_batches_weigh_as_one() -> None:
    model = text_model()
    rows = examples(model, (1.0, 0.2, 0.03, 1.0))
    whole = gradients(model, [collate([[row] for row in rows], pad_id=0)])
    parts = gradients(model, [collate([[r] for r in some], pad_id=0) for some in (rows[:1], rows[1:])])
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-6, rtol=1e-4)


def test_the_loader_marks_rows_by_their_source() -> None:
    recipe = RECIPES.find("tiny")()
    data = tuple(PictureBookSource(part="shipped", take=2, loss_weight=w) for w in (1.0, 0.2))
    stage = recipe.stages[-1].model_copy(update={"data": data, "batch_size": 4})
    assert loader_options(stage).loss_weights == (1.0, 0.2)
    model, tokenizer = build_pretrained(recipe.model)
    parts = prepare_stage(stage, model, Processor(recipe.model, tokenizer))
    from sensorium.data.loader import Loader

    loader = Loader(parts.sources, parts.order, parts.processor, loader_options(stage))
    stream = loader.batches(parts.order.start())
    batch = next(stream).batch
    stream.close()
    assert batch.loss_weights_BT is not None
    assert sorted(float(row[0]) for row in batch.loss_weights_BT) == pytest.approx([0.2, 0.2, 1.0, 1.0])


def test_an_objective_that_does_not_weigh_refuses() -> None:
    recipe = RECIPES.find("tiny")()
    data = (PictureBookSource(part="shipped", take=2, loss_weight=0.5),)
    stage = recipe.stages[-1].model_copy(update={"data": data, "objective": ContrastiveConfig()})
    model, tokenizer = build_pretrained(recipe.model)
    with pytest.raises(ConfigError, match="loss_weight of a source with objective 'contrastive'"):
        prepare_stage(stage, model, Processor(recipe.model, tokenizer))
