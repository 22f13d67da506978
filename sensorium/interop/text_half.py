"""The text half of a Q-Former that starts from one without words: BERT's, as LAVIS begins all of them.

Source: github.com/salesforce/LAVIS, models/blip2_models/blip2.py and Qformer.py: words, positions and the words'
feed-forward layers are BERT-base's; a row of the vocabulary that BERT lacks is drawn.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sensorium.core.errors import WeightsError
from sensorium.nn.pretrained import read_folder

# BERT's oldest files call scale and shift of a norm by these letters.
OLD = {"gamma": "weight", "beta": "bias"}
LAYER = (("intermediate.dense", "up"), ("output.dense", "down"), ("output.LayerNorm", "norm"))


def has_bert(folder: Path) -> bool:
    """Whether a reader's folder holds weights beside its words."""
    return (folder / "model.safetensors").is_file()


@torch.no_grad()
def fill_from_bert(state: dict[str, Tensor], projector: str, folder: Path) -> set[str]:
    """Copy BERT's words, positions and feed-forward layers into a Q-Former's text half.

    Args:
        state: a model's tensors, changed in place.
        projector: its name in the model, `projectors.image`.

    Returns:
        The names of the tensors that were filled.

    Raises:
        WeightsError: the folder holds no BERT of this shape.
    """
    bert = {_plain(name): value for name, value in read_folder(folder).items()}
    pairs = {"words.weight": "embeddings.word_embeddings.weight", "places.weight": "embeddings.position_embeddings.weight"}
    layers = {n.split(".")[3] for n in state if n.startswith(f"{projector}.layers.") and ".text." in n}
    for i in layers:
        for theirs, mine in LAYER:
            for kind in ("weight", "bias"):
                pairs[f"layers.{i}.text.{mine}.{kind}"] = f"encoder.layer.{i}.{theirs}.{kind}"
    for mine, theirs in pairs.items():
        target, value = state[f"{projector}.{mine}"], bert.get(theirs)
        rows = target if value is None or not mine.startswith("words") else target[: len(value)]
        if value is None or rows.shape != value.shape:
            raise WeightsError(
                f"{theirs} has shape {None if value is None else tuple(value.shape)}",
                expected=f"{tuple(target.shape)}, as the Q-Former's {mine}", where=str(folder),
            )  # fmt: skip
        rows.copy_(value)
    return {f"{projector}.{mine}" for mine in pairs}


def _plain(name: str) -> str:
    head, _, last = name.removeprefix("bert.").rpartition(".")
    return f"{head}.{OLD.get(last, last)}"
