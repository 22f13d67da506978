"""What lies between the LLM's attentions as compiled kernels (`torch.compile`).

Norms and feed-forward layers are compiled, each kind once for all layers and all lengths of rows; their elementwise steps
become one pass over memory. Attention stays as it is: in packed rows it goes from sample to sample in Python
(`nn/segment_attention.py`), of which every other number of samples would be another program. On a GPU, where all that goes
through memory counts, layers of the plainest families are compiled in two halves, up to their attention and from there
(`backbones/layer_halves.py`), and where rows are packed recorded (`backbones/recorded.py`).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from sensorium.backbones.causal_lm import CausalLM
from sensorium.backbones.layer_halves import back_half, compiled_halves, front_half, halved
from sensorium.backbones.lean_layer import FAMILIES
from sensorium.backbones.recorded import Recorded
from sensorium.backbones.segments import can_segment
from sensorium.core.errors import ConfigError
from sensorium.model.check import is_quantised
from sensorium.model.multimodal import MultimodalModel

COMPILERS = {"darwin": "clang++", "win32": "cl"}


def compilable(model: MultimodalModel) -> list[nn.Module]:
    """The parts of the LLM's layers that are worth it: children with weights of their own, without attention.

    Raises:
        ConfigError: there are none, or something from outside reaches into them.
    """
    backbone, found = model.backbone, list[nn.Module]()
    if isinstance(backbone, CausalLM) and model.config.fusion.kind == "splice" and not is_quantised(model.config):
        found = [child for layer in backbone.decoder_layers() for child in layer.children()
                 if next(child.parameters(), None) is not None and not _attends(child)]  # fmt: skip
    if not found:
        raise ConfigError("compile: true, and nothing in this model's LLM to compile", where="compile",
                          expected="fusion: splice, and an LLM in full precision whose layers have norms and feed-forward parts",
                          fix="compile: false")  # fmt: skip
    return found


def _attends(module: nn.Module) -> bool:
    return any("attention" in type(each).__name__.lower() for each in module.modules())


def ready_to_compile(model: MultimodalModel) -> int:
    """How many parts will run compiled; a line of code is compiled to see whether that can be done here.

    Raises:
        ConfigError: it cannot; the message says what is missing.
    """
    count, device = len(compilable(model)), model.device
    fix = "install it (Debian: apt-get install g++ python3-dev), or set compile: false"
    needed = os.environ.get("CXX") or COMPILERS.get(sys.platform, "g++")
    if device.type == "cpu" and shutil.which(needed) is None:
        raise ConfigError(f"compile: true needs a C++ compiler, and there is no {needed!r}", where="compile",
                          expected=f"{needed!r} on the path, or another one named by CXX", fix=fix)  # fmt: skip
    try:
        torch.compile(_trial)(torch.ones(16, device=device))
    except Exception as error:
        # Whatever is missing (headers, a linker, a kernel compiler) comes in exceptions of many kinds.
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(f"compile: true does not work here: {told[0]}", where="compile", fix=fix) from error
    return count


def _trial(x_N: torch.Tensor) -> torch.Tensor:
    return (x_N * 2 + 1).tanh()


@dataclass(frozen=True, slots=True)
class Passes:
    """How a stage's batches go through the model, where all passes are alike."""

    tokens: int
    """Of the rows of one pass, padding included."""
    several: bool
    """Their gradients are summed."""


def why_not_recorded(model: MultimodalModel, *, recompute: bool, processes: int) -> str | None:
    """What keeps a GPU from recording the LLM's layers; None: nothing."""
    if model.device.type != "cuda":
        return f"the model is on a {model.device.type}, where nothing waits for kernels to be started"
    if not _in_halves(model) or model.config.fusion.kind != "splice":
        return f"it is for language models of {', '.join(FAMILIES)} without sliding windows, and fusion: splice"
    if processes > 1:
        return f"{processes} processes share the work, and their gradients are summed on the way"
    return "layers run again in the backward pass, for lack of memory" if recompute else None


@contextmanager
def compiling(model: MultimodalModel, on: bool, passes: Passes | None = None) -> Iterator[None]:
    """While the block lasts, parts of the LLM's layers run compiled. Modules and names of tensors stay what they are.

    Args:
        passes: given where a GPU records them (`why_not_recorded`).
    """
    if passes is not None:
        backbone, halves = cast(CausalLM, model.backbone), compiled_halves(one_length=True) if on else (front_half, back_half)
        backbone.recorded = Recorded(backbone.lm, passes.tokens, halves, several=passes.several)
        try:
            yield
        finally:
            backbone.recorded = None
        return
    if not on:
        yield
        return
    layers = _in_halves(model)
    if layers:
        with halved(layers, compiled_halves()):
            yield
        return
    modules = compilable(model)
    for module in modules:
        # In place: a wrapper would change the names of tensors. Lengths change from batch to batch.
        module.compile(dynamic=True)
    try:
        yield
    finally:
        for module in modules:
            module._compiled_call_impl = None


def _in_halves(model: MultimodalModel) -> list[nn.Module]:
    """The LLM's layers, where they can be compiled in halves and it is worth it."""
    backbone = model.backbone
    if not isinstance(backbone, CausalLM) or model.device.type != "cuda":
        return []
    return backbone.decoder_layers() if backbone.lm.config.model_type in FAMILIES and can_segment(backbone.lm) else []
