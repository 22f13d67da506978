"""`cache`: what the feature store holds, and how it is emptied."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


def cache_command(clear: bool, as_json: bool) -> None:
    """List the towers whose features are kept, or remove all of them."""
    from sensorium.cli.main import print_json
    from sensorium.features.room import clear as remove_all
    from sensorium.features.room import usage
    from sensorium.interop.cache import features_folder

    root = features_folder()
    if clear:
        freed = remove_all(root)
        if as_json:
            print_json({"folder": str(root), "freed_bytes": freed})
        else:
            print(f"{root}: {freed / 2**20:,.1f} MiB freed")
        return
    towers = [
        {"folder": one.folder.name, "bytes": one.size_bytes, "used": round(one.used), **_about(one.folder)}
        for one in reversed(usage(root))
    ]
    total = sum(one["bytes"] for one in towers)
    if as_json:
        print_json({"folder": str(root), "bytes": total, "towers": towers})
        return
    for one in towers:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(one["used"]))
        what = f"{one['encoder']} {one['size_px']} px {one['format']}{' half' * bool(one.get('half'))}" \
            if "encoder" in one else "an older format"
        print(f"{one['bytes'] / 2**20:>10,.1f} MiB  used {used}  {one['folder'][:11]}  {what}")
    print(f"{total / 2**20:>10,.1f} MiB  in {root}; `sensorium cache --clear` empties it")


def _about(folder: Path) -> dict[str, Any]:
    """What `tower.json` says; nothing of folders that have none."""
    try:
        said = json.loads((folder / "tower.json").read_text())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) and {"encoder", "size_px", "format"} <= set(said) else {}
