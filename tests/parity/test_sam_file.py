"""SAM's own file, and LISA's: what the authors' code computed with the same tensors (golden/make_sam.py)."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file
from torch import Tensor

from sensorium.core.boxes import Box, Point
from sensorium.core.errors import WeightsError
from sensorium.core.weights import FileSource
from sensorium.generators.sam import SamConfig
from sensorium.interop.locate import locate
from sensorium.interop.sam_file import SAM

GOLDEN = load(gzip.decompress((Path(__file__).parent / "golden" / "sam.safetensors.gz").read_bytes()))
WEIGHTS = {k.removeprefix("weights."): v for k, v in GOLDEN.items() if k.startswith("weights.")}
CONFIG = SamConfig(width=16, layers=2, heads=2, global_layers=(1,), window=3, image_size_px=32, patch_size_px=8,
                   prompt_width=16, decoder_heads=2, decoder_mlp_width=24, decoder_norm_eps=1e-5)  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))


def folder_of(tensors: dict[str, Tensor], file: Path) -> Path:
    torch.save(tensors, file)
    folder = locate((FileSource(path=str(file), format="sam"),))
    assert folder is not None
    return folder


def lisa(prefix: str) -> dict[str, Tensor]:
    beside = {"model.layers.0.mlp.up_proj.weight": torch.ones(2), "model.text_hidden_fcs.0.0.weight": torch.ones(2)}
    return {prefix + k: v for k, v in WEIGHTS.items()} | beside


@torch.no_grad()
def test_the_authors_masks(tmp_path: Path, record: Callable[..., None]) -> None:
    sam = CONFIG.build(folder_of(WEIGHTS, tmp_path / "sam_vit_h.pth"))
    looked = sam.look(GOLDEN["picture"].permute(1, 2, 0).numpy())
    record("sam-file", "made", ours=looked.embedding_1CGG, theirs=GOLDEN["embedding"])
    for several in (False, True):
        logits_NMLL, quality_NM = sam.decode(looked, GOLDEN["prompts"], several=several)
        record("sam-file", "made", ours=logits_NMLL, theirs=GOLDEN[f"logits.{several}"])
        record("sam-file", "made", ours=quality_NM, theirs=GOLDEN[f"quality.{several}"])
    points = [(Point(3, 18), True), (Point(30, 0), False)]
    logits_NMLL, _ = sam.decode(looked, sam.place_prompt(looked, points, Box(2, 3, 31, 20)))
    record("sam-file", "made", ours=sam.to_picture(logits_NMLL, looked), theirs=GOLDEN["placed"])


@pytest.mark.parametrize("prefix", ["model.visual_model.", "base_model.model.model.visual_model."])
def test_lisas_sam_is_taken_out_of_its_checkpoint(prefix: str, tmp_path: Path) -> None:
    own = load_file(folder_of(WEIGHTS, tmp_path / "a.pth") / "model.safetensors")
    inner = load_file(folder_of(lisa(prefix), tmp_path / "b.pth") / "model.safetensors")
    assert set(own) == set(inner)
    assert all(torch.equal(own[name], inner[name]) for name in own)


def test_no_tensor_is_lost_there_and_back(record: Callable[..., None]) -> None:
    ours = SAM.to_ours(WEIGHTS)
    assert len(ours) == len(WEIGHTS)
    back = SAM.to_theirs(ours)
    assert set(back) == set(WEIGHTS)
    assert all(torch.equal(back[name], WEIGHTS[name]) for name in WEIGHTS)
    record("sam-file", "weights")


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no image_encoder\.patch_embed"):
        folder_of({"model.layers.0.mlp.up_proj.weight": torch.ones(2)}, tmp_path / "llm.pth")
    odd = WEIGHTS | {"mask_decoder.hf_token.weight": torch.ones(2)}
    with pytest.raises(WeightsError, match=r"mask_decoder\.hf_token"):
        folder_of(odd, tmp_path / "hq.pth")
