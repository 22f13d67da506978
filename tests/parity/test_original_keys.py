"""Original layouts: key maps lose nothing, and what does not fit is named as the checkpoint calls it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from original_layouts import TEXT, lavis, llava_repository, write_folder
from test_originals import (
    OPT,
    blip2_oracle,
    llava_config,
    llava_oracle,
    llm_of,
    owl_abstractor,
    owl_tensors,
)
from torch import Tensor
from typer.testing import CliRunner

from sensorium.cli.main import app
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.interop.original import read_original
from sensorium.interop.originals import ORIGINALS
from sensorium.interop.originals.base import Beside
from sensorium.interop.originals.mplug_owl import MplugOwl
from sensorium.interop.saved import load_model
from sensorium.interop.torch_file import read_checkpoint, read_torch
from sensorium.nn.pretrained import HARMLESS


def llava_state() -> dict[str, Tensor]:
    whole = llava_repository(llava_oracle()) | {"model.image_newline": torch.randn(32)}
    return {k: v for k, v in whole.items() if not k.endswith(HARMLESS)}


def lavis_state() -> dict[str, Tensor]:
    model = blip2_oracle(TEXT, reads=True)
    inner = getattr(model, "model", model).language_model
    return lavis(model, "llm_proj") | {f"llm_model.{k}": v for k, v in inner.state_dict().items()}


def owl_state() -> dict[str, Tensor]:
    tower = dict(llava_oracle().model.vision_tower.state_dict())
    return owl_tensors(tower) | owl_abstractor() | {"language_model.lm_head.weight": torch.randn(3, 3)}


@pytest.mark.parametrize(
    ("name", "state"),
    [("llava_repository", llava_state), ("lavis", lavis_state), ("mplug_owl", owl_state)],
)
def test_there_and_back_is_the_same(name: str, state: Callable[[], dict[str, Tensor]]) -> None:
    theirs = state()
    layout = ORIGINALS.find(name)()
    assert layout.fits(theirs)
    key_map = layout.key_map(theirs)
    ours = key_map.to_ours(theirs)
    back = key_map.to_theirs(ours)
    assert set(back) == set(theirs)
    for key, value in theirs.items():
        assert back[key].shape == value.shape, key
        assert torch.equal(back[key], value), key
    assert {key_map.their_name(key) for key in ours} <= set(theirs)


def test_a_key_bias_has_no_place_in_lavis() -> None:
    theirs = lavis_state()
    key_map = ORIGINALS.find("lavis")().key_map(theirs)
    ours = key_map.to_ours(theirs)
    ours["encoders.image.tower.encoder.layers.1.self_attn.qkv.bias"][40] = 1
    with pytest.raises(WeightsError, match=r"layers\.1\.self_attn\.qkv\.bias has values for keys"):
        key_map.to_theirs(ours)


def test_heads_of_fused_rows_matter() -> None:
    theirs = owl_state()
    name = "vision_model.encoder.layers.0.self_attn.query_key_value.weight"
    q = "encoders.image.tower.encoder.layers.0.self_attn.q_proj.weight"
    one, two = (MplugOwl(heads).key_map(theirs).to_ours({name: theirs[name]})[q] for heads in (16, 8))
    assert not torch.equal(one, two)


# Errors -----------------------------------------------------------------------------------------


def llava_folder(folder: Path, change: Callable[[dict[str, Tensor]], Any], **config: Any) -> Path:
    tensors = llava_repository(llava_oracle())
    change(tensors)
    write_folder(folder / "m", llava_config(**config), tensors)
    return folder / "m"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop("model.layers.1.mlp.up_proj.weight"),
         r"1 tensors are missing \(model\.layers\.1\.mlp\.up_proj\.weight\)"),
        (lambda t: t.pop("model.mm_projector.2.bias"), r"missing \(model\.mm_projector\.2\.bias\)"),
        (lambda t: t.update({"model.layers.2.mlp.up_proj.weight": torch.zeros(1)}),
         r"1 tensors are left over \(model\.layers\.2\.mlp\.up_proj\.weight\)"),
        (lambda t: t.update({"model.vision_resampler.x": torch.zeros(1)}),
         r"no rule for tensor 'model\.vision_resampler\.x'"),
        (lambda t: t.update({"model.norm.weight": torch.zeros(5)}),
         r"model\.norm\.weight has shape \(5,\); expected \(32,\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    change: Callable[[dict[str, Tensor]], Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=named):
        read_original(llava_folder(tmp_path, change), Beside())


def test_parts_that_lie_elsewhere_are_asked_for(tmp_path: Path) -> None:
    def without_tower(tensors: dict[str, Tensor]) -> None:
        for name in [n for n in tensors if "vision_tower" in n]:
            del tensors[name]

    with pytest.raises(WeightsError, match="--tower"):
        read_original(llava_folder(tmp_path / "a", without_tower), Beside())
    with pytest.raises(WeightsError, match=r"not its config.*--tower"):
        read_original(llava_folder(tmp_path / "b", lambda t: None, mm_vision_tower="someone/tower"), Beside())
    with pytest.raises(ConfigError, match="llava_mpt"):
        read_original(llava_folder(tmp_path / "c", lambda t: None, model_type="llava_mpt"), Beside())
    tensors = lavis(blip2_oracle(OPT), "opt_proj")
    torch.save({"model": tensors}, tmp_path / "blip2.pth")
    with pytest.raises(WeightsError, match="--llm"):
        read_original(tmp_path / "blip2.pth", Beside())
    learnt = {k: v for k, v in tensors.items() if not k.startswith("visual_encoder.")}
    torch.save({"model": learnt}, tmp_path / "learnt.pth")
    with pytest.raises(WeightsError, match=r"eva_vit_g\.pth"):
        read_original(tmp_path / "learnt.pth", Beside())
    alone = {k: v for k, v in tensors.items() if k.startswith(("visual_encoder.", "opt_proj."))}
    torch.save(alone, tmp_path / "alone.pth")
    llm = llm_of(blip2_oracle(OPT), tmp_path / "opt")
    with pytest.raises(WeightsError, match=r"query_tokens.*--with"):
        read_original(tmp_path / "alone.pth", Beside(llm=llm))


class Evil:
    """Would leave a file behind if anything ran it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


def test_pickled_code_is_refused_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for name, save in (("new.pth", torch.save), ("raw.bin", lambda v, f: f.write_bytes(pickle.dumps(v)))):
        save({"model": {"opt_proj.weight": torch.zeros(1)}, "args": Evil(mark)}, tmp_path / name)
        with pytest.raises(WeightsError, match=rf"{name}: refused: the file needs pickled code"):
            read_original(tmp_path / name, Beside())
        assert not mark.exists()


def test_files_of_before_torch_1_6_are_read(tmp_path: Path) -> None:
    tensors = {"mm_projector.weight": torch.randn(2, 3)}
    torch.save(tensors, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(read_torch(tmp_path / "old.bin")["mm_projector.weight"], tensors["mm_projector.weight"])


@pytest.mark.parametrize(
    ("content", "said"),
    [({"model": {"a": 1}}, r"1 entries are no tensors \(a\)"), ([torch.zeros(1)], "a list; expected named tensors"),
     ({}, "nothing; expected named tensors")],
)  # fmt: skip
def test_other_contents_are_named(content: Any, said: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=said):
        read_torch(tmp_path / "x.pth")


def test_damaged_and_unknown_files_are_named(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "x.pth")
    whole = (tmp_path / "x.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "y.bin").write_bytes(b"")
    (tmp_path / "z.txt").write_text("hello")
    for name, said in (("x.pth", "damaged"), ("y.bin", "damaged"), ("z.txt", "ending in '.txt'")):
        with pytest.raises(WeightsError, match=rf"{name}: .*{said}"):
            read_original(tmp_path / name, Beside())
    torch.save({"who.weight": torch.zeros(1)}, tmp_path / "who.pth")
    with pytest.raises(ConfigError, match=r"no known layout \(tensors such as who\.weight\)"):
        read_original(tmp_path / "who.pth", Beside())


def test_an_index_names_files_of_its_own_folder_only(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    torch.save({"a": torch.zeros(1)}, tmp_path / "outside.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "../outside.bin"}}))
    with pytest.raises(WeightsError, match="outside of its folder"):
        read_checkpoint(folder)


# On the command line ----------------------------------------------------------------------------


def test_import_on_the_command_line(tmp_path: Path) -> None:
    theirs = blip2_oracle(OPT)
    tensors = lavis(theirs, "opt_proj")
    eye = {k.removeprefix("visual_encoder."): v for k, v in tensors.items() if k.startswith("visual_encoder.")}
    torch.save(eye, tmp_path / "eva_vit_g.pth")
    mine = {k: tensors.pop(k) for k in ("opt_proj.weight", "opt_proj.bias")}
    torch.save({"model": {k: v for k, v in tensors.items() if k not in mine}}, tmp_path / "former.pth")
    torch.save({"model": mine}, tmp_path / "last.pth")
    words = ["import", str(tmp_path / "last.pth"), str(tmp_path / "out"), "--llm", str(llm_of(theirs, tmp_path / "opt")),
             "--tower", str(tmp_path / "eva_vit_g.pth"), "--with", str(tmp_path / "former.pth"), "--json"]  # fmt: skip
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    model, tokenizer = load_model(tmp_path / "out")
    assert json.loads(result.output)["parameters"] == sum(p.numel() for p in model.parameters())
    assert tokenizer.encode("a")
    assert torch.equal(model.state_dict()["projectors.image.out.weight"], mine["opt_proj.weight"])
    for word, problem in (("--llm", "no config.json"), ("--tower", "no such weights file")):
        words[words.index(word) + 1] = str(tmp_path / "nowhere.pth")
        result = CliRunner().invoke(app, words)
        assert problem in str(result.exception)
