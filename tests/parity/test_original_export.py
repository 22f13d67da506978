"""Authors' own checkpoints, imported and written in their layout again: tensors equal bit for bit, as safetensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from bpe import byte_level
from original_layouts import TEXT, VISION_16, lavis, llava_repository, write_folder
from test_original_keys import owl_state
from test_originals import OPT, blip2_oracle, llava_config, llava_oracle, llm_of, split_llava
from torch import Tensor
from typer.testing import CliRunner

from sensorium.cli.main import app
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.interop.hf import import_hf, same_tensors
from sensorium.interop.onto import DIFFERENCE, write_difference
from sensorium.interop.original import ORIGINAL, import_original, read_original
from sensorium.interop.original_export import export_original
from sensorium.interop.originals.base import Beside
from sensorium.interop.saved import load_model, save_model
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.pretrained import HARMLESS, read_file


def half(tensors: dict[str, Tensor], dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """As most checkpoints are stored; vectors stay as they are, so that formats are mixed."""
    return {k: v.to(dtype) if v.is_floating_point() and v.ndim > 1 else v for k, v in tensors.items()}


def assert_same(file: Path, expected: dict[str, Tensor]) -> None:
    got, kept = read_file(file), {k: v for k, v in expected.items() if not k.endswith(HARMLESS)}
    assert set(got) == set(kept)
    for name, value in kept.items():
        assert (got[name].dtype, got[name].shape) == (value.dtype, value.shape), name
        assert torch.equal(got[name], value), name


def there_and_back(path: Path, beside: Beside, folder: Path) -> list[str]:
    """The names of the files that come back, which are read again as the same model."""
    import_original(path, folder / "ours", beside)
    export_original(folder / "ours", folder / "back")
    names = sorted(p.name for p in (folder / "back").iterdir())
    single = [n for n in names if n.endswith(".safetensors")]
    again = folder / "back" / single[0] if not path.is_dir() else folder / "back"
    one, two = read_original(path, beside).state_dict(), read_original(again, beside).state_dict()
    assert set(one) == set(two)
    assert all(torch.equal(one[k], two[k]) for k in one)
    return names


def test_llava_whole(tmp_path: Path) -> None:
    tensors = half(llava_repository(llava_oracle()), torch.bfloat16)
    write_folder(tmp_path / "llava", llava_config(), tensors, shards=3)
    names = there_and_back(tmp_path / "llava", Beside(), tmp_path)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(names)
    assert_same(tmp_path / "back" / "model.safetensors", tensors)
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == llava_config()


def test_llava_kept_as_a_difference(tmp_path: Path) -> None:
    """What was imported, changed, and kept as what differs from another model goes out in its authors' layout, too."""
    tensors = llava_repository(llava_oracle())
    write_folder(tmp_path / "llava", llava_config(), tensors)
    import_original(tmp_path / "llava", tmp_path / "whole", Beside())
    model, tokenizer = load_model(tmp_path / "whole")
    with torch.no_grad():
        next(model.projectors.parameters()).add_(0.5)
    save_model(model, tokenizer, tmp_path / "base", learnt=set())
    write_difference(tmp_path / "whole", str(tmp_path / "base"), tmp_path / "small")
    assert len(read_file(tmp_path / "small" / DIFFERENCE)) == 1
    assert export_original(tmp_path / "small", tmp_path / "back") == "llava_repository"
    assert_same(tmp_path / "back" / "model.safetensors", tensors)


def test_llava_projector_alone(tmp_path: Path) -> None:
    """Neither tower nor language model, which lay beside it, comes with it."""
    named, beside = split_llava(llava_oracle(), tmp_path)
    named = half(named)
    (tmp_path / "mm").mkdir()
    torch.save(named, tmp_path / "mm" / "mm_projector.bin")
    (tmp_path / "mm" / "config.json").write_text(json.dumps(llava_config()))
    assert there_and_back(tmp_path / "mm", beside, tmp_path) == ["config.json", "mm_projector.safetensors"]
    assert_same(tmp_path / "back" / "mm_projector.safetensors", named)


@pytest.mark.parametrize("default", ["", ".default"])
def test_llava_lora_stays_apart(default: str, tmp_path: Path) -> None:
    named, beside = split_llava(llava_oracle(), tmp_path)
    shapes = {"self_attn.q_proj": (32, 32), "mlp.down_proj": (32, 48)}
    adapter = {
        f"base_model.model.model.layers.{i}.{layer}.lora_{x}{default}.weight": torch.randn(size).half()
        for i in range(2) for layer, (rows, columns) in shapes.items()
        for x, size in (("A", (4, columns)), ("B", (rows, 4)))
    }  # fmt: skip
    others = {f"base_model.model.{k}": v for k, v in half(named).items()}
    said = {"r": 4, "lora_alpha": 8, "use_rslora": True, "target_modules": ["q_proj", "down_proj"]}
    folder = tmp_path / "lora"
    folder.mkdir()
    torch.save(adapter, folder / "adapter_model.bin")
    torch.save(others, folder / "non_lora_trainables.bin")
    (folder / "adapter_config.json").write_text(json.dumps(said))
    (folder / "config.json").write_text(json.dumps(llava_config()))
    names = there_and_back(folder, beside, tmp_path)
    assert names == ["adapter_config.json", "adapter_model.safetensors", "config.json", "non_lora_trainables.safetensors"]
    assert_same(tmp_path / "back" / "adapter_model.safetensors", adapter)
    assert_same(tmp_path / "back" / "non_lora_trainables.safetensors", others)
    assert json.loads((tmp_path / "back" / "adapter_config.json").read_text()) == said
    # In our own folder they lie apart too, and answer merged.
    merged, _ = load_model(tmp_path / "ours")
    expected = read_original(folder, beside).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in merged.state_dict().items())
    name = "backbone.lm.model.layers.0.self_attn.q_proj.weight"
    plain = read_file(tmp_path / "ours" / "model.safetensors")[name]
    assert not torch.equal(plain, expected[name])


def test_lavis(tmp_path: Path) -> None:
    theirs = blip2_oracle(OPT)
    tensors = half(lavis(theirs, "opt_proj"))
    torch.save({"model": tensors, "epoch": 3}, tmp_path / "blip2.pth")
    there_and_back(tmp_path / "blip2.pth", Beside(llm=llm_of(theirs, tmp_path / "opt")), tmp_path)
    assert_same(tmp_path / "back" / "blip2.safetensors", tensors)


def test_lavis_instructblip(tmp_path: Path) -> None:
    theirs = blip2_oracle(TEXT, reads=True)
    tensors = half(lavis(theirs, "llm_proj"))
    torch.save({"model": tensors}, tmp_path / "instruct.pth")
    there_and_back(tmp_path / "instruct.pth", Beside(llm=llm_of(theirs, tmp_path / "vicuna")), tmp_path)
    assert_same(tmp_path / "back" / "instruct.safetensors", tensors)


def test_minigpt4_is_its_map_alone(tmp_path: Path) -> None:
    theirs = blip2_oracle(TEXT)
    tensors = lavis(theirs, "llama_proj")
    mine = half({k: tensors.pop(k) for k in ("llama_proj.weight", "llama_proj.bias")})
    torch.save({"model": tensors}, tmp_path / "blip2.pth")
    torch.save({"model": mine}, tmp_path / "minigpt4.pth")
    beside = Beside(llm=llm_of(theirs, tmp_path / "vicuna"), more=(tmp_path / "blip2.pth",))
    assert there_and_back(tmp_path / "minigpt4.pth", beside, tmp_path) == ["minigpt4.safetensors"]
    assert_same(tmp_path / "back" / "minigpt4.safetensors", mine)


def test_mplug_owl(tmp_path: Path) -> None:
    """The number of heads, which its rows are woven by, is in the config alone."""
    from transformers import LlamaConfig, LlamaForCausalLM

    text = {k: v for k, v in TEXT.items() if k != "model_type"}
    llm = {f"language_model.{k}": v for k, v in LlamaForCausalLM(LlamaConfig(**text)).state_dict().items()}
    tensors = half(owl_state() | llm)
    config = {
        "model_type": "mplug-owl", "num_query_tokens": 3, "vision_config": VISION_16 | {"num_attention_heads": 8},
        "text_config": TEXT,
        "visual_abstractor_config": {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24},
    }  # fmt: skip
    write_folder(tmp_path / "owl", config, tensors)
    there_and_back(tmp_path / "owl", Beside(), tmp_path)
    assert_same(tmp_path / "back" / "model.safetensors", tensors)


# What fails leaves nothing ----------------------------------------------------------------------


def imported(folder: Path) -> Path:
    write_folder(folder / "llava", llava_config(), llava_repository(llava_oracle()))
    byte_level().save(folder / "llava")
    import_original(folder / "llava", folder / "ours", Beside())
    return folder / "ours"


def leave_out(kept: dict[str, Any]) -> None:
    kept["tensors"]["model.layers.7.mlp.up_proj.weight"] = {"file": "model", "dtype": "float32"}


def lead_away(kept: dict[str, Any]) -> None:
    for how in kept["tensors"].values():
        how["file"] = "../../away"


def test_a_failing_export_leaves_no_half_written_folder(tmp_path: Path) -> None:
    ours = imported(tmp_path)
    file = ours / "original.json"
    kept = json.loads(file.read_text())
    leave_out(kept)
    file.write_text(json.dumps(kept))
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(WeightsError, match=r"1 of the checkpoint's tensors are not in the model \(model\.layers\.7"):
        export_original(ours, tmp_path / "back")
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize("to", ["original", "llava", "gguf", "sensorium"])
def test_a_full_disk_leaves_no_half_written_folder(to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the layout; and the folder that was there before stays as it was."""
    ours = imported(tmp_path)
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "config.json").write_text("{}")
    before = sorted(p.name for p in tmp_path.iterdir())

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    for module in ("original_export", "hf", "saved"):
        monkeypatch.setattr(f"sensorium.interop.{module}.save_file", full)
    monkeypatch.setattr("sensorium.interop.gguf_export._add_tensors", full)
    result = CliRunner().invoke(app, ["export", str(ours), str(tmp_path / "back"), "--to", to])
    assert isinstance(result.exception, OSError)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert [p.name for p in (tmp_path / "back").iterdir()] == ["config.json"]


def test_names_of_files_are_no_paths(tmp_path: Path) -> None:
    ours = imported(tmp_path)
    kept = json.loads((ours / "original.json").read_text())
    lead_away(kept)
    (ours / "original.json").write_text(json.dumps(kept))
    export_original(ours, tmp_path / "deep" / "back")
    assert (tmp_path / "deep" / "back" / "away.safetensors").exists()
    assert not list(tmp_path.glob("away*"))


def test_what_was_not_imported_has_no_original(tmp_path: Path) -> None:
    ours = imported(tmp_path)
    (ours / "original.json").unlink()
    with pytest.raises(ConfigError, match="not imported has no original layout"):
        export_original(ours, tmp_path / "back")


def test_on_the_command_line(tmp_path: Path) -> None:
    ours = imported(tmp_path)
    result = CliRunner().invoke(app, ["export", str(ours), str(tmp_path / "back"), "--to", "original", "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.output)
    assert said["layout"] == "llava_repository"
    assert "model.safetensors" in said["files"]
    assert not any(name.endswith((".bin", ".pth", ".pt")) for name in said["files"])


def test_what_came_in_transformers_layout_goes_back_to_it(tmp_path: Path) -> None:
    """So do CogVLM, Qwen-VL and OpenFlamingo, which are read as families."""
    llava_oracle().save_pretrained(tmp_path / "hf")
    byte_level().save(tmp_path / "hf")
    import_hf(tmp_path / "hf", tmp_path / "ours")
    assert export_original(tmp_path / "ours", tmp_path / "back") == "llava"
    assert same_tensors(tmp_path / "hf", tmp_path / "back")


def test_rows_for_writing_have_no_place(tmp_path: Path) -> None:
    write_folder(tmp_path / "llava", llava_config(), llava_repository(llava_oracle()))
    import_original(tmp_path / "llava", tmp_path / "ours", Beside())
    network, tokenizer = load_model(tmp_path / "ours")
    own = MultimodalModel(network.config.model_copy(update={"written": (3,)}))
    own.load_state_dict(network.state_dict(), strict=False)
    save_model(own, tokenizer, tmp_path / "mine", learnt=set())
    shutil.copy(tmp_path / "ours" / ORIGINAL, tmp_path / "mine" / ORIGINAL)
    with pytest.raises(ConfigError, match="rows of their own"):
        export_original(tmp_path / "mine", tmp_path / "back")
    assert not (tmp_path / "back").exists()
