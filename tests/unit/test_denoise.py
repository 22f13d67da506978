"""Conditions that are heard through their generators: errors are those of diffusers' own schedulers and UNets, gradients go to projector and
LLM alone, media are read with their rows, and what cannot be done says so."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pretend_gpu import PretendGpu, move_to_gpu
from torch import Tensor
from torch.nn import functional as F

from sensorium.api import Model
from sensorium.core.batch import Batch, Wanted
from sensorium.core.errors import ConfigError, DataError
from sensorium.core.hands import Made
from sensorium.core.sample import parse_sample
from sensorium.data.config import FileSource
from sensorium.data.loader import make_example
from sensorium.generators import GENERATORS, tiny_parts
from sensorium.interop.assemble import build_pretrained
from sensorium.media.audio_file import wav_bytes
from sensorium.media.limits import ImageLimits
from sensorium.model.device import to_device
from sensorium.nn.log_mel import MelShape, log_mel
from sensorium.processing.collate import collate
from sensorium.processing.processor import Processor
from sensorium.processing.wanted_moving import video_pixels
from sensorium.recipes import TINY_FORMS
from sensorium.training.objectives.denoise import DenoiseConfig, denoisers
from sensorium.training.objectives.generate import GenerateConfig
from sensorium.training.preflight import check_stages

pytestmark = pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
SIZES: dict[str, Any] = {"image": {}, "video": {"height_px": 32, "width_px": 64, "frames": 3}, "audio": {"seconds": 0.032}}
COLOURS = np.array([[9, 99, 9], [9, 9, 200], [200, 9, 99]], np.uint8)


def frames(count: int) -> np.ndarray[Any, Any]:
    """Each of one colour, so that stretching changes nothing."""
    return np.tile(COLOURS[:count, None, None], (1, 40, 50, 1))


TONE = np.sin(np.arange(100) / 3)
MEDIA: dict[str, list[Any]] = {
    "image": [Image.new("RGB", (64, 64), (9, 99, 9)), Image.new("RGB", (90, 70), (9, 9, 200))],
    "video": [Made("video", frames(3), fps=1.0), [Image.fromarray(one) for one in frames(2)]],
    "audio": [Made("audio", TONE, sample_rate_hz=4000), Made("audio", np.concatenate([TONE[::-1], TONE]), sample_rate_hz=4000)],
}


def row(kind: str, medium: Any) -> dict[str, Any]:
    said = [{"type": "text", "text": "so be it "}, {"type": kind, kind: medium}]
    return {"messages": [{"role": "user", "content": "Make."}, {"role": "assistant", "content": said}]}


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model(*build_pretrained(TINY_FORMS.find("next-gpt-1.5")().model))


def hearing(model: Model, kind: str, **changes: Any) -> tuple[Any, Batch]:
    """An objective of the error alone, and two rows as it wants them."""
    told = GenerateConfig(weight=0.0, text_weight=0.0, denoise=DenoiseConfig.from_dict({kind: SIZES[kind] | changes}))
    processor = model.processor.with_template(None)
    objective = told.build(model.network, processor, ())
    return objective, collate([[processor.encode(parse_sample(row(kind, one)))] for one in MEDIA[kind]], model.tokenizer.pad_id)


def latents_by_hand(kind: str, pipe: Any, seed: int) -> Tensor:
    """What the VAE's own class makes of the media, which are written down again."""
    drawn = torch.Generator().manual_seed(seed)
    scale = pipe.vae.config.scaling_factor
    if kind == "image":
        values = (torch.tensor(COLOURS[:2]) / 127.5 - 1)[:, :, None, None].expand(-1, -1, 64, 64)
    elif kind == "video":
        # The second video lacks a frame, which is black.
        colours_NC = torch.tensor(np.concatenate([COLOURS, COLOURS[:2], np.zeros((1, 3), np.uint8)]))
        values = (colours_NC / 127.5 - 1)[:, :, None, None].expand(-1, -1, 32, 64)
    else:
        made_BN = np.zeros((2, 128), np.float32)
        for n, heard_N in enumerate((TONE, np.concatenate([TONE[::-1], TONE])[:128])):
            heard_N = heard_N - heard_N.mean()
            made_BN[n, : len(heard_N)] = 0.5 * heard_N / np.abs(heard_N).max()
        values = log_mel(torch.from_numpy(made_BN), pipe_mel(pipe))[:, None]
        assert values.shape == (2, 1, 32, 16)
    clean = pipe.vae.encode(values).latent_dist.sample(drawn) * scale
    return clean if kind != "video" else torch.stack([clean[:3], clean[3:]]).permute(0, 2, 1, 3, 4)


def pipe_mel(pipe: Any) -> MelShape:
    assert pipe.vocoder.config.upsample_rates == [2, 2]
    return MelShape(rate_hz=4000, bands=16, hop=4, window=64)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("gamma", [None, 5.0])
@pytest.mark.parametrize("kind", MEDIA)
def test_it_is_what_diffusers_own_parts_say(kind: str, gamma: float | None, prediction: str, model: Model) -> None:
    pipe: Any = model.network.generators[kind].pipe  # pyright: ignore[reportAttributeAccessIssue]
    before = pipe.scheduler
    pipe.scheduler = tiny_parts.scheduler(prediction_type=prediction)
    try:
        objective, batch = hearing(model, kind, gamma=gamma, weight=3.0)
        with torch.no_grad():
            torch.manual_seed(6)
            losses = objective(model.network, batch)
            torch.manual_seed(6)
            clean = latents_by_hand(kind, pipe, int(torch.randint(2**31, ())))
            noise, steps_B = torch.randn(clean.shape), torch.randint(1000, (2,))
            places = [(one.row, one.start) for one in batch.wanted]
            condition_BLC = model.network.condition(kind, model.network(batch).hidden_BTD, batch.input_ids_BT, places)
            schedule = importlib.import_module("diffusers").DDPMScheduler.from_config(pipe.scheduler.config)
            noisy = schedule.add_noise(clean, noise, steps_B)
            if kind == "audio":
                said = pipe.unet(noisy, steps_B, None, class_labels=condition_BLC.squeeze(1)).sample
            else:
                said = pipe.unet(noisy, steps_B, condition_BLC).sample
    finally:
        pipe.scheduler = before
    wanted = noise if prediction == "epsilon" else schedule.get_velocity(clean, noise, steps_B)
    errors_B = F.mse_loss(said, wanted, reduction="none").flatten(1).mean(dim=1)
    if gamma is not None:
        # As diffusers' training scripts weigh, with what they import.
        ratio_B = importlib.import_module("diffusers.training_utils").compute_snr(schedule, steps_B)
        errors_B = errors_B * ratio_B.clamp(max=gamma) / (ratio_B if prediction == "epsilon" else ratio_B + 1)
    assert losses.parts[f"diffusion.{kind}"] == pytest.approx(float(errors_B.mean()), rel=1e-5)
    signals = len(model.processor.signals[kind])
    assert float(losses.total) == pytest.approx(3 * signals * float(errors_B.sum()), rel=1e-5)


@pytest.mark.parametrize("kind", MEDIA)
def test_gradients_reach_projector_and_llm_and_nothing_of_the_pipeline(kind: str, model: Model) -> None:
    objective, batch = hearing(model, kind)
    model.network.zero_grad()
    objective(model.network, batch).total.backward()
    reached = {".".join(name.split(".")[:2]) for name, weight in model.network.named_parameters() if weight.grad is not None and bool(weight.grad.any())}
    assert reached == {f"hands.{kind}", "backbone.lm"}
    pipe: Any = model.network.generators[kind].pipe  # pyright: ignore[reportAttributeAccessIssue]
    frozen = [*pipe.unet.parameters(), *pipe.vae.parameters()]
    assert frozen
    assert all(weight.grad is None for weight in frozen)
    assert not any(weight.requires_grad for weight in pipe.unet.parameters())


def test_on_a_gpu_it_is_the_same() -> None:
    """A pretended one, which refuses operations on tensors of two devices: media and noise come from the processor."""
    torch.manual_seed(0)
    built = Model(*build_pretrained(TINY_FORMS.find("next-gpt-1.5")().model))

    def heard(kind: str) -> dict[str, float]:
        objective, batch = hearing(built, kind)
        torch.manual_seed(2)
        return objective(built.network, to_device(batch, built.network.device)).parts

    wanted = {kind: heard(kind) for kind in MEDIA}
    move_to_gpu(built.network)
    for kind in MEDIA:
        pipe: Any = built.network.generators[kind].pipe  # pyright: ignore[reportAttributeAccessIssue]
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                move_to_gpu(part)
    with PretendGpu() as gpu:
        for kind, parts in wanted.items():
            before = gpu.operations
            assert heard(kind) == pytest.approx(parts, abs=1e-4)
            assert gpu.operations > before + 100


def test_frames_are_stretched_as_diffusers_does() -> None:
    """`VideoProcessor`, which NExT-GPT reads its videos with; and those that are not there are black."""
    moving = np.random.default_rng(0).integers(0, 256, (5, 40, 70, 3), dtype=np.uint8)
    ours = video_pixels(Wanted("video", 0, 1, "", Made("video", moving, fps=2.0)), (32, 64), 4, 1.0, ImageLimits())
    assert ours.shape == (4, 3, 32, 64)
    assert not ours[3].any()
    theirs = importlib.import_module("diffusers.video_processor").VideoProcessor().preprocess_video([Image.fromarray(one) for one in moving[::2]], 32, 64)
    torch.testing.assert_close(ours[:3].transpose(0, 1)[None] / 127.5 - 1, theirs, atol=1e-6, rtol=0)


def test_media_are_read_with_their_rows_and_lengths_without(model: Model, tmp_path: Path) -> None:
    rows = [row("audio", "rain.wav"), row("audio", "gone.wav"), row("audio", {"way": "first"})]
    (tmp_path / "rain.wav").write_bytes(wav_bytes(TONE, 4000))
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(one) for one in rows), encoding="utf-8")
    source = FileSource(path=str(tmp_path / "rows.jsonl")).open()
    processor = model.processor.with_template(None)
    GenerateConfig(denoise=DenoiseConfig.from_dict({"audio": SIZES["audio"]})).build(model.network, processor, ())
    [heard] = make_example(processor, source[0], "row 1").wanted
    assert heard.medium.shape == (128,)
    assert float(heard.medium.abs().max()) == pytest.approx(0.5, abs=1e-5)
    with pytest.raises(DataError, match=r"row 2: .*gone\.wav: no such file"):
        make_example(processor, source[1], "row 2")
    with pytest.raises(DataError, match=r"row 3: audio is a dict; expected a path"):
        make_example(processor, source[2], "row 3")
    # Plans are made from lengths alone, and whoever does not hear leaves the file.
    assert len(processor.measure(source[1])) == len(model.processor.encode(source[1])) == len(processor.encode(source[0]))
    assert model.processor.encode(source[1]).wanted[0].medium == "gone.wav"


def test_a_stage_reads_what_it_learns_from_and_no_other_does(model: Model) -> None:
    recipe = TINY_FORMS.find("next-gpt-1.5")()
    _, ready = check_stages(recipe, model.network, Processor(recipe.model, model.tokenizer))
    assert [sorted(parts.processor.readers) for parts in ready] == [[], ["audio", "image", "video"], []]
    assert ready[1].objective(model.network, collate([[ready[1].processor.encode(ready[1].sources[0][2])]], model.tokenizer.pad_id)).parts.keys() == {
        "next_token", "condition.audio", "diffusion.audio",
    }  # fmt: skip


def test_what_cannot_be_heard_is_refused(model: Model) -> None:
    config = model.network.config
    other = config.hands["audio"].model_copy(update={"generator": GENERATORS.find("audioldm2").tiny()})
    hands = {"image": config.hands["image"], "audio": other}
    built = Model(*build_pretrained(config.model_copy(update={"hands": hands})))

    def refused(told: dict[str, Any], by: Model, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            denoisers(DenoiseConfig.from_dict(told), by.network, by.processor.with_template(None))

    refused({"video": {}}, built, "noise of video for a model that makes none of its states")
    refused({"audio": {}}, built, "noise of audio by a generator of kind audioldm2; expected a pipeline .* trained through")
    refused({"audio": {"seconds": 0.001}}, model, r"0\.001 seconds of sound; expected at least 0\.016")
