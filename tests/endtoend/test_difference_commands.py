"""`merge`, `unmerge` and adapters of a model that is kept as a difference: the same files as of the whole model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_merge import KINDS, config_of, digests, run

from sensorium.core.errors import ConfigError
from sensorium.core.weights import FolderSource
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.merged import unmerge
from sensorium.interop.onto import is_difference
from sensorium.interop.saved import save_model
from sensorium.model.adapter import inject_adapter
from sensorium.recipes.tiny import tiny_model

MATRIX = "backbone.lm.model.embed_tokens.weight"


@pytest.fixture(scope="module", params=["source", "own"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, and `whole`, which was trained from it and has a changed row and adapters; `small` is what differs.

    The LLM has a source of weights and its tokenizer, or none.
    """
    folder = tmp_path_factory.mktemp("onto")
    torch.manual_seed(0)
    weights: tuple[FolderSource, ...] = ()
    if request.param == "source":
        tiny_model().backbone.build().lm.save_pretrained(folder / "lm")
        weights = (FolderSource(path=str(folder / "lm")),)
    model, tokenizer = build_pretrained(config_of(None, weights=weights))
    save_model(model, tokenizer, folder / "base", learnt=set())
    state = model.state_dict()
    model, tokenizer = build_pretrained(config_of(KINDS["lora"], weights=weights))
    model.load_state_dict(state)
    inject_adapter(model)
    with torch.no_grad():
        for name, parameter in model.eval().named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
        model.backbone.embedding.weight[7] += 1
        next(model.projectors.parameters()).add_(0.5)
    save_model(model, tokenizer, folder / "whole", learnt={MATRIX})
    run("export", folder / "whole", folder / "small", "--to", f"onto:{folder / 'base'}")
    assert is_difference(folder / "small")
    return folder


def same_tensors(one: Path, two: Path) -> bool:
    mine, others = (load_file(folder / "model.safetensors") for folder in (one, two))
    return set(mine) == set(others) and all(torch.equal(mine[n], others[n]) for n in mine)


def same(one: Path, two: Path) -> bool:
    mine, others = (json.loads((folder / "config.json").read_text()) for folder in (one, two))
    return mine == others and same_tensors(one, two)


def test_it_is_merged_and_gives_the_whole_model_back(folders: Path, tmp_path: Path) -> None:
    assert run("merge", folders / "small", tmp_path / "one")["layers"] == run("merge", folders / "whole", tmp_path / "two")["layers"]
    assert same(tmp_path / "one", tmp_path / "two")
    run("unmerge", tmp_path / "one", tmp_path / "back")
    assert same(tmp_path / "back", folders / "whole")
    # Of a merged model, a difference holds what it is, not what it was.
    run("export", tmp_path / "one", tmp_path / "less", "--to", f"onto:{folders / 'base'}")
    with pytest.raises(ConfigError, match="does not keep what it was"):
        unmerge(tmp_path / "less", tmp_path / "never")


def test_adapters_come_out_of_it_and_go_onto_it(folders: Path, tmp_path: Path) -> None:
    for name in ("small", "whole"):
        run("export", folders / name, tmp_path / f"{name}-adapter", "--adapter-only")
    assert digests(tmp_path / "small-adapter") == digests(tmp_path / "whole-adapter")
    # The same adapter onto one that has none, and is a difference.
    run("unmerge", _merged(folders, tmp_path), tmp_path / "plain", "--base")
    run("export", tmp_path / "plain", tmp_path / "plain-small", "--to", f"onto:{folders / 'base'}")
    run("import", tmp_path / "whole-adapter", tmp_path / "both", "--onto", str(tmp_path / "plain-small"))
    assert same_tensors(tmp_path / "both", folders / "whole")
    assert set(json.loads((tmp_path / "both" / "config.json").read_text())) == {"sensorium", "format", "model", "tied"}


def _merged(folders: Path, out: Path) -> Path:
    run("merge", folders / "small", out / "merged")
    return out / "merged"
