"""Do tokenizer and discriminator learn by their own losses alone, from the step on that was said, and resume bit for bit?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

from sensorium.cli.main import app
from sensorium.core.errors import ConfigError
from sensorium.core.picture_tokenizer import PictureTokenizerConfig
from sensorium.encoders.efficientnet_lite import EfficientNetLiteConfig
from sensorium.generators.chameleon_vq import ChameleonVqConfig
from sensorium.generators.seed import SeedConfig
from sensorium.generators.vq import VqConfig
from sensorium.nn.patch_discriminator import PatchDiscriminator, smallest_px
from sensorium.nn.perceptual import PerceptualLoss
from sensorium.nn.pretrained import read_file
from sensorium.training.adversarial import AdversarialConfig, Adversary, adaptive_weight, hinge_loss
from sensorium.training.log import read_log
from sensorium.training.tokenizer import (
    TokenizerRecipe,
    TokenizerRun,
    TokenizerTraining,
    train_tokenizer,
)

SMALL: dict[str, Any] = {"layers": 2, "width": 8, "start_step": 2}
TOKENIZERS = pytest.mark.parametrize("tokenizer", [VqConfig.tiny(), ChameleonVqConfig.tiny()], ids=["vq", "chameleon_vq"])


def pictures(count: int = 8) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=draw).repeat_interleave(4, 2).repeat_interleave(4, 3)


def recipe(tokenizer: PictureTokenizerConfig, steps: int, adversarial: dict[str, Any] | None, **changes: Any) -> TokenizerRecipe:
    training = {"steps": steps, "batch_size": 4, "lr": 2e-3, "checkpoint_every": 2, "schedule": {"warmup_steps": 2}, **changes}
    return TokenizerRecipe(tokenizer=tokenizer, training=TokenizerTraining.from_dict({**training, "adversarial": adversarial}))


def adversary(**settings: Any) -> Adversary:
    return Adversary(AdversarialConfig.from_dict(SMALL | settings), size_px=16, lr=1e-3, seed=0, device="cpu")


def grads_of(module: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_of_the_smallest_pictures_one_patch_is_left(layers: int) -> None:
    side = smallest_px(layers)
    judge = PatchDiscriminator(layers, width=2)
    assert judge(torch.randn(2, 3, side, side)).shape == (2, 1, 1, 1)
    with pytest.raises(RuntimeError, match="Kernel size"):
        judge(torch.randn(2, 3, side - 1, side - 1))
    with pytest.raises(ConfigError, match=f"{side} pixels or more.*fewer layers"):
        Adversary(AdversarialConfig(layers=layers, width=2), size_px=side - 1, lr=1.0, seed=0, device="cpu")


def test_an_answer_sees_70_pixels_and_no_more() -> None:
    judge = PatchDiscriminator(3, width=2)
    # Norms look at whole pictures; which pixels convolutions see is asked without them.
    judge.main = nn.Sequential(*(part for part in judge.main if not isinstance(part, nn.BatchNorm2d)))
    values = torch.randn(1, 3, 256, 256, requires_grad=True)
    logits = judge(values)
    assert logits.shape == (1, 1, 30, 30)
    (seen,) = torch.autograd.grad(logits[0, 0, 15, 15], values)
    rows = seen[0].abs().sum((0, 2)).nonzero().flatten().tolist()
    assert rows == list(range(rows[0], rows[0] + 70))


def test_a_judgement_leaves_no_trace_in_the_discriminator() -> None:
    one = adversary()
    before = {name: value.clone() for name, value in one.module.state_dict().items()}
    made = torch.randn(2, 3, 16, 16, requires_grad=True)
    one.judge(made, torch.randn(2, 3, 16, 16), made.square().mean(), made)
    assert all(torch.equal(value, before[name]) for name, value in one.module.state_dict().items())
    assert not list(one.module.buffers())


@TOKENIZERS
@pytest.mark.parametrize("adaptive", [True, False])
def test_one_pass_gives_each_side_the_gradients_of_two(tokenizer: Any, adaptive: bool) -> None:
    torch.manual_seed(0)
    # Evaluation leaves the codebook as it is, so that both forward passes are the same.
    module, one = tokenizer.blank().eval(), adversary(adaptive=adaptive, weight=0.7)
    values = module.to_values(pictures(4))

    out = module(values)
    distance = F.l1_loss(out.values_BCHW, values)
    judged = one.judge(out.values_BCHW, values, distance, out.last)
    assert float(judged.adaptive) != 1 or not adaptive
    (distance + out.loss + judged.term + judged.hinge).backward()
    ours, theirs = grads_of(module), grads_of(one.module)

    # Written again as the original does it: a pass for each side, with the other's gradients thrown away.
    out = module(values)
    distance = F.l1_loss(out.values_BCHW, values)
    (distance + out.loss + 0.7 * judged.adaptive * -one.module(out.values_BCHW).mean()).backward()
    expected = grads_of(module)
    grads_of(one.module)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(grad, expected[name]) for name, grad in ours.items())
    wanted, made = one.module(values), one.module(out.values_BCHW.detach())
    (0.5 * (F.relu(1 - wanted).mean() + F.relu(1 + made).mean())).backward()
    expected = grads_of(one.module)
    assert theirs.keys() == expected.keys() == dict(one.module.named_parameters()).keys()
    assert all(torch.equal(grad, expected[name]) for name, grad in theirs.items())


def test_the_adaptive_weight_is_the_quotient_of_gradients_at_the_last_layer() -> None:
    torch.manual_seed(0)
    one, layer = adversary(), nn.Conv2d(4, 3, 3, padding=1)
    states, wanted = torch.randn(2, 4, 16, 16), torch.randn(2, 3, 16, 16)
    made = layer(states)
    got = one.judge(made, wanted, F.mse_loss(made, wanted), layer.weight)
    # By hand: from each loss to the pictures, and from these to the weights by the convolution's own rule.
    leaf = made.detach().requires_grad_()
    (of_passed,) = torch.autograd.grad(-one.module(leaf).mean(), leaf)
    of_distance = 2 * (made.detach() - wanted) / wanted.numel()
    shape = layer.weight.shape
    lengths = [torch.nn.grad.conv2d_weight(states, shape, grad, padding=1).norm() for grad in (of_distance, of_passed)]  # pyright: ignore
    torch.testing.assert_close(got.adaptive, lengths[0] / (lengths[1] + 1e-4))
    torch.testing.assert_close(got.term, -0.8 * got.adaptive * one.module(made).mean())
    assert not got.adaptive.requires_grad


@pytest.mark.parametrize(("distance", "passed", "expected"), [(1e9, 0.0, 1e4), (0.0, 1.0, 0.0), (3.0, 2.0, 3 / 2.0001)])
def test_the_adaptive_weight_has_bounds(distance: float, passed: float, expected: float) -> None:
    last = torch.ones(1, requires_grad=True)
    assert float(adaptive_weight(distance * last.sum(), passed * last.sum(), last)) == pytest.approx(expected)


def test_hinge_by_hand() -> None:
    # Given: 0.5 lacks 0.5, 3 nothing; made: -2 nothing, 1 is 2 too high.
    assert float(hinge_loss(torch.tensor([0.5, 3.0]), torch.tensor([-2.0, 1.0]))) == 0.5 * (0.25 + 1.0)


def test_it_learns_to_tell_and_shows_the_way() -> None:
    """Blurred pictures are told from sharp ones, and a step along the term makes them pass better."""
    torch.manual_seed(0)
    one = adversary()
    losses: list[float] = []
    for _ in range(60):
        wanted = torch.sign(torch.randn(8, 3, 16, 16))
        made = F.avg_pool2d(wanted, 3, stride=1, padding=1).requires_grad_()
        judged = one.judge(made, wanted, F.l1_loss(made, wanted), made)
        one.optimiser.zero_grad()
        judged.hinge.backward()
        one.optimiser.step()
        losses.append(float(judged.hinge))
    assert losses[0] > 0.8
    assert losses[-1] < 0.2
    wanted = torch.sign(torch.randn(8, 3, 16, 16))
    made = F.avg_pool2d(wanted, 3, stride=1, padding=1).requires_grad_()
    judged = one.judge(made, wanted, F.l1_loss(made, wanted), made)
    (way,) = torch.autograd.grad(judged.term, made)
    assert float(one.module(made - 1e-2 * way / way.abs().max()).mean()) > float(one.module(made).mean())


def test_distances_that_it_is_weighed_by_are_all_but_the_codebooks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    features = PerceptualLoss(EfficientNetLiteConfig(image_size_px=32, levels=("stride8",)).build(), 32)
    lines: list[dict[str, float]] = []
    for name, perceptual in (("without", None), ("with", features)):
        told = recipe(VqConfig.tiny(), 1, SMALL | {"start_step": 0}, perceptual_weight=10.0, l1=0.0, l2=1.0 if perceptual is None else 0.0)
        train_tokenizer(told, pictures(), TokenizerRun(tmp_path / name, perceptual=perceptual))
        lines += read_log(tmp_path / name / "log.jsonl")
    # Of the same picture the same judgement, so the terms are as the weights; a distance left out would weigh nothing.
    assert lines[0]["adaptive_weight"] != lines[1]["adaptive_weight"]
    assert min(line["adaptive_weight"] for line in lines) > 0
    judged = [line["adversarial"] / line["adaptive_weight"] for line in lines]
    assert judged[0] == pytest.approx(judged[1], rel=1e-5)


@TOKENIZERS
def test_before_it_begins_nothing_changes_and_then_it_does(tokenizer: PictureTokenizerConfig, tmp_path: Path) -> None:
    for name, settings in (("without", None), ("with", SMALL)):
        train_tokenizer(recipe(tokenizer, 4, settings), pictures(), TokenizerRun(tmp_path / name))
    plain, judged = (list(read_log(tmp_path / name / "log.jsonl")) for name in ("without", "with"))
    assert plain[:2] == judged[:2]
    assert plain[2] != judged[2]
    told = {"adversarial", "discriminator", "adaptive_weight"}
    assert not told & plain[3].keys()
    assert told <= judged[3].keys()
    for line in judged[2:]:
        parts = sum(line[name] for name in ("l1", "l2", "codebook", "adversarial"))
        assert line["loss"] == pytest.approx(parts, abs=1e-5)
    files = [{p.name for p in (tmp_path / name / "checkpoint.1").iterdir()} for name in ("without", "with")]
    assert files[1] - files[0] == {"discriminator_model.safetensors", "discriminator_optimiser.safetensors"}
    # After step 2 all is as without it, and the discriminator as it was drawn.
    for file in ("model", "optimiser", "rng"):
        assert (tmp_path / "with/checkpoint.1" / f"{file}.safetensors").read_bytes() == (tmp_path / "without/checkpoint.1" / f"{file}.safetensors").read_bytes()
    first, last = (read_file(tmp_path / "with" / name / "discriminator_model.safetensors") for name in ("checkpoint.1", "checkpoint"))
    drawn = adversary().module.state_dict()
    assert all(torch.equal(value, drawn[name]) for name, value in first.items())
    # Between -1 and 1 given and made logits pull equally at what is added to both.
    assert {name for name, value in first.items() if torch.equal(value, last[name])} <= {"main.8.bias"}
    # What is made is the tokenizer alone.
    assert read_file(tmp_path / "with/model.safetensors").keys() == read_file(tmp_path / "without/model.safetensors").keys()


@TOKENIZERS
@pytest.mark.parametrize("start_step", [2, 6])
def test_a_resumed_run_is_the_same_bit_for_bit(tokenizer: PictureTokenizerConfig, start_step: int, tmp_path: Path) -> None:
    """Cut off after step 6, when the discriminator has learnt for a while, and when it has not begun."""
    whole = recipe(tokenizer, 9, SMALL | {"start_step": start_step}, checkpoint_every=3)
    for name in ("whole", "cut"):
        train_tokenizer(whole, pictures(), TokenizerRun(tmp_path / name))
    run = tmp_path / "cut"
    for name in ("checkpoint/state.json", "model.safetensors", "config.json"):
        (run / name).unlink()
    train_tokenizer(whole, pictures(), TokenizerRun(run, resume=True))
    for file in ("model", "checkpoint/model", "checkpoint/discriminator_model", "checkpoint/discriminator_optimiser", "checkpoint/rng"):
        assert (run / f"{file}.safetensors").read_bytes() == (tmp_path / "whole" / f"{file}.safetensors").read_bytes(), file
    assert (run / "log.jsonl").read_bytes() == (tmp_path / "whole/log.jsonl").read_bytes()


def test_a_run_goes_on_with_the_discriminator_that_it_began_with(tmp_path: Path) -> None:
    begun = recipe(VqConfig.tiny(), 3, SMALL)
    train_tokenizer(begun, pictures(), TokenizerRun(tmp_path))
    for settings, named in ((None, "training.adversarial"), (SMALL | {"width": 16}, "training.adversarial.width"),
                            (SMALL | {"weight": 0.5}, "training.adversarial.weight")):  # fmt: skip
        with pytest.raises(ConfigError, match=f"other settings or pictures: {named};"):
            train_tokenizer(recipe(VqConfig.tiny(), 3, settings), pictures(), TokenizerRun(tmp_path, resume=True))
    with pytest.raises(ConfigError, match="other settings or pictures: pictures;"):
        train_tokenizer(begun, pictures(9), TokenizerRun(tmp_path, resume=True))


def test_a_checkpoint_from_before_there_was_one_is_still_read(tmp_path: Path) -> None:
    plain = recipe(VqConfig.tiny(), 5, None)
    for name in ("whole", "old"):
        train_tokenizer(plain, pictures(), TokenizerRun(tmp_path / name))
    for name in ("checkpoint/state.json", "model.safetensors", "config.json"):
        (tmp_path / "old" / name).unlink()
    state = tmp_path / "old/checkpoint.1/state.json"
    said = json.loads(state.read_text())
    del said["recipe"]["training"]["adversarial"]
    state.write_text(json.dumps(said))
    train_tokenizer(plain, pictures(), TokenizerRun(tmp_path / "old", resume=True))
    assert (tmp_path / "old/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    run = TokenizerRun(tmp_path / "run")
    for tokenizer, settings, reason in (
        (SeedConfig.tiny(), SMALL, "'seed', which gives no pixels back"),
        (VqConfig.tiny(), SMALL | {"start_step": 3}, "begins behind step 3 of 3; expected 0 to 2"),
        (VqConfig.tiny(), SMALL | {"layers": 3}, "leave nothing of 16 pixels; expected 24 pixels or more"),
    ):
        with pytest.raises(ConfigError, match=reason):
            train_tokenizer(recipe(tokenizer, 3, settings), pictures(), run)
    assert not run.folder.exists()


def test_by_the_command_on_shipped_pictures(tmp_path: Path) -> None:
    settings = ["tokenizer.size_px=16", "tokenizer.codes=16", "tokenizer.widths=[8, 16]", "tokenizer.blocks=0", "training.steps=3",
                "training.batch_size=4", "training.adversarial={start_step: 1, layers: 2, width: 8}"]  # fmt: skip
    out = ["--out", str(tmp_path / "run"), "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, ["tokenizer", "train", *settings, *out], catch_exceptions=False)
    said = json.loads(done.stdout)
    assert said["pictures"] > 4
    assert 0 < said["discriminator"] < 4
    assert said["adaptive_weight"] > 0
    assert [("discriminator" in line) for line in read_log(tmp_path / "run/log.jsonl")] == [False, True, True]
    shown = CliRunner().invoke(app, ["tokenizer", "report", str(tmp_path / "run"), "--limit", "4", "--device", "cpu", "--json"], catch_exceptions=False)
    assert json.loads(shown.stdout)["pictures"] == 4
