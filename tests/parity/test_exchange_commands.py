"""`sensorium import` and `export` as a newcomer types them: by hub id, misspelt, with `--to hf`, without `--to`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hf_models
import pytest
import torch
from original_layouts import llava_repository, write_folder
from test_originals import llava_config, llava_oracle

from sensorium.cli.exchange import (
    ExportOptions,
    ImportOptions,
    export_command,
    find_checkpoint,
    import_command,
)
from sensorium.core.errors import ConfigError, SensoriumError, WeightsError
from sensorium.interop.families import FAMILIES
from sensorium.interop.hf import FOREIGN, fitting_family, same_tensors
from sensorium.nn.pretrained import read_folder
from sensorium.recipes import RECIPES
from sensorium.text.byte_tokenizer import byte_tokenizer


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    hf_models.llava(tmp_path / "theirs", vocab=300)
    byte_tokenizer().save(tmp_path / "theirs")
    return tmp_path / "theirs"


def test_a_hub_id_is_fetched(theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, list[str]]] = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options["allow_patterns"]))
        return str(theirs)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    import_command("owner/name", str(tmp_path / "ours"), ImportOptions(), as_json=True)
    ((name, patterns),) = asked
    assert name == "owner/name"
    assert "*.safetensors" in patterns
    assert "*.bin" not in patterns
    assert (tmp_path / "ours" / FOREIGN).exists()
    # Older repositories hold files of torch alone.
    (theirs / "model.safetensors").unlink()
    assert find_checkpoint("owner/name") == theirs
    assert "*.bin" in asked[-1][1]


@pytest.mark.parametrize("typed", ["thiers", "sub/thiers", "./a/b", "/nothing/here.pth", "a/b.pth"])
def test_a_misspelt_path_is_not_looked_for_on_the_hub(typed: str, theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def download(*_: Any, **__: Any) -> str:
        raise AssertionError("asked the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(theirs.parent)
    (theirs.parent / "sub" / "theirs").mkdir(parents=True)
    with pytest.raises(WeightsError, match="no such file or folder") as caught:
        import_command(typed, str(theirs.parent / "ours"), ImportOptions(), as_json=True)
    assert typed in str(caught.value)
    assert ("did you mean" in str(caught.value)) == ("thiers" in typed)


def test_hf_is_the_layout_that_it_came_in(theirs: Path, tmp_path: Path) -> None:
    import_command(str(theirs), str(tmp_path / "ours"), ImportOptions(), as_json=True)
    export_command(str(tmp_path / "ours"), str(tmp_path / "back"), ExportOptions(to="hf"), as_json=True)
    assert same_tensors(theirs, tmp_path / "back")


def test_hf_is_found_for_what_came_in_no_layout(theirs: Path, tmp_path: Path) -> None:
    from transformers import LlavaForConditionalGeneration

    import_command(str(theirs), str(tmp_path / "ours"), ImportOptions(), as_json=True)
    (tmp_path / "ours" / FOREIGN).unlink()
    with pytest.raises(ConfigError, match="--to hf, which finds the family"):
        export_command(str(tmp_path / "ours"), str(tmp_path / "back"), ExportOptions(), as_json=True)
    export_command(str(tmp_path / "ours"), str(tmp_path / "back"), ExportOptions(to="hf"), as_json=True)
    LlavaForConditionalGeneration.from_pretrained(tmp_path / "back")
    first, second = read_folder(theirs), read_folder(tmp_path / "back")
    assert set(first) == set(second)
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_an_original_goes_back_by_itself(tmp_path: Path) -> None:
    write_folder(tmp_path / "theirs", llava_config(), llava_repository(llava_oracle()))
    import_command(str(tmp_path / "theirs"), str(tmp_path / "ours"), ImportOptions(), as_json=True)
    export_command(str(tmp_path / "ours"), str(tmp_path / "back"), ExportOptions(), as_json=True)
    assert "model.mm_projector.0.weight" in read_folder(tmp_path / "back")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_fits_one_family_at_most(name: str) -> None:
    """Else `--to hf` would have to guess, and `--to NAME` wrote what the reference reads as another function."""
    model = RECIPES.find(name)().model
    fits: list[str] = []
    for family in FAMILIES:
        try:
            FAMILIES.find(family)().to_theirs(model)
        except SensoriumError:
            continue
        fits.append(family)
    assert len(fits) <= 1
    if fits:
        assert [fitting_family(model)] == fits
    else:
        with pytest.raises(ConfigError, match="of no family") as caught:
            fitting_family(model)
        assert all(f"\n  {family}: " in str(caught.value) for family in FAMILIES)


def test_another_architecture_is_named_with_its_place(theirs: Path, tmp_path: Path) -> None:
    config = theirs / "config.json"
    config.write_text(config.read_text().replace('"model_type": "llava"', '"model_type": "blip-2"'))
    with pytest.raises(ConfigError, match=rf"{theirs}/config.json.*LlavaForConditionalGeneration"):
        import_command(str(theirs), str(tmp_path / "ours"), ImportOptions(), as_json=True)
