"""A GPU for machines without one: tensors that say they lie on `cuda:0` while the processor
holds their values, and a mode that refuses what a real GPU refuses, above all an operation
on tensors of two devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

GPU = torch.device("cuda:0")
DEVICE: Any = torch.Tensor.device.__get__  # pyright: ignore[reportAttributeAccessIssue]
# Reading from a GPU's tensor is no operation on two devices.
FREE = ("__get__", "__len__", "__repr__", "size", "dim", "numel", "item", "tolist", "data_ptr")


class OnGpu(torch.Tensor):
    """A tensor that says it lies on the GPU."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func == DEVICE:
            return GPU
        return super().__torch_function__(func, types, args, kwargs or {})


def on_gpu(tensor: torch.Tensor) -> OnGpu:
    return tensor.as_subclass(OnGpu)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    return (x for x in tree_flatten(values)[0] if isinstance(x, torch.Tensor))


def _is_gpu(value: Any) -> bool:
    return isinstance(value, torch.device | str) and str(value).startswith("cuda")


def _is_cpu(value: Any) -> bool:
    return isinstance(value, torch.device | str) and str(value) == "cpu"


class _Generator(torch.Generator):
    """Random numbers of the GPU, drawn by the processor."""

    def __new__(cls, device: Any = None) -> Any:
        return super().__new__(cls, "cpu")


class PretendGpu(TorchFunctionMode):
    """While active, `cuda` exists; `operations` counts what ran there."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __enter__(self) -> PretendGpu:
        self._real, torch.Generator = torch.Generator, _Generator
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        torch.Generator = self._real
        super().__exit__(*raised)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func == DEVICE:
            return GPU if isinstance(args[0], OnGpu) else func(*args)
        if name in FREE:
            return _plain(func, args, kwargs)
        if name == "numpy" and isinstance(args[0], OnGpu):
            raise TypeError("a tensor on cuda:0 has no numpy array")
        if name in ("to", "cpu", "cuda"):
            return self._move(func, args, kwargs)
        asked = kwargs.get("device")
        found = {isinstance(t, OnGpu) for t in _tensors((args, kwargs)) if t.ndim or isinstance(t, OnGpu)}
        if len(found) == 2:
            raise RuntimeError(f"{name}: tensors on cuda:0 and cpu")
        there = _is_gpu(asked) if asked is not None else found == {True}
        if asked is not None:
            kwargs["device"] = "cpu"
        self.operations += there
        result = _plain(func, args, kwargs)
        return _wrapped(result) if there else result

    def _move(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        tensor, *rest = args
        targets = [*rest, *kwargs.values()]
        there = isinstance(tensor, OnGpu)
        if func is torch.Tensor.cpu or any(_is_cpu(t) for t in targets):
            there = False
        if func is torch.Tensor.cuda or any(_is_gpu(t) or isinstance(t, OnGpu) for t in targets):
            there = True
        rest = ["cpu" if _is_gpu(x) else x for x in rest]
        kwargs = {k: "cpu" if _is_gpu(v) else v for k, v in kwargs.items()}
        result = _plain(func, (tensor, *rest), kwargs)
        return on_gpu(result) if there else result.as_subclass(torch.Tensor)


def _plain(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args, **kwargs)


def _wrapped(result: Any) -> Any:
    return tree_map(lambda x: on_gpu(x) if type(x) is torch.Tensor else x, result)


def move_to_gpu(module: nn.Module) -> None:
    """What `.to("cuda")` does, in place; one parameter under two names stays one."""
    moved: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                new = moved.setdefault(id(parameter), nn.Parameter(on_gpu(parameter.detach().clone())))
                part._parameters[name] = new
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = on_gpu(buffer.clone())
