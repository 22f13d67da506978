"""What some families of transformers do to scores after the output embedding."""

from __future__ import annotations

from typing import Any


def logit_quirks(config: Any) -> tuple[float, float | None]:
    """Scale and soft cap that some families apply after the output embedding."""
    scale = 1.0
    if getattr(config, "logits_scaling", None):  # Granite divides
        scale = 1.0 / float(config.logits_scaling)
    if getattr(config, "logit_scale", None) and config.model_type.startswith("cohere"):
        scale = float(config.logit_scale)
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2 and later
    return scale, None if cap is None else float(cap)
