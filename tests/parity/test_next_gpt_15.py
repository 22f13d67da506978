"""What NExT-GPT 1.5's training leaves behind, imported: each stage over those before it, and the merged whole; and the way back."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from any_to_any_originals import WIDTH, TextFcLayer, imagebind, low_rank, merge, vicuna
from test_any_to_any_layouts import clips_of_others, mapper, our_states, without_sources
from test_grouping import CONFIG, GROUPS, Theirs
from test_original_export import assert_same
from torch import Tensor

from sensorium.core.errors import WeightsError
from sensorium.core.weights import FileSource
from sensorium.interop.locate import locate
from sensorium.interop.original import import_original, read_original
from sensorium.interop.original_export import export_original
from sensorium.interop.originals.base import Beside, Found
from sensorium.interop.originals.next_gpt_15 import GROUPING, PROJECTOR, TOWER, WORDS, NextGpt15
from sensorium.interop.saved import load_model
from sensorium.model.config import LoraConfig
from sensorium.recipes import RECIPES

ROWS = 263 + len(WORDS)
"""Bytes and marks, and the signals behind them: 4 for a picture, 24 for a video, 8 for sound."""
SIGNALS = {"image": range(263, 267), "video": range(267, 291), "audio": range(291, 299)}
SHORT = {"image": "img", "video": "vid", "audio": "aud"}
TARGETS = ("q_proj", "v_proj")
SPACE = 41
"""A token that stands between signals."""


class NextGpt15Parts:
    """Its modules, and what is saved of them."""

    def __init__(self) -> None:
        self.groups = Theirs().eval()
        self.mappers = {"image": TextFcLayer(14, 5), "video": TextFcLayer(14, 5), "audio": TextFcLayer(10, 1)}
        self.eye = imagebind()

    def seen(self) -> dict[str, Tensor]:
        return {f"model.mm_input_projector.{k}": v for k, v in self.groups.named().items()}

    def made(self) -> dict[str, Tensor]:
        """`TransformersProjector` is v1's with other names for its two outer maps."""
        other = {"fc": "in_fc", "model": "out_fc"}
        named = {f"model.mm_output_{SHORT[kind]}_projector.{name}": v for kind, layer in self.mappers.items() for name, v in layer.state_dict().items()}
        return {".".join(other.get(part, part) if i == 2 else part for i, part in enumerate(name.split("."))): v for name, v in named.items()}


@pytest.fixture
def parts() -> NextGpt15Parts:
    torch.manual_seed(8)
    return NextGpt15Parts()


def tables() -> dict[str, Tensor]:
    return {"model.embed_tokens.weight": torch.randn(ROWS, WIDTH) * 0.3, "lm_head.weight": torch.randn(ROWS, WIDTH) * 0.3}


def around(lm: Any, ids: list[int], first: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings of what stands in a row, and the language model's states."""
    rows = torch.cat([first, lm.get_input_embeddings()(torch.tensor([ids]))], dim=1)
    return rows, lm(inputs_embeds=rows, output_hidden_states=True).hidden_states[-1]


@torch.no_grad()
def test_stages_lie_over_one_another(parts: NextGpt15Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Callable[..., None]) -> None:
    """Groups, mappers, and a last stage with both and low-rank matrices: states behind a picture, three conditions, the way back."""
    from transformers import LlamaForCausalLM

    beside_llm, eye_file, last = vicuna(tmp_path / "vicuna"), tmp_path / "imagebind_huge.pth", tmp_path / "finetune"
    torch.save(parts.eye, eye_file)
    torch.save(parts.seen() | tables(), tmp_path / "mm_input_projector.bin")
    words = tables()
    torch.save(OrderedDict(parts.made() | words), tmp_path / "mm_output_projector.bin")
    peft = {f"base_model.model.{k.replace('.default', '')}": v for k, v in low_rank(TARGETS).items()}
    learnt = {f"base_model.model.{k}": v * 1.25 for k, v in (parts.seen() | parts.made()).items()}
    last.mkdir()
    torch.save(peft, last / "adapter_model.bin")
    torch.save(learnt, last / "non_lora_trainables.bin")
    (last / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8, "target_modules": list(TARGETS), "peft_type": "LORA"}))
    (last / "config.json").write_text(json.dumps({"model_type": "nextgpt_llama", "mm_input_projector_type": "group"}))
    beside = Beside(beside_llm, eye_file, (tmp_path / "mm_input_projector.bin", tmp_path / "mm_output_projector.bin"))
    import_original(last, tmp_path / "ours", beside)
    ours, tokenizer = load_model(tmp_path / "ours")
    assert [tokenizer.special_id(word) for word in WORDS] == list(range(263, ROWS))
    assert ours.config.adapter == LoraConfig(rank=4, alpha=8.0, dropout=0.0, targets=TARGETS)
    assert ours.config.lane("image").projector == CONFIG

    lm = LlamaForCausalLM.from_pretrained(beside_llm).eval()
    lm.resize_token_embeddings(ROWS, mean_resizing=False)
    lm.load_state_dict(words, strict=False)
    merge(lm, {k.removeprefix("base_model.model.").replace(".weight", ".default.weight"): v for k, v in peft.items()}, alpha=8.0)
    for module in (parts.groups, *parts.mappers.values()):
        for parameter in module.parameters():
            parameter.mul_(1.25)
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    encoder: Any = ours.config.lane("image").encoder
    eye = encoder.build(locate((FileSource(path=str(eye_file), format="imagebind"),))).eval()
    raw, ids = torch.randint(0, 256, (1, 3, 28, 28), dtype=torch.uint8), [5, 9]
    ids += [i for signals in SIGNALS.values() for signal in signals for i in (SPACE, signal)]
    rows, states = around(lm, ids, parts.groups(eye(raw).values_ND[None]))
    got = our_states(ours, raw, GROUPS[-1], ids)
    record("next-gpt-1.5", "made", ours=got, theirs=states)
    record("next-gpt-1.5", "made", ours=ours.logits(got), theirs=lm.lm_head(states))
    for other, clips in clips_of_others().items():
        _, states_of = around(lm, ids, parts.groups(eye(clips, other).values_ND[None]))
        record("next-gpt-1.5", "made", ours=our_states(ours, clips, GROUPS[-1], ids, other), theirs=states_of)
    placed = torch.tensor([[0] * GROUPS[-1] + ids])
    for kind, layer in parts.mappers.items():
        # From the first signal to the last, spaces and all.
        start, last = (GROUPS[-1] + ids.index(SIGNALS[kind][i]) for i in (0, -1))
        span = slice(start, last + 1)
        record("next-gpt-1.5", "made", ours=ours.condition(kind, got, placed, [(0, start)]), theirs=layer(states[:, span], rows[:, span]))
    export_original(tmp_path / "ours", tmp_path / "back")
    assert_same(tmp_path / "back" / "adapter_model.safetensors", peft)
    assert_same(tmp_path / "back" / "non_lora_trainables.safetensors", learnt)
    record("next-gpt-1.5", "weights")


def test_a_merged_checkpoint_is_whole(parts: NextGpt15Parts, tmp_path: Path) -> None:
    """Nothing lies beside it; ImageBind's other modalities come back as they were."""
    from transformers import LlamaForCausalLM

    folder = vicuna(tmp_path / "nextgpt")
    lm = LlamaForCausalLM.from_pretrained(folder)
    tower = {TOWER + name: value for name, value in parts.eye.items()}
    tensors = lm.state_dict() | tables() | parts.seen() | parts.made() | tower
    said = json.loads((folder / "config.json").read_text()) | {
        "model_type": "nextgpt_llama", "vocab_size": ROWS, "multimodal_input_tower": "imagebind", "mm_hidden_size": 24, "n_img_tokens": 4,
        "layer_idx": -1, "image_decoder": "stabilityai/stable-diffusion-2"}  # fmt: skip
    (folder / "model.safetensors").unlink()
    (folder / "config.json").write_text(json.dumps(said))
    torch.save(tensors, folder / "pytorch_model.bin")
    ours = import_original(folder, tmp_path / "ours", Beside())
    assert not {"layer_idx", "n_img_tokens", "image_decoder", "multimodal_input_tower"} & set(ours.config.backbone.arch)  # pyright: ignore[reportAttributeAccessIssue]
    assert torch.equal(ours.state_dict()["backbone.lm.lm_head.weight"], tensors["lm_head.weight"])
    export_original(tmp_path / "ours", tmp_path / "back")
    assert_same(tmp_path / "back" / "model.safetensors", tensors)
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == said


def test_what_lies_elsewhere_is_asked_for(parts: NextGpt15Parts, tmp_path: Path) -> None:
    llm = vicuna(tmp_path / "vicuna")
    torch.save(parts.made() | tables(), tmp_path / "mm_output_projector.bin")
    with pytest.raises(WeightsError, match=r"no tensor 'model\.mm_input_projector\.in_fc\.weight'.*first stage's file with --with"):
        read_original(tmp_path / "mm_output_projector.bin", Beside(llm))
    torch.save(parts.seen() | tables(), tmp_path / "mm_input_projector.bin")
    with pytest.raises(WeightsError, match=r"imagebind_huge\.pth, with --tower"):
        read_original(tmp_path / "mm_output_projector.bin", Beside(llm, None, (tmp_path / "mm_input_projector.bin",)))


def test_the_scripts_sizes_are_the_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`GroupProjector(1024, 4096)` and the mappers of `NextGPTMetaModel`."""
    recipe = RECIPES.find("next-gpt-1.5")().model
    monkeypatch.setattr("sensorium.interop.originals.words.rows_with", lambda folder, added: 32000 + len(added))
    (tmp_path / "config.json").write_text(json.dumps(recipe.backbone.to_dict()["arch"] | {"vocab_size": 32000}))
    with torch.device("meta"):
        groups = GROUPING.to_theirs(recipe.lane("image").projector.build(1024, 4096).state_dict())
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (32036, 4096), "lm_head.weight": (32036, 4096),
        f"{TOWER}modality_preprocessors.vision.rgbt_stem.proj.1.weight": (1280, 3, 2, 14, 14),
        f"{TOWER}modality_preprocessors.vision.pos_embedding_helper.pos_embed": (1, 257, 1280),
        f"{TOWER}modality_heads.vision.2.weight": (1024, 1280),
        f"{TOWER}modality_preprocessors.audio.rgbt_stem.proj.weight": (768, 1, 16, 16),
        **{f"{TOWER}modality_trunks.audio.blocks.{i}.mlp.fc1.weight": (3072, 768) for i in range(12)},
        **{f"{TOWER}modality_trunks.vision.blocks.{i}.mlp.fc1.weight": (5120, 1280) for i in range(32)},
        **{PROJECTOR + name: tuple(value.shape) for name, value in groups.items()},
    }  # fmt: skip
    for kind, (length, width) in {"img": (77, 1024), "vid": (77, 1024), "aud": (1, 512)}.items():
        named = mapper("", length, width)
        shapes |= {f"model.mm_output_{kind}_projector.{k.replace('fc.', 'in_fc.').replace('model.', 'out_fc.')}": v for k, v in named.items()}
    layout, beside = NextGpt15(), Beside(tmp_path)
    found = layout.gather(Found(tmp_path / "x", {}, {k: torch.empty(v, device="meta") for k, v in shapes.items()}), beside)
    assert without_sources(layout.model(found, beside).to_dict()) == without_sources(recipe.to_dict() | {"adapter": None})
