"""Does a VQ tokenizer learn pictures by heart, resume bit for bit, and report what it does?"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from sensorium.cli.main import app
from sensorium.core.errors import CheckpointError, ConfigError
from sensorium.encoders.efficientnet_lite import EfficientNetLiteConfig
from sensorium.evaluation.reconstruction import measure, psnr_db, reconstruct, write_sheet
from sensorium.generators.chameleon_vq import ChameleonVqConfig
from sensorium.generators.janus_vq import JanusVqConfig
from sensorium.generators.tokenizer_files import open_tokenizer
from sensorium.generators.vq import VqConfig
from sensorium.nn.perceptual import PerceptualLoss
from sensorium.training import tokenizer_checkpoint
from sensorium.training.log import read_log
from sensorium.training.tokenizer import (
    TokenizerRecipe,
    TokenizerRun,
    TokenizerTraining,
    batch_of,
    train_tokenizer,
)


def pictures(count: int = 16, size_px: int = 16) -> Tensor:
    """Coloured halves: simple enough to learn, different enough to need several codes."""
    rng = np.random.default_rng(0)
    pixels = np.repeat(rng.integers(0, 256, (count, 3, 1, 1)), size_px, 2).repeat(size_px, 3)
    pixels[:, :, size_px // 2 :] = rng.integers(0, 256, (count, 3, 1, 1))
    return torch.from_numpy(pixels.astype(np.uint8))


def recipe(steps: int, **changes: object) -> TokenizerRecipe:
    training = {"steps": steps, "batch_size": 16, "lr": 5e-3, "checkpoint_every": 3, "flip": False,
                "schedule": {"warmup_steps": 3}, **changes}  # fmt: skip
    return TokenizerRecipe(
        tokenizer=VqConfig.from_dict({**VqConfig.tiny().to_dict(), "codes": 32}), training=TokenizerTraining.from_dict(training)
    )


def test_it_learns_sixteen_pictures_by_heart(tmp_path: Path) -> None:
    pixels = pictures()
    train_tokenizer(recipe(150, checkpoint_every=1000), pixels, TokenizerRun(tmp_path / "run"))
    losses = [line["l1"] + line["l2"] for line in read_log(tmp_path / "run" / "log.jsonl")]
    assert losses[-1] < losses[0] / 3, (losses[0], losses[-1])
    tokenizer = open_tokenizer(tmp_path / "run")
    report = measure(tokenizer, *reconstruct(tokenizer, pixels), pixels)
    assert report.psnr_db > 17
    assert report.pictures == 16


def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    pixels, whole = pictures(10), recipe(9)
    train_tokenizer(whole, pixels, TokenizerRun(tmp_path / "a"))
    train_tokenizer(whole, pixels, TokenizerRun(tmp_path / "b"))
    # Back to the checkpoint after step 6: its run goes on as if it had been cut off there.
    run = tmp_path / "b"
    (run / "checkpoint" / "state.json").unlink()
    for name in ("model.safetensors", "config.json"):
        (run / name).unlink()
    with pytest.raises(ConfigError, match="--resume"):
        train_tokenizer(whole, pixels, TokenizerRun(run))
    with pytest.raises(ConfigError, match="other settings"):
        train_tokenizer(recipe(9, lr=1e-3), pixels, TokenizerRun(run, resume=True))
    train_tokenizer(whole, pixels, TokenizerRun(run, resume=True))
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "a" / "model.safetensors").read_bytes()
    assert (run / "log.jsonl").read_bytes() == (tmp_path / "a" / "log.jsonl").read_bytes()


@pytest.mark.parametrize(("failing", "name"), [(5, "checkpoint"), (7, "model.safetensors")])
def test_a_full_disk_is_named_and_the_run_goes_on(failing: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the second checkpoint, which are three files each, or behind all training."""
    pixels, short = pictures(), recipe(6)
    real, written = tokenizer_checkpoint.write_tensors, list[Path]()

    def write(path: Path, tensors: Mapping[str, Tensor]) -> str:
        written.append(path)
        if len(written) == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, tensors)

    train_tokenizer(short, pixels, TokenizerRun(tmp_path / "whole"))
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(tokenizer_checkpoint, "write_tensors", write)
        with pytest.raises(CheckpointError, match=rf"{run / name}: cannot be written: No space left on device.*--resume"):
            train_tokenizer(short, pixels, TokenizerRun(run))
    assert not list(run.glob(".*"))
    train_tokenizer(short, pixels, TokenizerRun(run, resume=True))
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_each_epoch_shows_every_picture_once() -> None:
    pixels = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 3, 4, 4)
    training = TokenizerTraining(batch_size=4, flip=False)
    shown = [int(v) for step in range(5) for v in batch_of(pixels, training, step)[:, 0, 0, 0]]
    assert sorted(shown[:10]) == sorted(shown[10:]) == list(range(10))
    assert shown[:10] != shown[10:]


def test_mirrored_pictures_are_some_of_them() -> None:
    pixels = torch.arange(4, dtype=torch.uint8).expand(64, 3, 4, 4)
    got = batch_of(pixels, TokenizerTraining(batch_size=64), 0)
    kinds = {tuple(row) for row in got[:, 0, 0].tolist()}
    assert kinds == {(0, 1, 2, 3), (3, 2, 1, 0)}


def test_a_perceptual_term_leads_the_picture_and_not_the_encoder() -> None:
    torch.manual_seed(0)
    loss = PerceptualLoss(EfficientNetLiteConfig(image_size_px=32, levels=("stride8",)).build(), 32).train()
    assert not any(module.training for module in loss.encoder.modules())
    wanted = torch.rand(1, 3, 16, 16) * 2 - 1
    made = (wanted + 0.3 * torch.randn_like(wanted)).requires_grad_()
    distance = loss(made, wanted)
    distance.backward()
    assert float(loss(wanted, wanted)) < 1e-10 < float(distance)
    assert made.grad is not None
    assert float(made.grad.norm()) > 0
    assert all(p.grad is None for p in loss.parameters())
    step = made.detach() - 0.05 * made.grad / made.grad.norm()
    assert float(loss(step, wanted)) < float(distance)


def test_psnr_by_hand() -> None:
    black, grey = torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.full((1, 3, 2, 2), 51, dtype=torch.uint8)
    assert float(psnr_db(grey, black)) == pytest.approx(20 * math.log10(5))
    assert float(psnr_db(black, black)) == 100


def test_a_sheet_has_originals_above_reconstructions(tmp_path: Path) -> None:
    wanted = pictures(10)
    write_sheet(tmp_path / "sheet.png", wanted, 255 - wanted)
    with Image.open(tmp_path / "sheet.png") as sheet:
        shown = np.asarray(sheet)
    assert shown.shape == (64, 128, 3)
    for i, top in ((1, 0), (9, 32)):
        left = i % 8 * 16
        picture = wanted[i].permute(1, 2, 0).numpy()
        assert np.array_equal(shown[top : top + 16, left : left + 16], picture)
        assert np.array_equal(shown[top + 16 : top + 32, left : left + 16], 255 - picture)


def test_the_commands(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, picture in enumerate(pictures(24)):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
    run, sheet = tmp_path / "run", tmp_path / "sheet.png"
    settings = ["tokenizer.size_px=16", "tokenizer.codes=16", "tokenizer.widths=[8, 16]", "tokenizer.blocks=0",
                "training.steps=2", "training.batch_size=4"]  # fmt: skip
    common = ["--pictures", str(folder), "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, ["tokenizer", "train", *settings, "--out", str(run), *common], catch_exceptions=False)
    assert json.loads(done.stdout)["steps"] == 2
    again = CliRunner().invoke(app, ["tokenizer", "report", str(run), "--sheet", str(sheet), *common], catch_exceptions=False)
    said = json.loads(again.stdout)
    assert said["grid"] == [4, 4]
    assert 0 < said["pictures"] < 24
    assert 1 <= said["perplexity"] <= 16
    assert sheet.exists()
    assert sorted(p.name for p in run.iterdir()) == ["checkpoint", "config.json", "log.jsonl", "model.safetensors", "training.json"]


def chameleon(steps: int, **changes: object) -> TokenizerRecipe:
    training = recipe(steps, **changes).training
    return TokenizerRecipe(tokenizer=ChameleonVqConfig.tiny(), training=training)


def test_chameleons_tokenizer_trains_in_the_published_layout(tmp_path: Path) -> None:
    """What transformers' class computes, and a decoder behind it: from random weights, whatever their size."""
    pixels = pictures(8)
    train_tokenizer(chameleon(15, checkpoint_every=1000), pixels, TokenizerRun(tmp_path / "run"))
    losses = [line["l1"] + line["l2"] for line in read_log(tmp_path / "run" / "log.jsonl")]
    # So narrow a one norms every channel by itself, and forgets colours: it learns little.
    assert losses[-1] < 0.9 * losses[0], (losses[0], losses[-1])
    tokenizer: Any = open_tokenizer(tmp_path / "run")
    assert isinstance(tokenizer.config, ChameleonVqConfig)
    ids_BN = tokenizer.encode(pixels)
    made = tokenizer.forward(tokenizer.to_values(pixels))
    assert torch.equal(made.ids_BN, ids_BN)
    # Learned through: what comes out is what codes are drawn as.
    torch.testing.assert_close(made.values_BCHW, tokenizer.decode_values(ids_BN, tokenizer.grid), rtol=1e-4, atol=1e-5)
    names = {name.split(".")[1] for name, value in tokenizer.named_parameters() if _reached(tokenizer, pixels)[name]}
    assert names == {"encoder", "quant_conv", "quantize", "post_quant_conv", "decoder"}


def _reached(tokenizer: Any, pixels: Tensor) -> dict[str, bool]:
    tokenizer.zero_grad(set_to_none=True)
    out = tokenizer(tokenizer.to_values(pixels))
    (out.values_BCHW.square().mean() + out.loss).backward()
    return {name: value.grad is not None and bool(value.grad.any()) for name, value in tokenizer.named_parameters()}


def test_chameleons_resumes_bit_for_bit(tmp_path: Path) -> None:
    pixels = pictures(8)
    for name in ("whole", "cut"):
        train_tokenizer(chameleon(7), pixels, TokenizerRun(tmp_path / name))
    # Back to the checkpoint after step 6.
    for name in ("checkpoint/state.json", "model.safetensors", "config.json"):
        (tmp_path / "cut" / name).unlink()
    train_tokenizer(chameleon(7), pixels, TokenizerRun(tmp_path / "cut", resume=True))
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_one_that_does_not_train_is_refused(tmp_path: Path) -> None:
    for config, reason in ((JanusVqConfig.tiny(), "which train here"), (ChameleonVqConfig.tiny().model_copy(update={"decoder": False}), "without a decoder")):
        told = TokenizerRecipe(tokenizer=config, training=recipe(2).training)
        with pytest.raises(ConfigError, match=reason):
            train_tokenizer(told, pictures(4), TokenizerRun(tmp_path / config.kind))
