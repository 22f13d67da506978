"""What enters a language model between or inside its layers, while it runs.

Shape legend: B rows, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from sensorium.backbones.adaption_prompt import prompts_with
from sensorium.backbones.token_experts import experts_in, work_in
from sensorium.nn.prompt_media import PromptMedia
from sensorium.nn.token_experts import LayerWork, TokenExperts

Insert = Callable[[int, Tensor], Tensor]
"""(layer index, hidden_BTD) -> hidden_BTD, called before each decoder layer."""
Inserted = Insert | PromptMedia | TokenExperts | LayerWork | None


@contextmanager
def inserted(
    insert: Inserted, lm: nn.Module, layers: Callable[[], list[nn.Module]]
) -> Iterator[None]:
    """Run `insert` before each decoder layer, or inside the layers, while the block lasts.

    Hooks leave the language model's own modules and key names untouched.
    """
    if insert is None:
        yield
        return
    if isinstance(insert, PromptMedia):
        with prompts_with(insert, lm):
            yield
        return
    if isinstance(insert, TokenExperts | LayerWork):
        inside = experts_in if isinstance(insert, TokenExperts) else work_in
        with inside(layers(), insert):  # pyright: ignore[reportArgumentType]
            yield
        return

    def hook_for(index: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (insert(index, args[0]), *args[1:]), kwargs
            changed = dict(kwargs, hidden_states=insert(index, kwargs["hidden_states"]))
            return args, changed

        return hook

    handles = [
        layer.register_forward_pre_hook(hook_for(i), with_kwargs=True)
        for i, layer in enumerate(layers())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
