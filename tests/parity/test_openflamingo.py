"""OpenFlamingo: what the package open-flamingo itself computed (`golden/make_openflamingo.py`), from the
same weights under the same names."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from openflamingo_cases import CASES, EVERY, GPT_NEOX, IMAGE, OPT, VISION, fill, pixels
from test_hf_families import our_greedy
from torch import Tensor

from sensorium.core.batch import Example, Features, Grid, MediaBatch, TilePlan
from sensorium.interop.families.openflamingo import OpenFlamingo
from sensorium.interop.key_map import KeyMap
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate

GOLDEN: dict[str, Any] = json.loads(gzip.decompress(Path(__file__).with_name("golden").joinpath("openflamingo.json.gz").read_bytes()))
SHOWS = {"start": ("start", "1"), "middle": ("middle",), "end": ("end",), "two": ("2",), "two alike": ("2",)}
LMS = {"gpt_neox": GPT_NEOX, "opt": OPT}


def config(text: dict[str, Any]) -> dict[str, Any]:
    return {"model_type": "openflamingo", "cross_attn_every_n_layers": EVERY, "text_config": text,
            "vision_config": VISION}  # fmt: skip


def their_state(kind: str) -> dict[str, Tensor]:
    """The original's state dict, by its own names and shapes."""
    state = {name: torch.zeros(shape) for name, shape in GOLDEN[kind]["shapes"].items()}
    fill(state)
    if kind == "opt":
        # One tensor of two names.
        state["lang_encoder.lm_head.weight"] = state["lang_encoder.model.decoder.embed_tokens.weight"]
    return state


def build(kind: str) -> tuple[MultimodalModel, KeyMap]:
    theirs = config(LMS[kind])
    key_map = OpenFlamingo().key_map(theirs)
    model = MultimodalModel(OpenFlamingo().to_ours(theirs)).eval()
    model.load_state_dict(key_map.to_ours(their_state(kind)), strict=True)
    return model, key_map


@pytest.fixture(scope="module", params=list(LMS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def ours(kind: str) -> MultimodalModel:
    return build(kind)[0]


def example(model: MultimodalModel, ids: list[int]) -> Example:
    """With the tower's features, because the original was given pixels that are no bytes."""
    count, index = ids.count(IMAGE), []
    for token in ids:
        index.append((index[-1] if index else 0) + (token == IMAGE))
    with torch.no_grad():
        features = model.encoders["image"].features(pixels(count))  # pyright: ignore[reportCallIssue]
    raw = torch.zeros(count, 3, 28, 28, dtype=torch.uint8)
    media = MediaBatch(raw, (TilePlan(),) * count, features=features)
    return Example(ids, [False] * len(ids), {"image": []}, {"image": media}, index)


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
def test_logits_and_text(case: str, kind: str, ours: MultimodalModel, record: Callable[..., None]) -> None:
    one, expected = example(ours, CASES[case]), GOLDEN[kind]["cases"][case]
    logits_TV = ours.logits(ours(collate([[one]], pad_id=0)).hidden_BTD)[0]
    record("open-flamingo", *SHOWS[case], ours=logits_TV[:, ::7], theirs=torch.tensor(expected["logits"]))
    assert our_greedy(ours, [one], 6) == [expected["text"]]
    record("open-flamingo", "greedy")


@torch.no_grad()
@pytest.mark.parametrize("layout", ["right", "left", "packed"])
def test_samples_beside_each_other(
    layout: str, kind: str, ours: MultimodalModel, record: Callable[..., None]
) -> None:
    examples = [example(ours, ids) for ids in CASES.values()]
    rows = [examples] if layout == "packed" else [[e] for e in examples]
    batch = collate(rows, pad_id=0, pad_left=layout == "left")
    if layout == "left":
        assert our_greedy(ours, examples, 6) == [GOLDEN[kind]["cases"][case]["text"] for case in CASES]
    logits_BTV = ours.logits(ours(batch).hidden_BTD)
    numbers = sorted({(b, int(s)) for b, row in enumerate(batch.segments_BT) for s in row if s})
    for (b, segment), case in zip(numbers, CASES, strict=True):
        got = logits_BTV[b][batch.segments_BT[b] == segment][:, ::7]
        expected = torch.tensor(GOLDEN[kind]["cases"][case]["logits"])
        record("open-flamingo", layout, ours=got, theirs=expected)


def test_names_go_both_ways(kind: str, record: Callable[..., None]) -> None:
    model, key_map = build(kind)
    theirs, back = their_state(kind), key_map.to_theirs(model.state_dict())
    assert set(back) == set(theirs)
    assert all(torch.equal(back[name], value) for name, value in theirs.items())
    record("open-flamingo", "export")


def test_what_is_released_is_what_learns(kind: str) -> None:
    """A released file: resampler, blocks and embedding, also under the names of the blocks' own list."""
    model, key_map = build(kind)
    released = {k: v for k, v in their_state(kind).items() if "perceiver" in k or "gated" in k}
    mine = key_map.to_ours(released)
    assert set(mine) == {n for n in model.state_dict() if n.startswith(("projectors.", "fusion."))}
    path = {"gpt_neox": "gpt_neox", "opt": "model.decoder"}[kind]
    listed = {
        k.replace(f"lang_encoder.{path}.layers.", "lang_encoder.gated_cross_attn_layers.")
        .replace(".gated_cross_attn_layer.", "."): v
        for k, v in released.items()
    }  # fmt: skip
    again = key_map.to_ours(listed)
    assert set(again) == set(mine)
    assert all(torch.equal(again[name], value) for name, value in mine.items())


@torch.no_grad()
def test_pictures_count(ours: MultimodalModel) -> None:
    """The golden numbers are of open gates."""
    one = example(ours, CASES["two"])
    seen = ours(collate([[one]], pad_id=0)).hidden_BTD
    nothing = Features(torch.zeros(8, 16), (Grid(2, 2),) * 2)
    one.media["image"].features = nothing
    assert not torch.allclose(ours(collate([[one]], pad_id=0)).hidden_BTD, seen, atol=1e-2)


def test_config_there_and_back() -> None:
    theirs = config(GPT_NEOX)
    ours = OpenFlamingo().to_ours(theirs)
    assert OpenFlamingo().to_ours(OpenFlamingo().to_theirs(ours)) == ours
