"""OpenFlamingo's released checkpoints over a CLIP and a language model: what the package itself computed, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from openflamingo_cases import CASES, GPT_NEOX, OPT, VISION
from safetensors.torch import save_file
from test_hf_families import our_greedy
from test_openflamingo import GOLDEN, config, example, their_state
from test_original_export import assert_same
from test_original_keys import Evil
from test_weight_files import MPT, mosaic_folder, mosaic_gpt
from torch import Tensor
from typer.testing import CliRunner

from sensorium.cli.main import app
from sensorium.core.errors import WeightsError
from sensorium.interop.families.openflamingo import OpenFlamingo
from sensorium.interop.original import read_original
from sensorium.interop.originals.base import Beside
from sensorium.interop.saved import load_model
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.text.byte_tokenizer import byte_tokenizer

PATHS = {"gpt_neox": "gpt_neox.layers", "opt": "model.decoder.layers"}
LMS: dict[str, dict[str, Any]] = {"gpt_neox": GPT_NEOX, "opt": OPT}


def folder_of(folder: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def laid_apart(state: dict[str, Tensor], text: dict[str, Any], folder: Path) -> tuple[dict[str, Tensor], Beside]:
    """What a release holds, and what lies beside it."""
    path = f"lang_encoder.{PATHS[text['model_type']]}."
    released = {k: v for k, v in state.items() if "perceiver" in k or "gated" in k or "embed_in" in k or "embed_tokens" in k}
    llm = {k.removeprefix("lang_encoder.").replace(".decoder_layer.", "."): v for k, v in state.items()
           if k.startswith("lang_encoder.") and "gated" not in k}  # fmt: skip
    if text["model_type"] == "opt":
        llm.pop("lm_head.weight")
    # Blocks a second time, under their own list; and what training wrapped all names in.
    twice = {k.replace(path, "lang_encoder.gated_cross_attn_layers.").replace(".gated_cross_attn_layer.", "."): v.clone()
             for k, v in released.items() if "gated" in k}  # fmt: skip
    tower = {k.replace("vision_encoder.", "vision_model."): v for k, v in state.items() if k.startswith("vision_encoder.")}
    beside = Beside(
        llm=folder_of(folder / "llm", llm, text),
        tower=folder_of(folder / "clip", tower, {"model_type": "clip_vision_model"} | VISION),
    )
    return {f"module.{k}": v for k, v in (released | twice).items()}, beside


@torch.no_grad()
@pytest.mark.parametrize("kind", PATHS)
def test_logits_and_text(kind: str, tmp_path: Path) -> None:
    released, beside = laid_apart(their_state(kind), LMS[kind], tmp_path)
    torch.save({"epoch": 1, "model_state_dict": released, "optimizer_state_dict": {}}, tmp_path / "checkpoint.pt")
    ours = read_original(tmp_path / "checkpoint.pt", beside)
    assert ours.config.backbone.added_tokens == ("<|endofchunk|>", "<image>", "<PAD>")
    for case, ids in CASES.items():
        one, expected = example(ours, ids), GOLDEN[kind]["cases"][case]
        got = ours.logits(ours(collate([[one]], pad_id=0)).hidden_BTD)[0]
        torch.testing.assert_close(got[:, ::7], torch.tensor(expected["logits"]), atol=1e-5, rtol=1e-4)
        assert our_greedy(ours, [one], 6) == [expected["text"]]


def words(text: dict[str, Any], rows: int) -> dict[str, Any]:
    return text | {"vocab_size": rows}


@torch.no_grad()
def test_on_the_command_line_and_back(tmp_path: Path) -> None:
    """The table is cut from its makers' rows to the tokens; the release comes back bit for bit, each tensor once."""
    theirs = config(words(GPT_NEOX, 266))
    model = MultimodalModel(OpenFlamingo().to_ours(theirs))
    state = OpenFlamingo().key_map(theirs).to_theirs(model.state_dict())
    released, beside = laid_apart(state, words(GPT_NEOX, 266), tmp_path)
    assert beside.llm is not None
    # 280 rows in the language model's own files.
    rows = {f"{n}.weight": torch.randn(280, 32) for n in ("gpt_neox.embed_in", "lm_head")}
    lm = {k.removeprefix("backbone.lm."): v for k, v in model.state_dict().items() if k.startswith("backbone.lm.")}
    folder_of(tmp_path / "big", lm | rows, words(GPT_NEOX, 280))
    byte_tokenizer().save(tmp_path / "big")
    (tmp_path / "big" / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    named = {k.removeprefix("module."): v for k, v in released.items() if "gated_cross_attn_layers" not in k}
    named = {k: v.half() if v.ndim > 1 else v for k, v in named.items()}
    torch.save(named, tmp_path / "checkpoint.pt")
    words_ = ["import", str(tmp_path / "checkpoint.pt"), str(tmp_path / "ours"), "--llm", str(tmp_path / "big"),
              "--tower", str(beside.tower)]  # fmt: skip
    result = CliRunner().invoke(app, words_, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    ours, tokenizer = load_model(tmp_path / "ours")
    assert [tokenizer.decode([i], keep_special=True) for i in (263, 264, 265)] == ["<|endofchunk|>", "<image>", "<PAD>"]
    embedding = ours.backbone.embedding.weight  # pyright: ignore[reportAttributeAccessIssue]
    assert torch.equal(embedding, named["lang_encoder.gpt_neox.embed_in.weight"].float())
    assert torch.equal(ours.state_dict()["backbone.lm.lm_head.weight"], rows["lm_head.weight"][:266])
    back = CliRunner().invoke(app, ["export", str(tmp_path / "ours"), str(tmp_path / "back"), "--to", "original"])
    assert back.exit_code == 0, back.output
    assert sorted(p.name for p in (tmp_path / "back").iterdir()) == ["checkpoint.safetensors", "config.json"]
    assert_same(tmp_path / "back" / "checkpoint.safetensors", named)
    again = read_original(tmp_path / "back" / "checkpoint.safetensors", Beside(llm=tmp_path / "big", tower=beside.tower))
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in ours.state_dict().items())


@torch.no_grad()
def test_over_mpt_1b(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A language model in its makers' own layout; with closed gates it is that model."""
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    theirs = config(MPT | {"n_layers": 2, "vocab_size": 266})
    model = MultimodalModel(OpenFlamingo().to_ours(theirs))
    for block in range(1):
        for gate in ("attention_gate", "mlp_gate_scale"):
            model.state_dict()[f"fusion.blocks.{block}.{gate}"].zero_()
    state = OpenFlamingo().key_map(theirs).to_theirs(model.state_dict())
    released = {k: v for k, v in state.items() if "perceiver" in k or "gated" in k}
    own = mosaic_folder(tmp_path / "mpt", "attn")
    released["lang_encoder.transformer.wte.weight"] = own["transformer.wte.weight"][:266].clone()
    tower = {k.replace("vision_encoder.", "vision_model."): v for k, v in state.items() if k.startswith("vision_encoder.")}
    clip = folder_of(tmp_path / "clip", tower, {"vision_config": VISION})
    torch.save(released, tmp_path / "checkpoint.pt")
    ours = read_original(tmp_path / "checkpoint.pt", Beside(llm=tmp_path / "mpt", tower=clip))
    assert ours.config.backbone.kind == "mpt_qk_norm"
    ids = torch.randint(0, 260, (1, 7))
    hidden = ours.backbone(ours.backbone.embed(ids), positions_BT=torch.arange(7)[None])
    torch.testing.assert_close(ours.logits(hidden), mosaic_gpt(own, ids)[..., :266], atol=1e-5, rtol=1e-4)


def test_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    released, beside = laid_apart(their_state("opt"), OPT, tmp_path)
    file = tmp_path / "checkpoint.pt"
    torch.save(released, file)
    with pytest.raises(WeightsError, match="--llm"):
        read_original(file, Beside(tower=beside.tower))
    with pytest.raises(WeightsError, match="--tower"):
        read_original(file, Beside(llm=beside.llm))
    name = next(k for k in released if k.endswith("decoder.layers.1.gated_cross_attn_layer.attn_gate"))
    torch.save(released | {name: released[name] + 1}, file)
    with pytest.raises(WeightsError, match="is there twice, and differs"):
        read_original(file, beside)
    lost = {k: v for k, v in released.items() if "perceiver.latents" not in k}
    torch.save(lost, file)
    with pytest.raises(WeightsError, match=r"missing \(perceiver\.latents\)"):
        read_original(file, beside)
    uneven = {k.replace("layers.3.", "layers.2."): v for k, v in released.items()}
    torch.save(uneven, file)
    with pytest.raises(WeightsError, match=r"blocks of cross-attention at layers \[1, 2\]"):
        read_original(file, beside)
    torch.save(released | {"x": Evil(tmp_path / "ran")}, file)
    with pytest.raises(WeightsError, match="needs pickled code"):
        read_original(file, beside)
    assert not (tmp_path / "ran").exists()
