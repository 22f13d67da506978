"""Trains a picture tokenizer: a loop of its own, as there is no LLM, no Sample and no stage in it.

The run's folder holds config.json and model.safetensors when it is done, log.jsonl, and `checkpoint`, which is a tokenizer's
folder too. What a batch holds depends on the seed and the step alone, so that a resumed run trains what one without a stop does.

Shape legend: N pictures of the set, B of a batch, C colours, H/W pixels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, SerializeAsAny
from torch import Tensor, nn
from torch.nn import functional as F

from sensorium.core.atomic import write_json
from sensorium.core.config import Config, kinds
from sensorium.core.errors import ConfigError, DataError, NumericsError
from sensorium.core.picture_tokenizer import PictureTokenizerConfig
from sensorium.core.progress import progress
from sensorium.generators import PICTURE_TOKENIZERS
from sensorium.generators.seed import SeedTokenizer
from sensorium.generators.vq import Reconstruction, VqConfig
from sensorium.model.config import AnyEncoder
from sensorium.nn.vector_quantise import code_use
from sensorium.training.adversarial import AdversarialConfig, Adversary, Judged
from sensorium.training.config import ScheduleConfig
from sensorium.training.disk import writing
from sensorium.training.log import TrainingLog
from sensorium.training.optimiser import rate
from sensorium.training.signals import StopRequest, watch_signals
from sensorium.training.tokenizer_checkpoint import (
    TokenizerState,
    TrainedTokenizer,
    load_state,
    save_state,
    write_model,
)

AnyTokenizer = Annotated[SerializeAsAny[PictureTokenizerConfig], kinds(PICTURE_TOKENIZERS, PictureTokenizerConfig)]


class TokenizerTraining(Config):
    """How it learns."""

    steps: int = Field(default=6000, ge=1)
    batch_size: int = Field(default=32, ge=1)
    lr: float = Field(default=6e-4, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: ScheduleConfig = ScheduleConfig(warmup_steps=100, final_ratio=0.05)
    clip_norm: float = Field(default=1.0, gt=0)
    l1: float = Field(default=1.0, ge=0)
    l2: float = Field(default=1.0, ge=0)
    """Weights of the mean absolute and squared distance of values in -1..1; the codebook's loss has weight 1. SEED's tokenizer
    has losses of its own (`generators/seed.py`)."""
    perceptual: AnyEncoder | None = None
    """A frozen encoder whose features must agree, too."""
    perceptual_weight: float = Field(default=0.1, ge=0)
    adversarial: AdversarialConfig | None = None
    """A discriminator to learn against, which makes a VQGAN of a VQ-VAE; its gradients are clipped by the same norm, apart."""
    flip: bool = True
    """Half of the pictures are mirrored, by chance."""
    checkpoint_every: int = Field(default=500, ge=1)
    seed: int = 0


class TokenizerRecipe(Config):
    """What is trained, and how."""

    tokenizer: AnyTokenizer = VqConfig()
    training: TokenizerTraining = TokenizerTraining()


@dataclass(frozen=True, slots=True)
class TokenizerRun:
    """Where it is trained, and beside what."""

    folder: Path
    resume: bool = False
    perceptual: nn.Module | None = None
    """`PerceptualLoss` of the recipe's encoder."""
    device: str = "cpu"
    start: Path | None = None
    """A folder of weights to begin with, in the tokenizer's own layout."""
    queries: Mapping[str, Tensor] | None = None
    """Of SEED's tokenizer: tower and queries to begin with (`interop.seed_queries`)."""


def batch_of(pixels_NCHW: Tensor, training: TokenizerTraining, step: int) -> Tensor:
    """(B, 3, H, W) uint8 of this step: each epoch in an order of its own, without gaps between epochs."""
    count, size = len(pixels_NCHW), training.batch_size
    picks = range(step * size, (step + 1) * size)
    orders = {epoch: np.random.default_rng((training.seed, 0, epoch)).permutation(count) for epoch in {p // count for p in picks}}
    chosen_BCHW = pixels_NCHW[torch.tensor([int(orders[p // count][p % count]) for p in picks])]
    if training.flip:
        mirrored_B = torch.from_numpy(np.random.default_rng((training.seed, 1, step)).random(size) < 0.5)
        chosen_BCHW = torch.where(mirrored_B[:, None, None, None], chosen_BCHW.flip(3), chosen_BCHW)
    return chosen_BCHW


def train_tokenizer(recipe: TokenizerRecipe, pixels_NCHW: Tensor, run: TokenizerRun) -> dict[str, Any]:
    """Train on uint8 pictures (N, 3, H, W) of the tokenizer's size.

    Returns:
        Steps, samples a second of this call, and the last losses.

    Raises:
        ConfigError: the folder holds a run already, or one with other settings; or a tokenizer that does not train, or not against a
            discriminator.
        NumericsError: a loss is not finite.
        StoppedError: a signal came; all is saved.
    """
    config, training = recipe.tokenizer, recipe.training
    if not config.trains:
        raise ConfigError(f"picture tokenizer {config.kind!r}", expected="vq, seed or chameleon_vq, which train here")
    if not len(pixels_NCHW):
        raise DataError("no pictures to train on")
    torch.manual_seed(training.seed)
    # One that learns from scratch may be as large as a published one.
    module: Any = config.blank() if run.start is None else config.build(run.start)
    module = module.to(run.device, memory_format=torch.channels_last).train()
    if run.queries is not None:
        if not isinstance(module, SeedTokenizer):
            raise ConfigError(f"queries for a tokenizer of kind {config.kind!r}", expected="seed")
        module.take_queries(run.queries)
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [{"params": learning, "peak": training.lr}]
    optimiser = torch.optim.AdamW(groups, lr=training.lr, betas=(0.9, 0.95), weight_decay=training.weight_decay)
    state = TokenizerState(module, optimiser, recipe, len(pixels_NCHW), _adversary(recipe, run.device))
    first, log_bytes = load_state(run.folder, state, resume=run.resume)
    log = TrainingLog(run.folder, keep_bytes=log_bytes, tensorboard=False)
    stop, begun = StopRequest(), time.monotonic()
    losses: dict[str, float] = {}
    try:
        with progress("training the tokenizer", training.steps) as meter, watch_signals(stop):
            for step in range(first, training.steps):
                losses = _step(state, training, batch_of(pixels_NCHW, training, step).to(run.device), step, run.perceptual)
                log.write({"stage": "tokenizer", "step": step + 1, **losses})
                meter.update(step + 1, f"loss {losses['loss']:.4f}  perplexity {losses['perplexity']:.0f}")
                done = step + 1
                if stop.number or done % training.checkpoint_every == 0 or done == training.steps:
                    log.sync()
                    save_state(run.folder, state, config, done, log.size())
                if stop.number:
                    stop.leave(str(run.folder))
    finally:
        log.close()
    seconds, steps = time.monotonic() - begun, training.steps - first
    write_model(run.folder, config, module)
    report = {"steps": training.steps, "pictures": len(pixels_NCHW), "seconds": seconds,
              "samples_per_s": steps * training.batch_size / seconds if steps else None, **losses}  # fmt: skip
    with writing(run.folder / "training.json"):
        write_json(run.folder / "training.json", report)
    return report


def _step(
    state: TokenizerState, training: TokenizerTraining, pixels_BCHW: Tensor, step: int, perceptual: nn.Module | None
) -> dict[str, float]:
    adversary = state.adversary if state.adversary is not None and step >= state.adversary.config.start_step else None
    parts, ids, judged = _losses(state.module, adversary, training, pixels_BCHW, perceptual)
    loss = torch.stack(list(parts.values())).sum()
    values = {"loss": loss.item(), **{name: part.item() for name, part in parts.items()}}
    sides: list[tuple[nn.Module, torch.optim.Optimizer]] = [(state.module, state.optimiser)]
    if adversary is not None and judged is not None:
        # Neither loss has a gradient for the other side, so one pass serves both.
        loss = loss + judged.hinge
        values |= {"discriminator": judged.hinge.item(), "adaptive_weight": judged.adaptive.item()}
        sides.append((adversary.module, adversary.optimiser))
    for _, optimiser in sides:
        optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norms = [nn.utils.clip_grad_norm_(module.parameters(), training.clip_norm).item() for module, _ in sides]
    values["grad_norm"] = norms[0]
    if not np.isfinite([*values.values(), *norms]).all():
        raise NumericsError(f"loss {values['loss']}, gradient norms {norms}", expected="finite numbers", where=f"step {step + 1}",
                            fix="lower training.lr, and go on with --resume")  # fmt: skip
    for _, optimiser in sides:
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * rate(training.schedule, step, training.steps)
        optimiser.step()
    use = code_use(ids, state.module.codes)
    return {**values, "perplexity": use.perplexity, "used": use.used}


def _losses(
    module: TrainedTokenizer, adversary: Adversary | None, training: TokenizerTraining, pixels_BCHW: Tensor, perceptual: nn.Module | None
) -> tuple[dict[str, Tensor], Tensor, Judged | None]:
    """Weighed parts of the loss, the ids, and what the discriminator learns by, where there is one."""
    values_BCHW = module.to_values(pixels_BCHW)
    if isinstance(module, SeedTokenizer):
        return *module.losses(values_BCHW, module.truth(pixels_BCHW)), None
    out: Reconstruction = module(values_BCHW)
    parts = {
        "l1": training.l1 * F.l1_loss(out.values_BCHW, values_BCHW),
        "l2": training.l2 * F.mse_loss(out.values_BCHW, values_BCHW),
        "codebook": out.loss,
    }
    if perceptual is not None:
        parts["perceptual"] = training.perceptual_weight * perceptual(out.values_BCHW, values_BCHW)
    if adversary is None:
        return parts, out.ids_BN, None
    distance = torch.stack([part for name, part in parts.items() if name != "codebook"]).sum()
    judged = adversary.judge(out.values_BCHW, values_BCHW, distance, out.last)
    return {**parts, "adversarial": judged.term}, out.ids_BN, judged


def _adversary(recipe: TokenizerRecipe, device: str) -> Adversary | None:
    """The other side of a recipe that has one."""
    training, tokenizer = recipe.training, recipe.tokenizer
    if (config := training.adversarial) is None:
        return None
    if tokenizer.kind == "seed":
        raise ConfigError("a discriminator for picture tokenizer 'seed', which gives no pixels back", where="training.adversarial",
                          fix="leave it out, or train vq or chameleon_vq")  # fmt: skip
    if config.start_step >= training.steps:
        raise ConfigError(f"a discriminator that begins behind step {config.start_step} of {training.steps}", where="training.adversarial.start_step",
                          expected=f"0 to {training.steps - 1}")  # fmt: skip
    return Adversary(config, size_px=tokenizer.size_px, lr=training.lr, seed=training.seed, device=device)
