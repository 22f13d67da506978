"""Where models lie: shipped names, folders, hub ids."""

from __future__ import annotations

import os
from pathlib import Path

from sensorium.core.errors import WeightsError
from sensorium.core.naming import nearest
from sensorium.core.weights import HubSource
from sensorium.interop.locate import locate

NAMES = ("nano", "nano-points", "nano-draws", "nano-finds", "nano-chooses", "nano-diffuses")
SHIPPED = {name: Path(__file__).parents[1] / "assets" / name for name in NAMES}


def find_model(name: str | Path) -> Path:
    """The folder of a model by shipped name, path, or hub id.

    Raises:
        WeightsError: nothing is there.
    """
    text = str(name)
    if text in SHIPPED:
        if not SHIPPED[text].exists():
            raise WeightsError(
                f"the shipped model {text!r} is missing from this installation",
                where=str(SHIPPED[text]),
                fix="reinstall, or train it with `sensorium train nano`",
            )
        return SHIPPED[text]
    path = Path(name)
    # Unlike Path's own, these answer for what is no name at all, such as one that is too long.
    if os.path.isdir(path):
        return path / "model" if (path / "model" / "config.json").exists() else path
    # Whoever has a folder `owner` means a path in it, and misspelt the rest.
    if text.count("/") == 1 and not text.startswith((".", "/", "~", "runs/")) and not os.path.isdir(path.parent):
        found = locate((HubSource(id=text),))
        if found is not None:
            return found
    near = nearest(text, SHIPPED) if "/" not in text else None
    if near is None and os.path.isdir(path.parent):
        beside = nearest(path.name, [p.name for p in path.parent.iterdir() if p.is_dir()])
        near = beside and str(path.parent / beside)
    raise WeightsError(
        f"no model {text!r}",
        expected="a shipped name, a folder, or a hub id owner/name",
        fix=f"did you mean {near!r}?" if near else f"shipped: {', '.join(SHIPPED)}",
    )
