"""The P-Former of DLP in its authors' file, `pformer.pth`: what the stage of sentences leaves behind.

Beside what learnt it holds counted positions and a copy of the language model's words, by which its third loss
finds the nearest. Ours are the names that tensors have in a model while the objective `sentences` runs; the teacher's own
are the same under `aligned`.

Source: github.com/yiren-jian/BLIText, lavis/models/blip2_models/ (pformer_opt.py, pformer_t5.py, modeling_bert.py) and
lavis/runners/runner_base.py, for the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sensorium.core.errors import WeightsError
from sensorium.interop.converted import write_folder
from sensorium.interop.key_map import KeyMap, Rule
from sensorium.interop.torch_file import TORCH_ENDINGS, read_checkpoint

LlmName = Literal["opt", "t5"]
OWN, TEACHER = "objective.", "objective.teacher."
POSITIONS, PLACES = "Pformer.embeddings.position_ids", "Pformer.embeddings.position_embeddings.weight"


def _keys(llm: LlmName) -> KeyMap:
    return KeyMap(
        rules=(
            Rule("Pformer.embeddings.*", f"{TEACHER}encoder.embeddings.*"),
            Rule("Pformer.encoder.*", f"{TEACHER}encoder.encoder.*"),
            Rule("Pformer.cls_proj.*", f"{TEACHER}spread.*"),
            Rule("Pformer.pooler.0.*", f"{TEACHER}pool.*"),
            Rule(f"Pformer.{llm}_proj.*", f"{TEACHER}out.*"),
            Rule("Pformer.text_proj.*", f"{OWN}text_out.*"),
            Rule("Pformer.temp", f"{OWN}temperature"),
        ),
        left_out=(POSITIONS, f"{llm}_vocab_embeddings"),
    )


def pformer_to_ours(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' tensors under our names.

    Raises:
        WeightsError: a name that no rule covers, or no map to a language model.
    """
    for llm in ("opt", "t5"):
        if f"Pformer.{llm}_proj.weight" in theirs:
            return _keys(llm).to_ours(theirs)
    raise WeightsError("no tensor 'Pformer.opt_proj.weight'", expected="a P-Former of the first stage, before OPT or T5",
                       fix="later stages' files don't hold it: it was frozen")  # fmt: skip


def pformer_to_theirs(ours: Mapping[str, Tensor], words_VD: Tensor, llm: LlmName = "opt") -> dict[str, Tensor]:
    """Our tensors in the authors' layout.

    Args:
        words_VD: the language model's embeddings (V words, D wide), of which the layout keeps a copy.

    Raises:
        WeightsError: a name that no rule covers.
    """
    theirs = _keys(llm).to_theirs(ours)
    theirs[POSITIONS] = torch.arange(len(theirs[PLACES]))[None]
    return theirs | {f"{llm}_vocab_embeddings": words_VD}


def holds_pformer(file: Path) -> bool:
    """Whether this is the authors' file of the first stage.

    Raises:
        WeightsError: it is a file of torch that is damaged, or needs code.
    """
    return file.is_file() and file.suffix in TORCH_ENDINGS and "Pformer.cls_proj.weight" in read_checkpoint(file)


def import_pformer(file: Path, folder: Path) -> int:
    """Write the authors' P-Former as a teacher for the objective `aligned`.

    Returns:
        How many parameters it has.

    Raises:
        WeightsError: the file is damaged, needs code, or holds more than a P-Former.
    """
    ours = {n.removeprefix(OWN): v for n, v in pformer_to_ours(read_checkpoint(file)).items()}
    write_folder(folder, ours)
    return sum(v.numel() for v in ours.values())
