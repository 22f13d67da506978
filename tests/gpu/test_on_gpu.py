"""On a real GPU: answers and losses are the processor's, fast ways are the plain ones, runs resume bit for bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from test_model import CASES, make, samples
from tiny_batches import model_and_batches, tiny
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.backbones.causal_lm import CausalLM
from sensorium.core.batch import Batch
from sensorium.inference.sampling import Sampling
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import save_model
from sensorium.model.compiled import Passes, compiling
from sensorium.model.device import to_device
from sensorium.model.half_frozen import frozen_layers, half_frozen
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.answer_loss import answer_loss
from sensorium.nn.pretrained import read_file
from sensorium.recipes import TINY_FORMS
from sensorium.training.checkpoint import load_checkpoint
from sensorium.training.config import Recipe
from sensorium.training.log import read_log
from sensorium.training.objectives.next_token import next_token_losses
from sensorium.training.options import TrainerOptions
from sensorium.training.run import train_recipe

CUDA = torch.device(os.environ.get("SENSORIUM_GPU_TESTS_ON", "cuda"))
"""`cpu`, to see on a processor whether the tests themselves are right."""
PACKED = ("stages.instruct.pack=true", "stages.instruct.batch_size=2")
WIDE = ("model.backbone.arch.num_attention_heads=3", "model.backbone.arch.num_key_value_heads=1")
"""Heads that the kernel takes."""
needs_cuda = pytest.mark.skipif(CUDA.type != "cuda", reason="of a GPU's own")
NAMES = ("clip", "llava-1.5", "llava-1.5-lora", "llava-next", "blip", "blip2-opt", "blip2-t5", "instructblip", "minigpt-v2", "mplug-owl", "qwen-vl",
         "qwen2.5-vl", "kosmos-2", "flamingo", "idefics-9b", "cogagent", "llama-adapter", "fromage", "gill", "next-gpt", "minigpt-5", "lisa", "mgie",
         "emu", "emu2", "emu3", "chameleon", "janus", "seed-llama", "seed-queries")  # fmt: skip
"""Whose tiny forms have all kinds of parts, objectives and generators."""


def bf16() -> AbstractContextManager[Any]:
    return torch.autocast(CUDA.type, dtype=torch.bfloat16)


def gradients(model: MultimodalModel, batch: Batch, context: AbstractContextManager[Any]) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    with context:
        loss = next_token_losses(model, batch).total
    loss.backward()
    return float(loss.detach()), {name: p.grad.float().clone() for name, p in model.named_parameters() if p.grad is not None}


def apart(found: tuple[float, dict[str, Tensor]], wanted: tuple[float, dict[str, Tensor]]) -> float:
    """The largest relative difference of a loss or of a gradient that is more than rounding."""
    assert found[1].keys() == wanted[1].keys()
    most = max(float(g.norm()) for g in wanted[1].values())
    told = [float((found[1][n] - g).norm() / g.norm()) for n, g in wanted[1].items() if float(g.norm()) > 1e-3 * most]
    return max(*told, abs(found[0] / wanted[0] - 1))


def here(count: int, *overrides: str) -> tuple[MultimodalModel, list[Batch]]:
    model, batches = model_and_batches(count, *PACKED, *WIDE, *overrides)
    return model.to(CUDA), [to_device(batch, CUDA) for batch in batches]


@pytest.mark.parametrize(("fusion", "lm"), CASES)
def test_answers(fusion: str, lm: str) -> None:
    model = make(fusion, lm)
    model.processor.stop_ids.clear()
    prompts = [model.processor.prompt(s.messages[:1]) for s in samples()]
    sampling = Sampling(repetition_penalty=1.3)
    expected = model.engine.generate(prompts, max_tokens=5, sampling=sampling)
    model.network.to(CUDA)
    assert model.engine.generate(prompts, max_tokens=5, sampling=sampling) == expected
    assert model.engine.generate(prompts[:1], max_tokens=3, sampling=Sampling(temperature=1.0, top_k=9, top_p=0.8))


def test_losses_are_the_processors() -> None:
    model, batches = model_and_batches(2, *PACKED)
    plain = [gradients(model, batch, nullcontext()) for batch in batches]
    model.to(CUDA)
    for batch, wanted in zip(batches, plain, strict=True):
        found = gradients(model, to_device(batch, CUDA), nullcontext())
        assert apart((found[0], {n: g.cpu() for n, g in found[1].items()}), wanted) < 1e-3


def test_one_kernel_for_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batches = here(3)
    for batch in batches:
        exact, fast = gradients(model, batch, nullcontext()), gradients(model, batch, bf16())
        with monkeypatch.context() as patch:
            patch.setattr("sensorium.backbones.causal_lm.segments_on", lambda *_: False)
            masked = gradients(model, batch, bf16())
        assert apart(fast, exact) < max(0.05, 1.5 * apart(masked, exact))


@pytest.mark.parametrize("compiled", [False, True])
def test_frozen_weights_in_half_precision(compiled: bool) -> None:
    """What learns here lies behind all attention, whose kernel may sum gradients in any order. Compiled programs may round otherwise."""
    model, batches = here(2)
    assert isinstance(model.backbone, CausalLM)
    model.requires_grad_(False)
    last: Any = model.backbone.decoder_layers()[-1]
    last.mlp.requires_grad_(True)
    exact = [gradients(model, batch, nullcontext()) for batch in batches]
    with compiling(model, compiled and CUDA.type == "cuda"):
        wanted = [gradients(model, batch, bf16()) for batch in batches]
        with half_frozen(frozen_layers(model, ())):
            assert last.self_attn.q_proj.weight.dtype == torch.bfloat16
            found = [gradients(model, batch, bf16()) for batch in batches]
    for one, other, true in zip(found, wanted, exact, strict=True):
        assert apart(one, true) < max(0.05, 1.5 * apart(other, true))
        if not compiled:
            assert one[0] == other[0]
            assert all(torch.equal(one[1][n], g) for n, g in other[1].items())


@needs_cuda
@pytest.mark.parametrize("several", [False, True])
def test_a_recording_is_what_it_records(several: bool) -> None:
    model, batches = here(6)
    assert isinstance(model.backbone, CausalLM)
    exact = [gradients(model, batch, nullcontext()) for batch in batches]
    plain = [gradients(model, batch, bf16()) for batch in batches]
    tokens = 2 * max(batch.input_ids_BT.shape[1] for batch in batches)
    with compiling(model, True, Passes(tokens, several)):
        for batch, wanted, true in zip(batches, plain, exact, strict=True):
            assert apart(gradients(model, batch, bf16()), true) < max(0.05, 1.5 * apart(wanted, true))
        assert model.backbone.recorded is not None
        assert model.backbone.recorded._stack is not None
        if several:
            model.zero_grad(set_to_none=True)
            for batch in batches[:2]:
                with bf16():
                    next_token_losses(model, batch).total.backward()
            name = next(n for n, _ in model.named_parameters() if n.startswith("backbone") and ".layers.0.mlp" in n)
            both = exact[0][1][name] + exact[1][1][name]
            found = model.get_parameter(name).grad
            assert found is not None
            assert float((found - both).norm() / both.norm()) < 0.05
    assert model.backbone.recorded is None


def test_compiled_without_a_recording() -> None:
    model, batches = here(2)
    plain = [(gradients(model, batch, bf16()), gradients(model, batch, nullcontext())) for batch in batches]
    with compiling(model, True):
        for batch, (wanted, true) in zip(batches, plain, strict=True):
            assert apart(gradients(model, batch, bf16()), true) < max(0.05, 1.5 * apart(wanted, true))


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
@pytest.mark.parametrize("learns", [False, True])
def test_the_vocabulary_at_once(learns: bool, z_loss: float) -> None:
    torch.manual_seed(0)
    hidden_ND = torch.randn(5000, 64, device=CUDA, requires_grad=True)
    head_VD = (torch.randn(49152, 64, device=CUDA) / 8).requires_grad_(learns)
    targets_N = torch.randint(0, 49152, (5000,), device=CUDA)
    learning = (hidden_ND, head_VD) if learns else (hidden_ND,)
    total = answer_loss(hidden_ND, head_VD, targets_N, z_loss=z_loss).total
    scores_NV = hidden_ND @ head_VD.t()
    wanted = F.cross_entropy(scores_NV, targets_N, reduction="sum") + z_loss * torch.logsumexp(scores_NV, dim=-1).square().sum()
    assert float(total.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    pairs = zip(torch.autograd.grad(total, learning), torch.autograd.grad(wanted, learning), strict=True)
    assert all(float((a - b).norm() / b.norm()) < 1e-4 for a, b in pairs)


def run(recipe: Recipe, folder: Path, *, resume: bool = False, device: torch.device = CUDA) -> list[float]:
    def build() -> tuple[MultimodalModel, Any]:
        model, tokenizer = build_pretrained(recipe.model)
        return model.to(device), tokenizer

    train_recipe(recipe, build, save_model, TrainerOptions(folder=folder, cache=folder.parent / "cache", resume=resume))
    return [line["loss"] for line in read_log(folder / "log.jsonl")]


@pytest.mark.parametrize("overrides", [("precision=fp32",), ("precision=auto", "cache_features=true"), ("precision=bf16", "compile=true", "record=true")])
def test_training_resumes_bit_for_bit(tmp_path: Path, overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where kernels add in one order: some of torch's own do not unless they are told to."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        resumes(tmp_path, overrides)
    finally:
        torch.use_deterministic_algorithms(False)


def stopped_in_the_middle(folder: Path) -> None:
    """As if a run of two checkpoints had been stopped behind the first."""
    shutil.rmtree(folder / "checkpoint")
    saved = load_checkpoint(folder / "checkpoint")
    assert saved is not None
    assert (saved.stage, saved.step) == (1, 4)


def resumes(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    told = [*WIDE, *(f"stages.instruct.{one}" for one in overrides)]
    recipe = tiny(*PACKED, *told, "stages.align.steps=2", "stages.instruct.steps=8", "stages.instruct.checkpoint_every=4")
    whole = run(recipe, tmp_path / "whole")
    half = tiny(*PACKED, *told, "stages.align.steps=2", "stages.instruct.steps=8", "stages.instruct.checkpoint_every=4")
    run(half, tmp_path / "half")
    stopped_in_the_middle(tmp_path / "half")
    again = run(half, tmp_path / "half", resume=True)
    assert again == whole
    a, b = (read_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "half"))
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("devices", [(CUDA, torch.device("cpu")), (torch.device("cpu"), CUDA)])
def test_a_run_goes_on_elsewhere(tmp_path: Path, devices: tuple[torch.device, torch.device]) -> None:
    recipe = tiny(*PACKED, "stages.align.steps=2", "stages.instruct.steps=8", "stages.instruct.checkpoint_every=4",
                  "stages.instruct.precision=fp32", "stages.align.precision=fp32")  # fmt: skip
    whole = run(recipe, tmp_path / "run", device=devices[0])
    stopped_in_the_middle(tmp_path / "run")
    assert run(recipe, tmp_path / "run", resume=True, device=devices[1]) == pytest.approx(whole, rel=1e-3)


def test_a_launched_process(tmp_path: Path) -> None:
    """Of several, nccl among them, one GPU shows nothing."""
    command = [sys.executable, "-m", "sensorium.cli.main", "launch", "--processes", "1", "--", "train", "tiny",
               "stages.align.steps=2", "stages.instruct.steps=2", "--out", str(tmp_path / "run")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert len(read_log(tmp_path / "run" / "log.jsonl")) == 4


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_a_published_recipe(name: str, tmp_path: Path) -> None:
    recipe = TINY_FORMS.find(name)()
    first = recipe.model_copy(update={"stages": tuple(stage.model_copy(update={"steps": 1, "epochs": None}) for stage in recipe.stages)})
    assert run(first, tmp_path / "run")


@needs_cuda
def test_memory_is_estimated(tmp_path: Path) -> None:
    plans: list[Any] = []
    recipe = tiny(*PACKED, "stages.align.steps=1", "stages.instruct.steps=3", "stages.instruct.precision=bf16")

    def build() -> tuple[nn.Module, Any]:
        model, tokenizer = build_pretrained(recipe.model)
        return model.to(CUDA), tokenizer

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    train_recipe(recipe, build, save_model, TrainerOptions(folder=tmp_path / "run", cache=tmp_path / "cache", on_plan=plans.append))  # pyright: ignore[reportArgumentType]
    peak = torch.cuda.max_memory_allocated() - before
    assert 0.4 < max(plan.fit.needed for plan in plans) / peak < 2.5
