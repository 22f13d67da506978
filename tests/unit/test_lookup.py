"""Visual tokens as averages of word embeddings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sensorium.core.batch import Features, Grid
from sensorium.core.errors import ConfigError
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.model.lookup import LookupConfig, VocabularyLookup
from sensorium.recipes import RECIPES
from sensorium.training.run import train_recipe
from sensorium.training.trainer import TrainerOptions

ONE = (Grid(1, 2),)


def test_without_candidates_nothing_changes() -> None:
    features = Features(torch.randn(2, 8), ONE)
    out = VocabularyLookup(LookupConfig(words=4))(features, torch.randn(16, 8))
    assert out is features


def test_a_token_that_points_at_a_word_becomes_it() -> None:
    embedding_VD = torch.randn(16, 32)
    lookup = VocabularyLookup(LookupConfig(words=8, scale=80.0))
    lookup.choose(torch.tensor([3, 5, 9]))
    tokens_ND = torch.stack([0.2 * embedding_VD[5], embedding_VD[3] + embedding_VD[9]])
    out_ND = lookup(Features(tokens_ND, ONE), embedding_VD).values_ND
    torch.testing.assert_close(out_ND[0], embedding_VD[5], atol=1e-4, rtol=1e-4)
    # Weights are positive and sum to one: the second lies between its two words.
    weights = torch.linalg.lstsq(embedding_VD[[3, 5, 9]].T, out_ND[1]).solution
    assert weights.min() > -1e-4
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0), atol=1e-3, rtol=0)
    assert weights[1] < 0.01


def test_other_words_are_never_used() -> None:
    embedding_VD = torch.randn(16, 32)
    lookup = VocabularyLookup(LookupConfig(words=8))
    lookup.choose(torch.tensor([3, 5]))
    near_7 = Features(embedding_VD[7:8], (Grid(1, 1),))
    changed_VD = embedding_VD.clone()
    changed_VD[7] = 100.0
    torch.testing.assert_close(lookup(near_7, embedding_VD).values_ND, lookup(near_7, changed_VD).values_ND)


def test_too_many_candidates_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"5 candidate words.*raise lookup\.words"):
        VocabularyLookup(LookupConfig(words=4)).choose(torch.arange(5))


def test_the_vocabulary_stage_chooses_and_the_model_keeps(tmp_path: Path) -> None:
    recipe = RECIPES.find("tiny")().override(
        ["stages.align.steps=2", "stages.instruct.steps=1", "stages.align.objective={kind: vocabulary}",
         "model.lanes.image.lookup={words: 4096}"]
    )
    options = TrainerOptions(folder=tmp_path / "run", cache=tmp_path / "cache")
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)
    model, _ = load_model(tmp_path / "run" / "model")
    assert int((model.lookups["image"].ids_C >= 0).sum()) > 1
