"""From the first stage of SEED's tokenizer (recipe `seed-queries`) to its second: the tower, and the queries without what read captions.

Source: github.com/AILab-CVC/SEED, SEED_Tokenizer/lavis/projects/blip2/train/pretrain_codebook.yaml, whose `pretrained` names the first
stage's checkpoint.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from sensorium.backbones.query_tower import QueryTowerConfig
from sensorium.core.errors import ConfigError
from sensorium.interop.saved import load_model

OURS = {"encoders.image.tower.": "tower.", "backbone.lm.former.": "former."}
"""The first stage's names -> those of `generators.seed.SeedTokenizer`."""
READS = ("former.words.", "former.places.")
"""And, in every layer, `text`."""


def read_queries(folder: Path) -> dict[str, Tensor]:
    """Tower and queries of a saved model, by the tokenizer's names.

    Raises:
        ConfigError: its queries do not look back, or it has none.
        WeightsError: as `load_model`.
    """
    model, _ = load_model(folder)
    backbone = model.config.backbone
    if not isinstance(backbone, QueryTowerConfig) or not backbone.looks_back:
        raise ConfigError(f"queries of a model with backbone {backbone.kind!r}", expected="query_tower with looks_back", where=str(folder),
                          fix="name the model of a run of recipe seed-queries")  # fmt: skip
    named = {name.replace(theirs, ours, 1): value for name, value in model.state_dict().items()
             for theirs, ours in OURS.items() if name.startswith(theirs)}  # fmt: skip
    return {name: value for name, value in named.items() if not name.startswith(READS) and not (name.startswith("former.") and ".text." in name)}
