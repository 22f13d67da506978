"""Queries added to a trained Q-Former (VideoChat): what transformers' Q-Former makes of more queries, and
alone in learning.

Shape legend: M pictures, L features, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from hf_models import blip2

from sensorium.core.batch import Features, Grid
from sensorium.input_projectors.qformer import QFormer
from sensorium.interop.hf import read_hf
from sensorium.model.learning import Learn, set_learning
from sensorium.model.multimodal import MultimodalModel

EXTRA = 3


@torch.no_grad()
def test_more_queries_than_were_trained(tmp_path: Path) -> None:
    theirs: Any = blip2(tmp_path / "hf").eval()
    trained = cast(QFormer, read_hf(tmp_path / "hf").projectors["image"])
    config = trained.config.model_copy(update={"extra": EXTRA})
    width, out = theirs.config.vision_config.hidden_size, trained.out.out_features
    ours = QFormer(config, width, out).eval()
    left = ours.load_state_dict(trained.state_dict(), strict=False)
    assert left.missing_keys == ["extra.queries_ED"]
    assert not left.unexpected_keys
    assert ours.extra is not None
    assert not ours.extra.queries_ED.any()
    ours.extra.queries_ED.normal_()
    features_MLD = torch.randn(2, 5, width)
    queries_MQD = torch.cat([theirs.query_tokens, ours.extra.queries_ED[None]], dim=1).expand(2, -1, -1)
    states = theirs.qformer(query_embeds=queries_MQD, encoder_hidden_states=features_MLD)
    expected = theirs.language_projection(states.last_hidden_state).flatten(0, 1)
    got = ours(Features(features_MLD.flatten(0, 1), (Grid(1, 5),) * 2))
    assert got.grids == (Grid(1, config.queries + EXTRA),) * 2
    torch.testing.assert_close(got.values_ND, expected, atol=1e-5, rtol=1e-4)


def test_they_alone_learn(tmp_path: Path) -> None:
    blip2(tmp_path / "hf")
    model: MultimodalModel = read_hf(tmp_path / "hf")
    lane = model.config.lanes["image"]
    former = cast(QFormer, model.projectors["image"])
    wider = former.config.model_copy(update={"extra": EXTRA})
    model.projectors["image"] = QFormer(wider, lane.encoder.out_dim, former.out.out_features)
    set_learning(model, (Learn(part="projectors.image", module="extra", lr=1e-4),))
    learning = {name for name, value in model.named_parameters() if value.requires_grad}
    assert learning == {"projectors.image.extra.queries_ED"}
