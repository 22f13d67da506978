"""What the authors of systems with hands published, imported: their own modules by their own names, the same states and conditions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from any_to_any_originals import WIDTH, Koh, clip, opt
from test_hf_families import batch_of, normalised
from test_original_export import assert_same
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

from sensorium.cli.main import app
from sensorium.core.batch import Example, MediaBatch, TilePlan
from sensorium.core.errors import WeightsError
from sensorium.interop.original import import_original, read_original
from sensorium.interop.original_export import export_original
from sensorium.interop.originals import ORIGINALS
from sensorium.interop.originals.base import Beside, Found, Original
from sensorium.interop.saved import load_model
from sensorium.model.multimodal import MultimodalModel
from sensorium.recipes import RECIPES


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Beside:
    folder = tmp_path_factory.mktemp("beside")
    return Beside(opt(folder / "opt"), clip(folder / "clip"))


def koh(beside: Beside, kind: str) -> Koh:
    assert beside.llm is not None
    assert beside.tower is not None
    torch.manual_seed(3)
    return Koh(beside.llm, beside.tower, tokens={"fromage": 1, "gill": 4}[kind], gill=kind == "gill")


def our_states(ours: MultimodalModel, raw: Tensor, tokens: int, ids: list[int]) -> Tensor:
    media = {"image": MediaBatch(raw, (TilePlan(),))}
    row = [0] * tokens + ids
    example = Example(row, [False] * len(row), {"image": list(range(tokens))}, media, [1] * len(row))
    return ours(batch_of(example)).hidden_BTD[:, : len(row)]


@torch.no_grad()
def test_fromage(beside: Beside, tmp_path: Path) -> None:
    """By the command: states and logits behind a picture, the two vectors that are compared, and the way back."""
    theirs = koh(beside, "fromage")
    saved = theirs.save(tmp_path / "fromage")
    done = CliRunner().invoke(app, ["import", str(tmp_path / "fromage" / "pretrained_ckpt.pth.tar"), str(tmp_path / "ours"),
                                    "--llm", str(beside.llm), "--tower", str(beside.tower)])  # fmt: skip
    assert done.exit_code == 0, done.output
    ours, tokenizer = load_model(tmp_path / "ours")
    assert tokenizer.special_id("[RET]") == theirs.words
    raw, ids = torch.randint(0, 256, (1, 3, 28, 28), dtype=torch.uint8), [5, 9, 40, theirs.words]
    expected, got = theirs.states(normalised(raw), ids), our_states(ours, raw, 1, ids)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.logits(got), theirs.model.lm.lm_head(expected), atol=1e-5, rtol=1e-4)
    hand: Any = ours.hands["image"]
    text = F.normalize(theirs.model.text_hidden_fcs[0](expected[:, -1:]), dim=-1)
    torch.testing.assert_close(hand(got[:, -1:]), text, atol=1e-5, rtol=1e-4)
    seen = theirs.model.visual_model(normalised(raw)).pooler_output
    torch.testing.assert_close(hand.pictures(seen), F.normalize(theirs.model.visual_fc(seen), dim=-1))
    assert float(hand.logit_scale) == 1.5
    export_original(tmp_path / "ours", tmp_path / "back")
    assert [p.name for p in (tmp_path / "back").iterdir()] == ["pretrained_ckpt.safetensors"]
    assert_same(tmp_path / "back" / "pretrained_ckpt.safetensors", saved)


@torch.no_grad()
def test_gill(beside: Beside, tmp_path: Path) -> None:
    """A folder with the decision model in it, in bf16, trained on several devices."""
    theirs = koh(beside, "gill")
    saved = theirs.save(tmp_path / "gill", wrapper="module.", dtype=torch.bfloat16)
    theirs.bfloat16().float()
    decides = nn.Sequential(nn.Dropout(0.5), nn.Linear(WIDTH, 2)).eval()
    torch.save({"state_dict": decides.state_dict()}, tmp_path / "gill" / "decision_model.pth.tar")
    import_original(tmp_path / "gill", tmp_path / "ours", beside)
    ours, tokenizer = load_model(tmp_path / "ours")
    assert [tokenizer.special_id(f"[IMG{i}]") for i in range(8)] == list(range(theirs.words, theirs.words + 8))
    # The language model beside it is in fp32; only what learnt is rounded.
    theirs.model.lm.model.load_state_dict({k.removeprefix("backbone.lm.model."): v for k, v in ours.state_dict().items()
                                           if k.startswith("backbone.lm.model.")})  # fmt: skip
    theirs.model.visual_model.load_state_dict(type(theirs.model.visual_model).from_pretrained(beside.tower).state_dict())
    rows = saved["module.model.input_embeddings.weight"].float()
    assert torch.equal(theirs.model.input_embeddings.weight[-8:], rows)
    raw, ids = torch.randint(0, 256, (1, 3, 28, 28), dtype=torch.uint8), [5, 9, 40, *range(theirs.words, theirs.words + 8)]
    expected, got = theirs.states(normalised(raw), ids)[:, -8:], our_states(ours, raw, 4, ids)[:, -8:]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
    drawn = theirs.model.gen_text_hidden_fcs[0](expected, rows[None])
    torch.testing.assert_close(ours.hands["image"](got + rows), drawn, atol=1e-5, rtol=1e-4)
    sought = F.normalize(theirs.model.ret_text_hidden_fcs[0](expected, rows[None])[:, :1], dim=-1)
    torch.testing.assert_close(ours.hands["image_other"](got), sought, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.hands["image_choice"](got), decides(expected[:, 0]), atol=1e-5, rtol=1e-4)
    export_original(tmp_path / "ours", tmp_path / "back")
    assert_same(tmp_path / "back" / "pretrained_ckpt.safetensors", saved)
    assert_same(tmp_path / "back" / "decision_model.safetensors", decides.state_dict())


def test_gill_without_its_decision_model(beside: Beside, tmp_path: Path) -> None:
    koh(beside, "gill").save(tmp_path / "gill")
    hand = read_original(tmp_path / "gill", beside).config.hands["image"]
    assert hand.choice is None
    assert hand.other is not None


@pytest.mark.parametrize(
    ("kind", "name", "change", "named"),
    [
        ("fromage", "model.visual_fc.bias", None, r"1 tensors are missing \(model\.visual_fc\.bias\)"),
        ("fromage", "model.tunable.weight", torch.zeros(1), r"no rule for tensor 'model\.tunable\.weight'"),
        ("fromage", "ret_input_embeddings.weight", torch.zeros(1, 5), r"ret_input_embeddings\.weight has shape \(1, 5\); expected \(1, 32\)"),
        ("fromage", "model.visual_embeddings.weight", torch.zeros(33, 24), r"makes 33 numbers; expected a multiple of 32"),
        ("gill", "model.gen_text_hidden_fcs.0.query_embs", None, r"no tensor 'model\.gen_text_hidden_fcs\.0\.query_embs'"),
        ("gill", "model.input_embeddings.weight", torch.zeros(7, 32), r"signal tokens with ids .*expected \[264, .*270\]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(beside: Beside, kind: str, name: str, change: Tensor | None, named: str, tmp_path: Path) -> None:
    koh(beside, kind).save(tmp_path / "m")
    file = tmp_path / "m" / "pretrained_ckpt.pth.tar"
    tensors = torch.load(file)["state_dict"] | {name: change}
    torch.save({"state_dict": {k: v for k, v in tensors.items() if v is not None}}, file)
    with pytest.raises(WeightsError, match=named):
        read_original(file, beside)


def test_words_elsewhere_than_the_tokenizer_says_are_refused(beside: Beside, tmp_path: Path) -> None:
    koh(beside, "fromage").save(tmp_path / "m")
    (tmp_path / "m" / "model_args.json").write_text(json.dumps({"retrieval_token_idx": 50266}))
    with pytest.raises(WeightsError, match=r"signal tokens with ids 50266; expected \[264\]"):
        read_original(tmp_path / "m", beside)


# Published sizes --------------------------------------------------------------------------------


def transformer(before: str, width: int, inner: int, layers: int = 4) -> dict[str, tuple[int, ...]]:
    """What `nn.Transformer` of this size holds."""
    with torch.device("meta"):
        module = nn.Transformer(d_model=width, dim_feedforward=inner, num_encoder_layers=layers, num_decoder_layers=layers, nhead=4)
    return {before + k: tuple(v.shape) for k, v in module.state_dict().items()}


def mapper(before: str, length: int, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{before}fc.weight": (512, 4096), f"{before}model.weight": (width, 512), f"{before}query_embs": (1, length, 512),
            **transformer(f"{before}tfm.", 512, 2048)}  # fmt: skip


FROMAGE = {"ret_input_embeddings.weight": (1, 4096), "model.visual_embeddings.weight": (4096, 1024), "model.visual_fc.weight": (256, 1024)}
GILL = {"model.input_embeddings.weight": (8, 4096), "model.visual_embeddings.weight": (4 * 4096, 1024), "model.visual_fc.weight": (256, 1024),
        "model.ret_text_hidden_fcs.0.model.weight": (256, 4096), "1.weight": (2, 4096), **mapper("model.gen_text_hidden_fcs.0.", 77, 768)}  # fmt: skip


def without_sources(values: Any) -> Any:
    """A config without where parts come from, and what tokenizers are looked for."""
    if isinstance(values, dict):
        return {k: without_sources(v) for k, v in values.items() if k != "weights"}
    return [without_sources(v) for v in values] if isinstance(values, list | tuple) else values


@pytest.mark.parametrize(("name", "shapes"), [("fromage", FROMAGE), ("gill", GILL)])
def test_the_published_sizes_are_the_recipes(name: str, shapes: dict[str, tuple[int, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shapes of `FrozenArgs` and `GILLArgs` with the published arguments, and those of decision_model.pth.tar itself."""
    recipe = RECIPES.find(name)().model
    monkeypatch.setattr("sensorium.interop.originals.fromage.rows_with", lambda folder, added: 50265 + len(added))
    for part, config in (("llm", recipe.backbone.to_dict()["arch"] | {"vocab_size": 50272}),
                         ("clip", {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                                   "num_attention_heads": 16, "image_size": 224, "patch_size": 14})):  # fmt: skip
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(config))
    beside = Beside(tmp_path / "llm", tmp_path / "clip")
    layout: Original = ORIGINALS.find(name)()
    found = layout.gather(Found(tmp_path / "x", {}, {k: torch.empty(v, device="meta") for k, v in shapes.items()}), beside)
    assert without_sources(layout.model(found, beside).to_dict()) == without_sources(recipe.to_dict())
