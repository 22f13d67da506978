"""The loss curve as a picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sensorium.core.atomic import atomic_path


def draw_curve(lines: list[dict[str, Any]], path: Path) -> bool:
    """Draw loss over steps, a panel for each stage, with a running mean.

    Returns:
        Whether a picture was written: not without lines. Where matplotlib is missing or the
        disk is full, standard error says so.
    """
    if not lines:
        return False
    try:
        # Without pyplot, which looks for screens and is read as long as a small run takes.
        from matplotlib.figure import Figure
    except ImportError:
        print(f"no {path.name}: matplotlib is not installed; pip install -e '.[train]' in the clone",
              file=sys.stderr)  # fmt: skip
        return False
    stages = list(dict.fromkeys(line["stage"] for line in lines))
    figure = Figure(figsize=(4.2 * len(stages), 3.2))
    axes = figure.subplots(1, len(stages), squeeze=False)
    for axis, stage in zip(axes[0], stages, strict=True):
        mine = [line for line in lines if line["stage"] == stage and line["loss"] is not None]
        steps = [line["step"] for line in mine]
        losses = [line["loss"] for line in mine]
        axis.plot(steps, losses, color="#b8c4d6", linewidth=0.7)
        axis.plot(steps, _running_mean(losses), color="#1f4e8c", linewidth=1.6)
        axis.set_title(stage)
        axis.set_xlabel("step")
        axis.set_ylabel("loss")
        axis.grid(alpha=0.25)
    figure.tight_layout()
    try:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=110, format="png")
    except OSError as error:
        # A run's end, good or bad, is not to be hidden by a picture that could not be written.
        print(f"no {path.name}: {error}", file=sys.stderr)
        return False
    return True


def _running_mean(values: list[float]) -> list[float]:
    width = max(1, len(values) // 20)
    return [sum(values[max(0, i - width + 1) : i + 1]) / min(i + 1, width) for i in range(len(values))]
