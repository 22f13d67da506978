"""`merge` and `unmerge`."""

from __future__ import annotations

from pathlib import Path


def merge_command(folder: str, out: str, forget: bool, as_json: bool) -> None:
    """Low-rank adapters become part of the weights."""
    from sensorium.api import find_model
    from sensorium.cli.exchange import check_target
    from sensorium.interop.merged import merge

    source = find_model(folder)
    check_target(Path(out), source)
    layers = merge(source, Path(out), forget=forget)
    back = "the way back is not kept" if forget else f"back: sensorium unmerge {out} FOLDER"
    _say(out, layers, f"adapters of {layers} layers merged; {back}", as_json)


def unmerge_command(folder: str, out: str, base: bool, as_json: bool) -> None:
    """And stand apart again."""
    from sensorium.api import find_model
    from sensorium.cli.exchange import check_target
    from sensorium.interop.merged import unmerge

    source = find_model(folder)
    check_target(Path(out), source)
    layers = unmerge(source, Path(out), base=base)
    what = "without adapters" if base else f"with its adapters apart; alone: sensorium export {out} FOLDER --adapter-only"
    _say(out, layers, f"{layers} layers as they were, {what}", as_json)


def _say(out: str, layers: int, text: str, as_json: bool) -> None:
    from sensorium.cli.main import print_json

    if as_json:
        print_json({"folder": out, "layers": layers})
    else:
        print(f"{out}: {text}")
