"""Visual tokens as averages of word embeddings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sensorium.core.batch import Features, Grid
from sensorium.core.errors import ConfigError
from sensorium.input_projectors.avg_pool import AvgPoolConfig
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.saved import load_model, save_model
from sensorium.model.lookup import LookupConfig, VocabularyLookup, whitened
from sensorium.processing.processor import Processor
from sensorium.recipes import RECIPES
from sensorium.training.objectives.next_token import InstructConfig
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
    lookup.choose(torch.tensor([[3], [5], [9]]))
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
    lookup.choose(torch.tensor([[3], [5]]))
    near_7 = Features(embedding_VD[7:8], (Grid(1, 1),))
    changed_VD = embedding_VD.clone()
    changed_VD[7] = 100.0
    torch.testing.assert_close(lookup(near_7, embedding_VD).values_ND, lookup(near_7, changed_VD).values_ND)


def test_too_many_candidates_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"5 candidate words.*raise lookup\.words"):
        VocabularyLookup(LookupConfig(words=4)).choose(torch.arange(5)[:, None])


def test_the_vocabulary_stage_chooses_and_the_model_keeps(tmp_path: Path) -> None:
    recipe = RECIPES.find("tiny")().override(
        ["stages.align.steps=2", "stages.instruct.steps=1", "stages.align.objective={kind: vocabulary}",
         "model.lanes.image.lookup={words: 4096}"]
    )
    options = TrainerOptions(folder=tmp_path / "run", cache=tmp_path / "cache")
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)
    model, _ = load_model(tmp_path / "run" / "model")
    assert int((model.lookups["image"].pieces_CK[:, 0] >= 0).sum()) > 1


def test_a_summary_becomes_its_best_words_in_order() -> None:
    embedding_VD = torch.randn(16, 32)
    lookup = VocabularyLookup(LookupConfig(words=8, ranked=3))
    lookup.choose(torch.tensor([[2], [3], [5], [9]]))
    unit_VD = torch.nn.functional.normalize(embedding_VD, dim=-1)
    summary_D = unit_VD[5] + 0.6 * unit_VD[2] + 0.3 * unit_VD[9]
    best = (unit_VD[[2, 3, 5, 9]] @ summary_D).argsort(descending=True)[:3]
    grid = Grid(1, 2, prefix=1)
    features = Features(torch.stack([summary_D, embedding_VD[3], embedding_VD[9]]).repeat(2, 1), (grid, grid))
    out = lookup(features, embedding_VD)
    assert out.grids == (Grid(1, 2, prefix=3),) * 2
    expected_ND = torch.cat([embedding_VD[[2, 3, 5, 9]][best], embedding_VD[[3, 9]]])
    torch.testing.assert_close(out.values_ND[:5], expected_ND, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(out.values_ND[5:], out.values_ND[:5])


def test_ranks_have_their_places_before_words_are_chosen() -> None:
    features = Features(torch.randn(3, 8), (Grid(1, 2, prefix=1),))
    out = VocabularyLookup(LookupConfig(words=4, ranked=2))(features, torch.randn(16, 8))
    torch.testing.assert_close(out.values_ND, features.values_ND[[0, 0, 1, 2]])


def test_fewer_words_than_ranks_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"3 candidate words.*lower lookup\.ranked"):
        VocabularyLookup(LookupConfig(words=8, ranked=4)).choose(torch.arange(3)[:, None])


def test_a_summary_stands_before_the_map_and_sees_all_of_it() -> None:
    config = AvgPoolConfig(side=2, summary=True)
    projector = config.build(6, 8)
    features = Features(torch.randn(2 * 16, 6), (Grid(4, 4),) * 2)
    out = projector(features)
    assert out.grids == (Grid(2, 2, prefix=1),) * 2
    mean_M6 = features.values_ND.view(2, 16, 6).mean(1)
    torch.testing.assert_close(out.values_ND.view(2, 5, 8)[:, 0], projector.summary(mean_M6))


def test_the_whole_stage_teaches_a_summary(tmp_path: Path) -> None:
    recipe = RECIPES.find("tiny")().override(
        ["stages.align.steps=2", "stages.instruct.steps=1", "stages.align.objective={kind: vocabulary}",
         "model.lanes.image.projector={kind: avg_pool, side: 2, summary: true}",
         "model.lanes.image.lookup={words: 4096, ranked: 3}"]
    )
    options = TrainerOptions(folder=tmp_path / "run", cache=tmp_path / "cache")
    train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)
    model, _ = load_model(tmp_path / "run" / "model")
    # The tower has a CLS token too, and each token in front of the map becomes three words.
    assert recipe.model.lane("image").tile_grid().tokens == 6 + 4
    start = build_pretrained(recipe.model)[0].projectors["image"].summary.weight
    assert not torch.equal(model.projectors["image"].summary.weight, start)


def test_noise_changes_the_order_of_words_and_only_while_it_lasts() -> None:
    embedding_VD = torch.randn(64, 32)
    lookup = VocabularyLookup(LookupConfig(words=64, ranked=4, scale=8.0))
    lookup.choose(torch.arange(64)[:, None])
    grid = Grid(1, 1, prefix=1)
    features = Features(torch.randn(1, 2, 32).expand(200, 2, 32).flatten(0, 1), (grid,) * 200)
    calm = lookup(features, embedding_VD).values_ND.view(200, 5, 32)
    with lookup.noised(3.0):
        noised = lookup(features, embedding_VD).values_ND.view(200, 5, 32)
    torch.testing.assert_close(lookup(features, embedding_VD).values_ND.view(200, 5, 32), calm)
    # The map is left alone; the first word stays in front in some pictures and not in others.
    torch.testing.assert_close(noised[:, 4], calm[:, 4])
    same = (noised[:, 0] == calm[:, 0]).all(-1).float().mean()
    assert 0.1 < same < 0.9
    # No word comes twice, and none from outside the best sixteen.
    best = torch.nn.functional.normalize(embedding_VD, dim=-1) @ features.values_ND[0]
    pool = embedding_VD[best.topk(16).indices]
    is_word = (noised[:, :4, None] == pool).all(-1)
    assert is_word.any(-1).all()
    assert (is_word.sum(1) <= 1).all()


def test_word_noise_needs_ranked_words() -> None:
    recipe = RECIPES.find("tiny")()
    model, tokenizer = build_pretrained(recipe.model)
    with pytest.raises(ConfigError, match=r"word_noise.*lookup\.ranked"):
        InstructConfig(word_noise=1.0).build(model, Processor(recipe.model, tokenizer), [])


def test_words_of_several_pieces_are_told_apart_and_spelt_out() -> None:
    embedding_VD = torch.randn(16, 32)
    lookup = VocabularyLookup(LookupConfig(words=4, pieces=3, ranked=4))
    # Two words begin alike, as " d" + "aisy" and " d" + "aff" + "odil" do.
    lookup.choose(torch.tensor([[1, 2, -1], [1, 3, 4], [5, -1, -1], [6, -1, -1]]))
    grid = Grid(0, 0, prefix=1)
    daffodil_D = embedding_VD[[1, 3, 4]].mean(0)
    summary_D = daffodil_D / daffodil_D.norm() + 0.3 * embedding_VD[5] / embedding_VD[5].norm()
    out = lookup(Features(summary_D[None], (grid,)), embedding_VD).values_ND
    assert torch.equal(out, embedding_VD[[1, 3, 4, 5]])
    close = VocabularyLookup(LookupConfig(words=4, pieces=3, scale=200.0))
    close.choose(lookup.pieces_CK)
    out = close(Features(daffodil_D[None], (Grid(1, 1),)), embedding_VD).values_ND
    torch.testing.assert_close(out[0], daffodil_D, atol=1e-3, rtol=1e-3)


def test_whitened_words_spread_evenly_and_a_ridge_keeps_some_of_their_shape() -> None:
    words_CD = torch.randn(400, 12) @ torch.diag(torch.linspace(0.1, 3.0, 12)) + 1.0
    even_CD = whitened(words_CD, 0.0)
    torch.testing.assert_close(even_CD.mean(dim=0), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(even_CD.T @ even_CD / 400, torch.eye(12), atol=1e-4, rtol=0)
    spread_D = whitened(words_CD, 0.5).var(dim=0)
    assert spread_D[0] < 0.5 * spread_D[-1] < 0.5


def test_words_are_told_apart_by_keys_and_read_as_embeddings() -> None:
    embedding_VD = torch.randn(16, 8) + 2.0
    lookup = VocabularyLookup(LookupConfig(words=8, scale=200.0, whiten=0.1, shift=2), width=8)
    lookup.choose(torch.tensor([[3], [5], [9]]))
    keys_CD = lookup.keys(embedding_VD)
    # Nothing has been learnt: unit keys of whitened words.
    want_CD = torch.nn.functional.normalize(whitened(embedding_VD[[3, 5, 9]], 0.1), dim=-1)
    torch.testing.assert_close(keys_CD, want_CD)
    out_ND = lookup(Features(keys_CD[[1, 2]].detach(), ONE), embedding_VD).values_ND
    torch.testing.assert_close(out_ND, embedding_VD[[5, 9]], atol=1e-3, rtol=1e-3)
    # Other embeddings, other keys: nothing stale is kept.
    embedding_VD[9] += torch.randn(8)
    assert not torch.allclose(lookup.keys(embedding_VD), keys_CD)


def test_what_was_learnt_about_a_word_follows_it() -> None:
    lookup = VocabularyLookup(LookupConfig(words=4, shift=2), width=8)
    lookup.choose(torch.tensor([[3], [5], [9]]))
    with torch.no_grad():
        lookup.shift_CS[:3] = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    lookup.choose(torch.tensor([[2], [9], [3]]))
    assert lookup.shift_CS.tolist() == [[0, 0], [3, 3], [1, 1], [0, 0]]


def test_keys_learn_as_a_part_and_come_back(tmp_path: Path) -> None:
    recipe = RECIPES.find("tiny")().override(
        ["stages.align.steps=2", "stages.instruct.steps=1", "stages.align.objective={kind: vocabulary}",
         "model.lanes.image.lookup={words: 4096, whiten: 0.3, shift: 4}",
         "stages.align.learns=[{part: lookups.image, lr: 0.01}, {part: projectors.image, lr: 0.01}]"]
    )
    options = TrainerOptions(folder=tmp_path / "run", cache=tmp_path / "cache")
    (align, _) = train_recipe(recipe, lambda: build_pretrained(recipe.model), save_model, options)
    assert {part: learning for part, _, learning in align.parts}["lookups.image"] > 0
    model, _ = load_model(tmp_path / "run" / "model")
    assert model.lookups["image"].shift_CS.abs().max() > 0
