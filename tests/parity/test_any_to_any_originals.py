"""LISA, Emu2, SEED-LLaMA, Emu and MGIE as their authors publish them: every tensor in its place, and back bit for bit.

Names are spelt out here from the repositories (or are those of the authors' own classes, as in golden/sam.safetensors), so that
a slip in a key map of ours cannot hide.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from original_layouts import TEXT, VISION_16, write_folder
from safetensors.torch import load_file
from torch import Tensor

from sensorium.core.errors import WeightsError
from sensorium.interop.original import import_original, is_original
from sensorium.interop.original_export import export_original
from sensorium.interop.originals.base import Beside
from sensorium.interop.saved import load_model
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.pretrained import read_file
from sensorium.text.byte_tokenizer import byte_tokenizer

WORDS = len(byte_tokenizer())
WIDTH = TEXT["hidden_size"]
SAM = {k.removeprefix("weights."): v for k, v in load_file(Path(__file__).parent / "golden" / "sam.safetensors").items()
       if k.startswith("weights.")}  # fmt: skip


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def linear(name: str, rows: int, columns: int, *, bias: bool = True) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns)} | ({f"{name}.bias": (rows,)} if bias else {})


def llama(rows: int) -> dict[str, Tensor]:
    """What transformers' `LlamaForCausalLM` of `TEXT` calls its tensors."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (rows, WIDTH), "lm_head.weight": (rows, WIDTH), "model.norm.weight": (WIDTH,)}
    for i in range(TEXT["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        for name, size in (("q", WIDTH), ("k", WIDTH // 2), ("v", WIDTH // 2), ("o", WIDTH)):
            shapes |= linear(f"{layer}self_attn.{name}_proj", size, WIDTH, bias=False)
        for name, up in (("gate", True), ("up", True), ("down", False)):
            sizes = (TEXT["intermediate_size"], WIDTH)
            shapes |= linear(f"{layer}mlp.{name}_proj", *(sizes if up else sizes[::-1]), bias=False)
        shapes |= {f"{layer}{name}_layernorm.weight": (WIDTH,) for name in ("input", "post_attention")}
    return drawn(shapes)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tower that LLaVA's descendants leave out."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    folder = tmp_path_factory.mktemp("clip")
    CLIPVisionModel(CLIPVisionConfig(**VISION_16)).save_pretrained(folder)
    return folder


def there_and_back(path: Path, beside: Beside, folder: Path, files: dict[str, dict[str, Tensor]]) -> tuple[MultimodalModel, dict[str, Any]]:
    """The imported model, opened again, and `original.json`; what is exported holds these tensors, bit for bit."""
    assert is_original(path)
    import_original(path, folder / "ours", beside)
    export_original(folder / "ours", folder / "back")
    for file, wanted in files.items():
        got = read_file(folder / "back" / f"{file}.safetensors")
        assert set(got) == set(wanted)
        for name, value in wanted.items():
            assert got[name].dtype == value.dtype, name
            assert torch.equal(got[name], value), name
    model, _ = load_model(folder / "ours")
    return model, json.loads((folder / "ours" / "original.json").read_text())


# LISA --------------------------------------------------------------------------------------------

LISA_CONFIG = TEXT | {"model_type": "llava", "architectures": ["LISAForCausalLM"], "vocab_size": WORDS + 4, "mm_vision_select_layer": -2,
                      "mm_vision_tower": "openai/clip-vit-large-patch14", "mm_hidden_size": 32, "mm_use_im_start_end": True,
                      "image_aspect_ratio": "square", "train_mask_decoder": True, "out_dim": 16}  # fmt: skip


def lisa() -> dict[str, Tensor]:
    """model/LISA.py: what `LISAForCausalLM.save_pretrained` holds, without the tower."""
    beside = linear("model.mm_projector", WIDTH, 32) | linear("model.text_hidden_fcs.0.0", WIDTH, WIDTH) | linear("model.text_hidden_fcs.0.2", 16, WIDTH)
    tensors = llama(WORDS + 4) | drawn(beside) | {f"model.visual_model.{k}": v for k, v in SAM.items()}
    return {k: v.to(torch.bfloat16) for k, v in tensors.items()}


@pytest.mark.parametrize("said", [True, False])
def test_lisa(said: bool, clip: Path, tmp_path: Path) -> None:
    tensors = lisa()
    write_folder(tmp_path / "lisa", LISA_CONFIG, tensors, shards=2)
    order = ("[SEG]", "<im_start>", "<im_end>", "<im_patch>")
    if said:
        (tmp_path / "lisa" / "added_tokens.json").write_text(json.dumps({token: WORDS + i for i, token in enumerate(order)}))
    model, kept = there_and_back(tmp_path / "lisa", Beside(tower=clip), tmp_path, {"model": tensors})
    assert kept["layout"] == "lisa"
    config = model.config
    assert config.template == "lisa"
    assert config.backbone.added_tokens == (order if said else ("<im_patch>", "<im_start>", "<im_end>", "[SEG]"))
    assert (config.hands["mask"].signals, config.hands["mask"].projector.kind) == (("[SEG]",), "mask_prompt")  # pyright: ignore[reportOptionalMemberAccess]
    made: Any = config.hands["mask"].generator
    assert (made.heads, made.window, made.global_layers, made.image_size_px, made.decoder_norm_eps) == (2, 3, (1,), 32, 1e-5)
    state = model.state_dict()
    assert torch.equal(state["hands.mask.layers.2.bias"], tensors["model.text_hidden_fcs.0.2.bias"].float())
    sam: Any = model.generators["mask"]
    name = "mask_decoder.transformer.layers.0.self_attn.q_proj.weight"
    assert torch.equal(sam.model.state_dict()[name], tensors[f"model.visual_model.{name}"].float())


@pytest.mark.parametrize(
    ("change", "said"),
    [("drop", r"1 tensors are missing \(model\.visual_model\.mask_decoder\.iou_token\.weight\)"),
     ("odd", r"no rule for tensor 'model\.visual_model\.mask_decoder\.hf_token\.weight'"),
     ("shape", r"model\.text_hidden_fcs\.0\.2\.weight has shape \(15, 32\); expected \(16, 32\)"),
     ("seg", r"tokens \{'<im_patch>': .* expected \[SEG\] among them")],
)  # fmt: skip
def test_what_is_wrong_with_a_lisa_is_named(change: str, said: str, clip: Path, tmp_path: Path) -> None:
    tensors = lisa()
    if change == "drop":
        del tensors["model.visual_model.mask_decoder.iou_token.weight"]
    if change == "odd":
        tensors["model.visual_model.mask_decoder.hf_token.weight"] = torch.ones(2)
    if change == "shape":
        tensors["model.text_hidden_fcs.0.2.weight"] = torch.ones(15, 32)
    write_folder(tmp_path / "lisa", LISA_CONFIG, tensors)
    if change == "seg":
        (tmp_path / "lisa" / "added_tokens.json").write_text(json.dumps({"<im_patch>": WORDS}))
    with pytest.raises(WeightsError, match=said):
        import_original(tmp_path / "lisa", tmp_path / "ours", Beside(tower=clip))
    assert not (tmp_path / "ours").exists()


def test_a_tokenizer_with_other_numbers_is_refused(clip: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "lisa", LISA_CONFIG, lisa())
    other = byte_tokenizer()
    other.add(("[SEG]",))
    other.save(tmp_path / "lisa")
    with pytest.raises(WeightsError, match=rf"token <im_patch> has number {WORDS + 1}; expected {WORDS}, its row"):
        import_original(tmp_path / "lisa", tmp_path / "ours", Beside(tower=clip))
