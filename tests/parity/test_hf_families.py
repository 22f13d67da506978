"""Imported from transformers' own folders: equal logits, identical greedy text, and equal
tensors on the way back."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hf_models import IMAGE_ID, blip2, idefics, llava, llava_next, llava_onevision
from safetensors.torch import load_file, save_file

from sensorium.api import load
from sensorium.core.batch import Batch, Example, MediaBatch, TilePlan
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.inference.engine import Engine
from sensorium.interop.families import FAMILIES
from sensorium.interop.hf import export_hf, import_hf, read_hf, same_tensors, write_hf
from sensorium.model.multimodal import MultimodalModel
from sensorium.processing.collate import collate
from sensorium.text.byte_tokenizer import byte_tokenizer

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def pixels(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 28, 28), dtype=torch.uint8)


def normalised(raw: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    return (raw / 255 - mean) / std


def spliced(ids: list[int], raw: torch.Tensor) -> Example:
    slots = [i for i, token in enumerate(ids) if token == IMAGE_ID]
    seen, index = 0, []
    per_image = len(slots) // len(raw)
    for token in ids:
        seen += token == IMAGE_ID
        index.append(-(-seen // per_image))
    return Example(ids, [False] * len(ids), {"image": slots},
                   {"image": MediaBatch(raw, (TilePlan(),) * len(raw))}, index)  # fmt: skip


def round_trip(model: MultimodalModel, folder: Path, out: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    out.mkdir()
    write_hf(model, config, FAMILIES.find(config["model_type"])(), out)
    assert same_tensors(folder, out)
    assert json.loads((out / "config.json").read_text()) == config


def our_greedy(model: MultimodalModel, examples: list[Example], length: int) -> list[list[int]]:
    engine = Engine(model, _NoStops())  # pyright: ignore[reportArgumentType]
    return engine.generate(examples, max_tokens=length)


class _NoStops:
    """Just enough of a Processor for token-level generation."""

    stop_ids: set[int] = set()
    frames = None
    signals: dict[str, tuple[int, ...]] = {}
    tokenizer = SimpleNamespace(pad_id=0)


def batch_of(*examples: Example) -> Batch:
    return collate([[e] for e in examples], pad_id=0)


def test_llava_with_one_matrix_for_words(tmp_path: Path) -> None:
    theirs = llava(tmp_path / "hf", tie=True)
    ours = read_hf(tmp_path / "hf")
    raw = pixels(2)
    ids = [1, 5, *[IMAGE_ID] * 4, 7, 8, *[IMAGE_ID] * 4, 9, 10]
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor([ids]), pixel_values=normalised(raw)).logits
        output = ours(batch_of(spliced(ids, raw)))
    torch.testing.assert_close(ours.logits(output.hidden_BTD), expected, atol=1e-5, rtol=1e-4)
    text = theirs.generate(
        input_ids=torch.tensor([ids]), pixel_values=normalised(raw), max_new_tokens=12,
        do_sample=False, eos_token_id=-1, pad_token_id=0,
    )[0, len(ids):].tolist()  # fmt: skip
    assert our_greedy(ours, [spliced(ids, raw)], 12) == [text]
    round_trip(ours, tmp_path / "hf", tmp_path / "back")


def test_idefics_as_small_checkpoints_have_it(tmp_path: Path) -> None:
    """One number for a gate, heads without norms, no added words."""
    theirs = idefics(tmp_path / "hf", alpha="float", norm_heads=False, extra=0)
    ours = read_hf(tmp_path / "hf")
    raw = pixels(2)
    ids = [1, 5, 98, 7, 8, 97, 9, 10]
    index = [0, 0, 1, 1, 1, 2, 2, 2]
    example = Example(ids, [False] * len(ids), {"image": []},
                      {"image": MediaBatch(raw, (TilePlan(),) * 2)}, index)  # fmt: skip
    mask = torch.tensor([[[i == 1, i == 2] for i in index]]).long()
    with torch.no_grad():
        expected = theirs(
            input_ids=torch.tensor([ids]), pixel_values=normalised(raw)[None],
            image_attention_mask=mask, attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        ).logits  # fmt: skip
        output = ours(batch_of(example))
    torch.testing.assert_close(ours.logits(output.hidden_BTD), expected, atol=1e-5, rtol=1e-4)
    assert our_greedy(ours, [example], 8) == [_greedy(theirs, ids, raw, index, 8)]
    round_trip(ours, tmp_path / "hf", tmp_path / "back")


def _greedy(theirs: Any, ids: list[int], raw: torch.Tensor, index: list[int], length: int) -> list[int]:
    """Greedy text by running the reference's whole sequence again for every token."""
    ids, index = list(ids), list(index)
    for _ in range(length):
        mask = torch.tensor([[[i == 1, i == 2] for i in index]]).long()
        with torch.no_grad():
            logits = theirs(
                input_ids=torch.tensor([ids]), pixel_values=normalised(raw)[None],
                image_attention_mask=mask, use_cache=False,
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            ).logits  # fmt: skip
        ids.append(int(logits[0, -1].argmax()))
        index.append(index[-1])
    return ids[-length:]


def test_old_key_names_are_understood(tmp_path: Path) -> None:
    llava(tmp_path / "hf")
    file = tmp_path / "hf" / "model.safetensors"
    tensors = {
        k.replace("vision_tower.", "vision_tower.vision_model."): v for k, v in load_file(file).items()
    }
    expected = read_hf(tmp_path / "hf").state_dict()
    save_file(tensors, file, metadata={"format": "pt"})
    got = read_hf(tmp_path / "hf").state_dict()
    assert all(torch.equal(got[k], expected[k]) for k in expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["llava", "llava_next", "llava_onevision", "blip-2", "idefics"])
def test_half_precision_returns_byte_for_byte(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Import -> export keeps every tensor's format, of files that mix formats too."""
    hf, back = tmp_path / "hf", tmp_path / "back"
    make_half(family, hf, dtype)
    import_hf(hf, tmp_path / "ours")
    export_hf(tmp_path / "ours", back)
    before, after = load_file(hf / "model.safetensors"), load_file(back / "model.safetensors")
    assert {k: v.dtype for k, v in after.items()} == {k: v.dtype for k, v in before.items()}
    assert {v.dtype for v in before.values()} == {dtype, torch.float32}
    for name, value in before.items():
        assert torch.equal(after[name].view(torch.uint8), value.view(torch.uint8)), name
    assert json.loads((back / "config.json").read_text()) == json.loads((hf / "config.json").read_text())


def make_half(family: str, folder: Path, dtype: torch.dtype) -> None:
    """A checkpoint in half precision whose norms are in fp32, as some are."""
    if family == "idefics":
        model = idefics(folder, alpha="vector", norm_heads=True, extra=2)
    else:
        model = {"llava": llava, "llava_next": llava_next,
                 "llava_onevision": llava_onevision, "blip-2": blip2}[family](folder)  # fmt: skip
    model.to(dtype).save_pretrained(folder)
    tensors = {k: v.float() if "norm" in k else v for k, v in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    byte_tokenizer().save(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_llava_computes_the_same_in_fp32(dtype: torch.dtype, tmp_path: Path) -> None:
    from transformers import LlavaForConditionalGeneration

    make_half("llava", tmp_path / "hf", dtype)
    theirs = LlavaForConditionalGeneration.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    import_hf(tmp_path / "hf", tmp_path / "ours")
    ours = load(tmp_path / "ours", "cpu").network
    raw, ids = pixels(1), [1, 5, *[IMAGE_ID] * 4, 7, 8]
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor([ids]), pixel_values=normalised(raw)).logits
        got = ours.logits(ours(batch_of(spliced(ids, raw))).hidden_BTD)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_learnt_values_are_not_rounded_away(tmp_path: Path) -> None:
    """A tensor that no longer fits its old format is written in fp32; the others return."""
    make_half("llava", tmp_path / "hf", torch.float16)
    import_hf(tmp_path / "hf", tmp_path / "ours")
    file = tmp_path / "ours" / "model.safetensors"
    tensors = load_file(file)
    learnt = tensors["projectors.image.layers.0.weight"]
    learnt += 1e-6
    save_file(tensors, file, metadata={"format": "pt"})
    export_hf(tmp_path / "ours", tmp_path / "back")
    after = load_file(tmp_path / "back" / "model.safetensors")
    assert torch.equal(after["multi_modal_projector.linear_1.weight"], learnt)
    assert after["multi_modal_projector.linear_1.weight"].dtype == torch.float32
    assert after["multi_modal_projector.linear_2.weight"].dtype == torch.float16


def test_formats_of_old_key_names_are_kept(tmp_path: Path) -> None:
    make_half("llava", tmp_path / "hf", torch.bfloat16)
    file = tmp_path / "hf" / "model.safetensors"
    new = load_file(file)
    old = {k.replace("vision_tower.", "vision_tower.vision_model."): v for k, v in new.items()}
    assert set(old) != set(new)
    save_file(old, file, metadata={"format": "pt"})
    import_hf(tmp_path / "hf", tmp_path / "ours")
    export_hf(tmp_path / "ours", tmp_path / "back")
    after = load_file(tmp_path / "back" / "model.safetensors")
    assert {k: v.dtype for k, v in after.items()} == {k: v.dtype for k, v in new.items()}


def test_missing_and_unknown_tensors_are_named(tmp_path: Path) -> None:
    llava(tmp_path / "hf")
    file = tmp_path / "hf" / "model.safetensors"
    tensors = load_file(file)
    dropped = tensors.pop("multi_modal_projector.linear_1.weight")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"projectors\.image\.layers\.0\.weight"):
        read_hf(tmp_path / "hf")
    save_file(tensors | {"surprise.weight": dropped}, file, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="surprise"):
        read_hf(tmp_path / "hf")


def test_unknown_architecture_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mystery"}')
    with pytest.raises(ConfigError, match="mystery"):
        read_hf(tmp_path)
