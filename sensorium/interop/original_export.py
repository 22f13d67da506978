"""A model that came in its authors' own layout goes out in it again, as safetensors.

Names, number formats and the division into files are those of the checkpoint that was imported
(`original.json`). Files are safetensors whatever they were: pickles are never written. Left out is what the import
left out, because it holds no weights (counted positions, rotary frequencies), and what had lain beside
the checkpoint: tower, language model, earlier checkpoints.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from sensorium.core.atomic import atomic_folder, write_json
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.interop.hf import FOREIGN, export_hf, in_format
from sensorium.interop.onto import whole_tensors
from sensorium.interop.original import ADAPTER, IDLE, ORIGINAL
from sensorium.interop.originals import ORIGINALS
from sensorium.interop.originals.base import Beside, Found, Original
from sensorium.interop.saved import load_model, plain_name, read_model_config
from sensorium.model.written import refuse_written
from sensorium.nn.pretrained import read_file


def export_original(folder: Path, out: Path) -> str:
    """Write a model into a folder, in the layout that it was imported from.

    Returns:
        The layout's name.

    Raises:
        ConfigError: it was not imported, or tokens are written by rows of their own.
        WeightsError: a tensor has values that the layout has no place for.
    """
    if (folder / FOREIGN).exists() and not (folder / ORIGINAL).exists():
        # The layout of transformers, or one that is like it in form (CogVLM, Qwen-VL, OpenFlamingo).
        export_hf(folder, out)
        return str(json.loads((out / "config.json").read_text(encoding="utf-8")).get("model_type"))
    if not (folder / ORIGINAL).exists():
        raise ConfigError(
            "a model that was not imported has no original layout", where=str(folder),
            fix="name a family of transformers' with --to",
        )  # fmt: skip
    kept: dict[str, Any] = json.loads((folder / ORIGINAL).read_text(encoding="utf-8"))
    layout: Original = ORIGINALS.find(kept["layout"])()
    # Some layouts take sizes from their config here.
    layout.gather(Found(folder, kept["config"], {}), Beside())
    refuse_written(read_model_config(folder).written, str(folder))
    model, tokenizer = load_model(folder)
    # What is stored has low-rank matrices apart, and what they were added to without them.
    state = model.state_dict() | model.generators.tensors() | whole_tensors(folder)
    idle = read_file(folder / IDLE) if (folder / IDLE).exists() else {}
    files = _files(kept, layout, state, idle)
    with atomic_folder(out) as target:
        for name, tensors in files.items():
            save_file(tensors, target / f"{name}.safetensors", metadata={"format": "pt"})
        if kept["config"]:
            write_json(target / "config.json", kept["config"])
        if "adapter" in kept:
            write_json(target / ADAPTER, kept["adapter"])
        if "model" in files:
            tokenizer.save(target)
    return kept["layout"]


def _files(
    kept: dict[str, Any], layout: Original, state: dict[str, Tensor], idle: dict[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """The checkpoint's files, by their names without ending."""
    said: dict[str, dict[str, str]] = kept["tensors"]
    canonical = {name: plain_name(layout.canonical(name)) for name in said if name not in idle}
    wanted = set(canonical.values())
    key_map = layout.key_map(wanted)
    theirs = key_map.to_theirs({k: v for k, v in state.items() if key_map.their_name(k) in wanted})
    lost = sorted(name for name, canon in canonical.items() if canon not in theirs)
    if lost:
        raise WeightsError(f"{len(lost)} of the checkpoint's tensors are not in the model ({lost[0]})",
                           where=kept["layout"])  # fmt: skip
    files: dict[str, dict[str, Tensor]] = {}
    for name, how in said.items():
        value = idle[name] if name in idle else theirs[canonical[name]].detach().cpu()
        tensor = in_format(value, how["dtype"]).contiguous().clone()
        # The name comes from a file that may be of any origin: never a path.
        files.setdefault(Path(how["file"]).name, {})[name] = tensor
    return files
