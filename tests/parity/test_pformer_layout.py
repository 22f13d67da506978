"""DLP's P-Former in its authors' file: names map completely both ways, and what is read makes the authors' prompts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from original_layouts import lavis
from test_original_export import assert_same, half, there_and_back
from test_originals import OPT, blip2_oracle, llm_of
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

from sensorium.cli.main import app
from sensorium.core.errors import WeightsError
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.originals.base import Beside
from sensorium.interop.pformer import (
    holds_pformer,
    import_pformer,
    pformer_to_ours,
    pformer_to_theirs,
)
from sensorium.nn.pretrained import load_part
from sensorium.processing.processor import Processor
from sensorium.recipes import RECIPES, TINY_FORMS
from sensorium.training.objectives.aligned import AlignedConfig
from sensorium.training.objectives.owned import beside, go_on_from, owned_tensors
from sensorium.training.objectives.pformer import PFormer, PFormerConfig
from sensorium.training.objectives.sentences import SentenceModules, SentencesConfig

SMALL = PFormerConfig(layers=2, width=16, heads=2, mlp_width=24, words=30, max_words=20)
QUERIES, D = 4, 12


def pformer(config: PFormerConfig, queries: int, d_model: int, llm: str = "opt", contrast: int = 256) -> dict[str, Tensor]:
    """What runners/runner_base.py saves of pformer_opt.py: all that learns, and buffers."""
    w, d = config.width, config.mlp_width
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.words, w), "embeddings.position_embeddings.weight": (config.max_words, w),
        "embeddings.token_type_embeddings.weight": (2, w), "embeddings.LayerNorm.weight": (w,), "embeddings.LayerNorm.bias": (w,),
    }  # fmt: skip
    linear: dict[str, tuple[int, int]] = {
        "cls_proj": (queries * w, w), "pooler.0": (w, w), "text_proj": (contrast, w), f"{llm}_proj": (d_model, w)}  # fmt: skip
    for i in range(config.layers):
        at = f"encoder.layer.{i}."
        linear |= {f"{at}attention.self.{n}": (w, w) for n in ("query", "key", "value")}
        linear |= {f"{at}attention.output.dense": (w, w), f"{at}intermediate.dense": (d, w), f"{at}output.dense": (w, d)}
        shapes |= {f"{at}{n}.LayerNorm.{k}": (w,) for n in ("attention.output", "output") for k in ("weight", "bias")}
    shapes |= {f"{n}.weight": s for n, s in linear.items()} | {f"{n}.bias": s[:1] for n, s in linear.items()}
    made = {f"Pformer.{n}": torch.randn(s) * 0.3 for n, s in shapes.items()}
    made["Pformer.temp"] = torch.tensor(0.05)
    made["Pformer.embeddings.position_ids"] = torch.arange(config.max_words)[None]
    return made | {f"{llm}_vocab_embeddings": torch.randn(50, d_model).half()}


def modules(config: PFormerConfig = SMALL) -> SentenceModules:
    return SentenceModules(SentencesConfig(teacher=config), QUERIES, D)


@pytest.mark.parametrize("llm", ["opt", "t5"])
def test_there_and_back_through_our_modules(llm: Any) -> None:
    theirs = pformer(SMALL, QUERIES, D, llm)
    holder = nn.Module()
    holder.add_module("objective", modules())
    # Nothing of ours is left as it was, nothing of theirs is left over.
    holder.load_state_dict(pformer_to_ours(theirs), strict=True)
    back = pformer_to_theirs(holder.state_dict(), theirs[f"{llm}_vocab_embeddings"], llm)
    assert set(back) == set(theirs)
    for name, value in theirs.items():
        assert (back[name].dtype, back[name].shape) == (value.dtype, value.shape), name
        assert torch.equal(back[name], value), name


def test_published_names_and_shapes_are_those_of_the_recipe() -> None:
    """BERT-base before OPT-2.7B, without numbers."""
    recipe = RECIPES.find("dlp")()
    objective = recipe.stages[0].objective
    assert isinstance(objective, SentencesConfig)
    with torch.device("meta"):
        own = SentenceModules(objective, recipe.model.lane("image").tile_grid().tokens, recipe.model.backbone.d_model)
        theirs = pformer(PFormerConfig(), 32, 2560)
    ours = pformer_to_ours(theirs)
    assert {n: v.shape for n, v in ours.items()} == {f"objective.{n}": v.shape for n, v in own.state_dict().items()}


@torch.no_grad()
def test_the_teacher_makes_the_authors_prompts(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    w = pformer(SMALL, QUERIES, D)
    torch.save({"model": w, "optimizer": {}, "epoch": 4}, tmp_path / "pformer.pth")
    ours = PFormer(SMALL, QUERIES, D).eval()
    result = CliRunner().invoke(app, ["import", str(tmp_path / "pformer.pth"), str(tmp_path / "teacher"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["parameters"] == sum(p.numel() for p in modules().parameters())
    load_part(ours, tmp_path / "teacher", "teacher.")
    bert = BertModel(BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=20,
    ), add_pooling_layer=False).eval()  # fmt: skip
    inner = {k.removeprefix("Pformer."): v for k, v in w.items() if k.startswith(("Pformer.embeddings.", "Pformer.encoder."))}
    inner.pop("embeddings.position_ids")
    bert.load_state_dict(inner, strict=True)
    ids, real = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"Pformer.{name}.weight"], w[f"Pformer.{name}.bias"])

    first = bert(input_ids=ids, attention_mask=real).last_hidden_state[:, 0]
    expected = linear(linear(linear(first, "cls_proj").reshape(2, QUERIES, 16), "pooler.0").tanh(), "opt_proj")
    torch.testing.assert_close(ours(ids, real.bool()), expected, atol=1e-5, rtol=1e-5)


def test_a_stage_takes_the_authors_teacher(tmp_path: Path) -> None:
    recipe = TINY_FORMS.find("dlp")()
    config = recipe.stages[2].objective
    assert isinstance(config, AlignedConfig)
    model, tokenizer = build_pretrained(recipe.model)
    queries, width = recipe.model.lane("image").tile_grid().tokens, recipe.model.backbone.d_model
    w = pformer(config.teacher, queries, width)
    torch.save({"model": w}, tmp_path / "pformer.pth")
    import_pformer(tmp_path / "pformer.pth", tmp_path / "teacher")
    told = config.model_copy(update={"teacher_folder": str(tmp_path / "teacher")})
    built: Any = told.build(model, Processor(recipe.model, tokenizer), ())
    with beside(model, built):
        taught = {n.replace(".given.", ".teacher."): v + 1 for n, v in owned_tensors(model).items()}
        go_on_from(model, taught)  # What a stage of sentences before it left behind.
    assert torch.equal(built.teacher.pool.weight, w["Pformer.pooler.0.weight"])
    assert torch.equal(built.module["given"].out.bias, w["Pformer.opt_proj.bias"])
    other = told.model_copy(update={"teacher": config.teacher.model_copy(update={"max_words": 7})})
    with pytest.raises(WeightsError, match=r"teacher: weights do not fit PFormer"):
        other.build(model, Processor(recipe.model, tokenizer), ())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop("Pformer.encoder.layer.1.output.dense.bias"), r"encoder\.encoder\.layer\.1\.output\.dense\.bias"),
        (lambda t: t.update({"Pformer.encoder.layer.2.output.dense.bias": torch.zeros(16)}), r"layer\.2\.output\.dense\.bias"),
        (lambda t: t.update({"Qformer.bert.x": torch.zeros(1)}), r"no rule for tensor 'Qformer\.bert\.x'"),
        (lambda t: t.pop("Pformer.opt_proj.weight"), "no tensor 'Pformer.opt_proj.weight'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(change: Callable[[dict[str, Tensor]], Any], named: str, tmp_path: Path) -> None:
    tensors = pformer(SMALL, QUERIES, D)
    change(tensors)
    torch.save({"model": tensors}, tmp_path / "pformer.pth")
    with pytest.raises(WeightsError, match=named):
        read(tmp_path / "pformer.pth", tmp_path / "teacher")


def read(file: Path, folder: Path) -> None:
    import_pformer(file, folder)
    load_part(PFormer(SMALL, QUERIES, D), folder, "teacher.")


def test_later_stages_are_a_blip2(tmp_path: Path) -> None:
    """Their P-Former is frozen: of it the file holds counted positions alone, and the rest is LAVIS' BLIP-2."""
    theirs = blip2_oracle(OPT)
    learnt = half(lavis(theirs, "opt_proj"))
    whole = learnt | {"Pformer.embeddings.position_ids": torch.arange(512)[None]}
    torch.save({"model": whole, "epoch": 9}, tmp_path / "stage2.pth")
    assert not holds_pformer(tmp_path / "stage2.pth")
    there_and_back(tmp_path / "stage2.pth", Beside(llm=llm_of(theirs, tmp_path / "opt")), tmp_path)
    assert_same(tmp_path / "back" / "stage2.safetensors", learnt)
