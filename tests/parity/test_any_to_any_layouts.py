"""What the authors of systems with hands published, imported: their own modules by their own names, the same states and conditions."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from any_to_any_originals import (
    WIDTH,
    Koh,
    MiniGpt5,
    NextGpt,
    clip,
    imagebind,
    low_rank,
    merge,
    opt,
    vicuna,
)
from original_layouts import TEXT, lavis
from test_hf_families import batch_of, normalised
from test_original_export import assert_same
from test_originals import blip2_oracle, llm_of
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

from sensorium.cli.main import app
from sensorium.core.batch import Example, MediaBatch, TilePlan
from sensorium.core.errors import WeightsError
from sensorium.core.weights import FileSource
from sensorium.interop.locate import locate
from sensorium.interop.original import import_original, read_original
from sensorium.interop.original_export import export_original
from sensorium.interop.originals import ORIGINALS
from sensorium.interop.originals.base import Beside, Found, Original
from sensorium.interop.saved import load_model
from sensorium.model.config import LoraConfig
from sensorium.model.multimodal import MultimodalModel
from sensorium.recipes import RECIPES


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Beside:
    folder = tmp_path_factory.mktemp("beside")
    return Beside(opt(folder / "opt"), clip(folder / "clip"))


def koh(beside: Beside, kind: str) -> Koh:
    assert beside.llm is not None
    assert beside.tower is not None
    torch.manual_seed(3)
    return Koh(beside.llm, beside.tower, tokens={"fromage": 1, "gill": 4}[kind], gill=kind == "gill")


def our_states(ours: MultimodalModel, raw: Tensor, tokens: int, ids: list[int], kind: str = "image") -> Tensor:
    media = {kind: MediaBatch(raw, (TilePlan(),))}
    row = [0] * tokens + ids
    example = Example(row, [False] * len(row), {kind: list(range(tokens))}, media, [1] * len(row))
    return ours(batch_of(example)).hidden_BTD[:, : len(row)]


@torch.no_grad()
def test_fromage(beside: Beside, tmp_path: Path, record: Callable[..., None]) -> None:
    """By the command: states and logits behind a picture, the two vectors that are compared, and the way back."""
    theirs = koh(beside, "fromage")
    saved = theirs.save(tmp_path / "fromage")
    done = CliRunner().invoke(app, ["import", str(tmp_path / "fromage" / "pretrained_ckpt.pth.tar"), str(tmp_path / "ours"),
                                    "--llm", str(beside.llm), "--tower", str(beside.tower)])  # fmt: skip
    assert done.exit_code == 0, done.output
    ours, tokenizer = load_model(tmp_path / "ours")
    assert tokenizer.special_id("[RET]") == theirs.words
    raw, ids = torch.randint(0, 256, (1, 3, 28, 28), dtype=torch.uint8), [5, 9, 40, theirs.words]
    expected, got = theirs.states(normalised(raw), ids), our_states(ours, raw, 1, ids)
    record("fromage", "made", ours=got, theirs=expected)
    record("fromage", "made", ours=ours.logits(got), theirs=theirs.model.lm.lm_head(expected))
    hand: Any = ours.hands["image"]
    text = F.normalize(theirs.model.text_hidden_fcs[0](expected[:, -1:]), dim=-1)
    record("fromage", "made", ours=hand(got[:, -1:]), theirs=text)
    seen = theirs.model.visual_model(normalised(raw)).pooler_output
    record("fromage", "made", ours=hand.pictures(seen), theirs=F.normalize(theirs.model.visual_fc(seen), dim=-1))
    assert float(hand.logit_scale) == 1.5
    export_original(tmp_path / "ours", tmp_path / "back")
    assert [p.name for p in (tmp_path / "back").iterdir()] == ["pretrained_ckpt.safetensors"]
    assert_same(tmp_path / "back" / "pretrained_ckpt.safetensors", saved)
    record("fromage", "weights")


@torch.no_grad()
def test_gill(beside: Beside, tmp_path: Path, record: Callable[..., None]) -> None:
    """A folder with the decision model in it, in bf16, trained on several devices."""
    theirs = koh(beside, "gill")
    saved = theirs.save(tmp_path / "gill", wrapper="module.", dtype=torch.bfloat16)
    theirs.bfloat16().float()
    decides = nn.Sequential(nn.Dropout(0.5), nn.Linear(WIDTH, 2)).eval()
    torch.save({"state_dict": decides.state_dict()}, tmp_path / "gill" / "decision_model.pth.tar")
    import_original(tmp_path / "gill", tmp_path / "ours", beside)
    ours, tokenizer = load_model(tmp_path / "ours")
    assert [tokenizer.special_id(f"[IMG{i}]") for i in range(8)] == list(range(theirs.words, theirs.words + 8))
    # The language model beside it is in fp32; only what learnt is rounded.
    theirs.model.lm.model.load_state_dict({k.removeprefix("backbone.lm.model."): v for k, v in ours.state_dict().items()
                                           if k.startswith("backbone.lm.model.")})  # fmt: skip
    theirs.model.visual_model.load_state_dict(type(theirs.model.visual_model).from_pretrained(beside.tower).state_dict())
    rows = saved["module.model.input_embeddings.weight"].float()
    assert torch.equal(theirs.model.input_embeddings.weight[-8:], rows)
    raw, ids = torch.randint(0, 256, (1, 3, 28, 28), dtype=torch.uint8), [5, 9, 40, *range(theirs.words, theirs.words + 8)]
    expected, got = theirs.states(normalised(raw), ids)[:, -8:], our_states(ours, raw, 4, ids)[:, -8:]
    record("gill", "made", ours=got, theirs=expected)
    drawn = theirs.model.gen_text_hidden_fcs[0](expected, rows[None])
    record("gill", "made", ours=ours.hands["image"](got + rows), theirs=drawn)
    sought = F.normalize(theirs.model.ret_text_hidden_fcs[0](expected, rows[None])[:, :1], dim=-1)
    record("gill", "made", ours=ours.hands["image_other"](got), theirs=sought)
    record("gill", "made", ours=ours.hands["image_choice"](got), theirs=decides(expected[:, 0]))
    export_original(tmp_path / "ours", tmp_path / "back")
    assert_same(tmp_path / "back" / "pretrained_ckpt.safetensors", saved)
    assert_same(tmp_path / "back" / "decision_model.safetensors", decides.state_dict())
    record("gill", "weights")


def test_fromages_whole_table_is_kept_for_the_way_back(beside: Beside, tmp_path: Path) -> None:
    """The script for pruning leaves it in the file; it is OPT's, which lies beside."""
    theirs = koh(beside, "fromage")
    tensors = theirs.learnt() | {"model.input_embeddings.weight": theirs.model.input_embeddings.weight.detach()}
    torch.save({"state_dict": tensors}, tmp_path / "ckpt_pruned.pth.tar")
    import_original(tmp_path / "ckpt_pruned.pth.tar", tmp_path / "ours", beside)
    export_original(tmp_path / "ours", tmp_path / "back")
    assert_same(tmp_path / "back" / "ckpt_pruned.safetensors", tensors)


def test_gills_decision_model_may_be_named_or_left_out(beside: Beside, tmp_path: Path) -> None:
    koh(beside, "gill").save(tmp_path / "gill")
    decides = {"1.weight": torch.randn(2, WIDTH), "1.bias": torch.randn(2)}
    torch.save({"state_dict": decides}, tmp_path / "decision_model.pth.tar")
    named = Beside(beside.llm, beside.tower, (tmp_path / "decision_model.pth.tar",))
    ours = read_original(tmp_path / "gill" / "pretrained_ckpt.pth.tar", named)
    assert torch.equal(ours.state_dict()["hands.image_choice.out.weight"], decides["1.weight"])
    hand = read_original(tmp_path / "gill", beside).config.hands["image"]
    assert hand.choice is None
    assert hand.other is not None


# NExT-GPT ---------------------------------------------------------------------------------------


TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
SIGNALS = {"image": range(265, 269), "video": range(269, 293), "audio": range(293, 301)}
"""Behind 263 words, <Img> and </Img>."""


def clips_of_others() -> dict[str, Tensor]:
    """Of a video, and of a sound, two clips."""
    return {"video": torch.randint(0, 256, (1, 2, 2, 3, 28, 28), dtype=torch.uint8), "audio": torch.randn(1, 2, 128, 204)}


def next_gpt(folder: Path, added: int = 38) -> tuple[NextGpt, dict[str, Tensor], Beside]:
    """Its module, its checkpoint and what lies beside it."""
    torch.manual_seed(5)
    theirs = NextGpt()
    torch.save(imagebind(), folder / "imagebind_huge.pth")
    peft = "llama_model.base_model.model."
    tensors = theirs.state_dict() | {peft + k: v for k, v in low_rank(TARGETS).items()}
    tensors |= {f"{peft}model.embed_tokens.weight": torch.randn(263 + added, WIDTH), f"{peft}lm_head.weight": torch.randn(263 + added, WIDTH)}
    torch.save(OrderedDict(tensors), folder / "pytorch_model.pt")
    return theirs, tensors, Beside(vicuna(folder / "vicuna"), folder / "imagebind_huge.pth")


@torch.no_grad()
def test_next_gpt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Callable[..., None]) -> None:
    """Low-rank products in the LLM, three mappers, ImageBind's eye and ear (as its file alone gives it: `test_imagebind`), and the way back."""
    from transformers import LlamaForCausalLM

    theirs, tensors, beside = next_gpt(tmp_path)
    import_original(tmp_path / "pytorch_model.pt", tmp_path / "ours", beside)
    ours, tokenizer = load_model(tmp_path / "ours")
    assert {kind: tuple(map(tokenizer.special_id, hand.signals)) for kind, hand in ours.config.hands.items()} == {
        kind: tuple(ids) for kind, ids in SIGNALS.items()}  # fmt: skip
    assert ours.config.adapter == LoraConfig(rank=4, alpha=32.0, targets=tuple(sorted(TARGETS)))
    llm = {k.removeprefix("llama_model.base_model.model."): v for k, v in tensors.items() if k.startswith("llama_model.")}
    lm = LlamaForCausalLM.from_pretrained(beside.llm).eval()
    lm.resize_token_embeddings(301, mean_resizing=False)
    lm.load_state_dict({k: v for k, v in llm.items() if "lora" not in k}, strict=False)
    merge(lm, llm, alpha=32.0)
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    encoder: Any = ours.config.lane("image").encoder
    eye = encoder.build(locate((FileSource(path=str(beside.tower), format="imagebind"),))).eval()
    raw, ids = torch.randint(0, 256, (1, 3, 28, 28), dtype=torch.uint8), [5, 9, *range(263, 301)]
    rows = torch.cat([theirs.llama_proj(eye(raw).values_ND)[None], lm.get_input_embeddings()(torch.tensor([ids]))], dim=1)
    expected, got = lm(inputs_embeds=rows, output_hidden_states=True), our_states(ours, raw, 1, ids)
    states = expected.hidden_states[-1]
    record("next-gpt", "made", ours=got, theirs=states)
    record("next-gpt", "made", ours=ours.logits(got), theirs=expected.logits)
    for kind, signals in SIGNALS.items():
        at = [ids.index(word) + 1 for word in signals]
        made = theirs.mapper(kind)(states[:, at], rows[:, at])
        record("next-gpt", "made", ours=ours.hands[kind](got[:, at] + rows[:, at]), theirs=made)
    # One map for all that ImageBind takes.
    for kind, clips in clips_of_others().items():
        rows = torch.cat([theirs.llama_proj(eye(clips, kind).values_ND)[None], lm.get_input_embeddings()(torch.tensor([ids]))], dim=1)
        states = lm(inputs_embeds=rows, output_hidden_states=True).hidden_states[-1]
        record("next-gpt", "made", ours=our_states(ours, clips, 1, ids, kind), theirs=states)
    export_original(tmp_path / "ours", tmp_path / "back")
    assert_same(tmp_path / "back" / "pytorch_model.safetensors", tensors)
    record("next-gpt", "weights")
    again = read_original(tmp_path / "back", beside).state_dict()
    assert all(torch.equal(again[k], v) for k, v in ours.state_dict().items())


def test_next_gpts_words_are_told_by_their_number(tmp_path: Path) -> None:
    """With marks around videos and sound, as its first code adds them; without tables, over an earlier stage; any other number."""
    _, tensors, beside = next_gpt(tmp_path, added=42)
    assert len(read_original(tmp_path / "pytorch_model.pt", beside).config.backbone.added_tokens) == 42
    torch.save({k: v for k, v in tensors.items() if "embed_tokens" not in k}, tmp_path / "last.pt")
    with pytest.raises(WeightsError, match=r"no tensor 'llama_model\.model\.embed_tokens\.weight'.*--with"):
        read_original(tmp_path / "last.pt", beside)
    over = Beside(beside.llm, beside.tower, (tmp_path / "pytorch_model.pt",))
    assert read_original(tmp_path / "last.pt", over).config.backbone.vocab_size == 305
    short = {k: v[:-1] if "embed_tokens" in k or "lm_head" in k else v for k, v in tensors.items()}
    torch.save(short, tmp_path / "short.pt")
    with pytest.raises(WeightsError, match=r"have 304 rows; expected 301 or 305"):
        read_original(tmp_path / "short.pt", beside)


# MiniGPT-5 --------------------------------------------------------------------------------------


@torch.no_grad()
def test_minigpt5(tmp_path: Path, record: Callable[..., None]) -> None:
    """Its second stage over its first, over MiniGPT-4, over a BLIP-2, over EVA-CLIP-g; the first one alone; and the way back."""
    torch.manual_seed(6)
    theirs = blip2_oracle(TEXT | {"num_key_value_heads": 4})
    seeing, llm = lavis(theirs, "llama_proj"), llm_of(theirs, tmp_path / "vicuna")
    eye = {k.removeprefix("visual_encoder."): seeing.pop(k) for k in list(seeing) if k.startswith("visual_encoder.")}
    torch.save(eye, tmp_path / "eva_vit_g.pth")
    torch.save({"model": {k: seeing.pop(k) for k in ("llama_proj.weight", "llama_proj.bias")}}, tmp_path / "minigpt4.pth")
    torch.save({"model": seeing}, tmp_path / "blip2.pth")
    own, low = MiniGpt5(), low_rank(("q_proj", "v_proj"))
    tables = {name: torch.randn(272, WIDTH) * 0.3 for name in ("model.embed_tokens", "lm_head")}
    first = own.state_dict() | {f"model.llama_model.{k}.weight": v + 1 for k, v in tables.items()}
    peft = "model.llama_model.base_model.model."
    second = {k: v for k, v in own.state_dict().items() if k.startswith("llm_to_t2i_mapping.")} | {peft + k: v for k, v in low.items()}
    second |= {f"{peft}{k}.modules_to_save.default.weight": v for k, v in tables.items()}
    about = {"epoch": 2, "pytorch-lightning_version": "2.0.2", "hyper_parameters": {"learning_rate": 2e-5}}
    torch.save({**about, "state_dict": first}, tmp_path / "stage1_cc3m.ckpt")
    torch.save({**about, "state_dict": second}, tmp_path / "stage2_vist.ckpt")
    sees = (tmp_path / "blip2.pth", tmp_path / "minigpt4.pth")
    alone = read_original(tmp_path / "stage1_cc3m.ckpt", Beside(llm, tmp_path / "eva_vit_g.pth", sees))
    assert alone.config.adapter is None
    assert torch.equal(alone.state_dict()["backbone.lm.lm_head.weight"], tables["lm_head"] + 1)

    beside = Beside(llm, tmp_path / "eva_vit_g.pth", (*sees, tmp_path / "stage1_cc3m.ckpt"))
    import_original(tmp_path / "stage2_vist.ckpt", tmp_path / "ours", beside)
    ours, tokenizer = load_model(tmp_path / "ours")
    assert [tokenizer.special_id(f"[IMG{i}]") for i in range(8)] == list(range(263, 271))
    assert ours.config.adapter == LoraConfig(rank=4, alpha=16.0, targets=("q_proj", "v_proj"))
    theirs.resize_token_embeddings(272, mean_resizing=False)
    lm = {"model.embed_tokens": theirs.get_input_embeddings(), "lm_head": theirs.get_output_embeddings()}
    for name, module in lm.items():
        module.weight.copy_(tables[name])
    inner = {k.removeprefix("model."): v for k, v in low.items()}
    merge(theirs.model.language_model if hasattr(theirs, "model") else theirs.language_model.model, inner, alpha=16.0)
    raw, ids = torch.randint(0, 256, (1, 3, 28, 28), dtype=torch.uint8), [5, 9, *range(263, 271)]
    theirs.config.image_token_index = theirs.config.image_token_id = 271
    asked = torch.tensor([[271] * 4 + ids])
    expected = theirs(input_ids=asked, pixel_values=normalised(raw), attention_mask=torch.ones_like(asked), output_hidden_states=True)
    states, got = expected.language_model_outputs.hidden_states[-1], our_states(ours, raw, 4, ids)
    record("minigpt-5", "made", ours=ours.logits(got), theirs=expected.logits)
    record("minigpt-5", "made", ours=ours.hands["image"](got[:, -9:-1]), theirs=own(states[:, -9:-1]))
    export_original(tmp_path / "ours", tmp_path / "back")
    assert_same(tmp_path / "back" / "stage2_vist.safetensors", second)
    record("minigpt-5", "weights")
    for left_out, named in ((2, r"'t2i_decoder_prompt'.*stage1_cc3m"), (1, r"'llama_proj\.weight'.*prerained_minigpt4_7b")):
        more = tuple(path for i, path in enumerate(beside.more) if i != left_out)
        with pytest.raises(WeightsError, match=named):
            read_original(tmp_path / "stage2_vist.ckpt", Beside(llm, beside.tower, more))


# What does not fit ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name", "change", "named"),
    [
        ("fromage", "model.visual_fc.bias", None, r"1 tensors are missing \(model\.visual_fc\.bias\)"),
        ("fromage", "model.tunable.weight", torch.zeros(1), r"no rule for tensor 'model\.tunable\.weight'"),
        ("fromage", "ret_input_embeddings.weight", torch.zeros(1, 5), r"ret_input_embeddings\.weight has shape \(1, 5\); expected \(1, 32\)"),
        ("fromage", "model.visual_embeddings.weight", torch.zeros(33, 24), r"makes 33 numbers; expected a multiple of 32"),
        ("gill", "model.gen_text_hidden_fcs.0.query_embs", None, r"no tensor 'model\.gen_text_hidden_fcs\.0\.query_embs'"),
        ("gill", "model.input_embeddings.weight", torch.zeros(7, 32), r"signal tokens with ids .*expected \[264, .*270\]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(beside: Beside, kind: str, name: str, change: Tensor | None, named: str, tmp_path: Path) -> None:
    koh(beside, kind).save(tmp_path / "m")
    file = tmp_path / "m" / "pretrained_ckpt.pth.tar"
    tensors = torch.load(file)["state_dict"] | {name: change}
    torch.save({"state_dict": {k: v for k, v in tensors.items() if v is not None}}, file)
    with pytest.raises(WeightsError, match=named):
        read_original(file, beside)


def test_words_elsewhere_than_the_tokenizer_says_are_refused(beside: Beside, tmp_path: Path) -> None:
    koh(beside, "fromage").save(tmp_path / "m")
    (tmp_path / "m" / "model_args.json").write_text(json.dumps({"retrieval_token_idx": 50266}))
    with pytest.raises(WeightsError, match=r"signal tokens with ids 50266; expected \[264\]"):
        read_original(tmp_path / "m", beside)


# Published sizes --------------------------------------------------------------------------------


def transformer(before: str, width: int, inner: int, layers: int = 4) -> dict[str, tuple[int, ...]]:
    """What `nn.Transformer` of this size holds."""
    with torch.device("meta"):
        module = nn.Transformer(d_model=width, dim_feedforward=inner, num_encoder_layers=layers, num_decoder_layers=layers, nhead=4)
    return {before + k: tuple(v.shape) for k, v in module.state_dict().items()}


def mapper(before: str, length: int, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{before}fc.weight": (512, 4096), f"{before}model.weight": (width, 512), f"{before}query_embs": (1, length, 512),
            **transformer(f"{before}tfm.", 512, 2048)}  # fmt: skip


FROMAGE = {"ret_input_embeddings.weight": (1, 4096), "model.visual_embeddings.weight": (4096, 1024), "model.visual_fc.weight": (256, 1024)}
GILL = {"model.input_embeddings.weight": (8, 4096), "model.visual_embeddings.weight": (4 * 4096, 1024), "model.visual_fc.weight": (256, 1024),
        "model.ret_text_hidden_fcs.0.model.weight": (256, 4096), "1.weight": (2, 4096), **mapper("model.gen_text_hidden_fcs.0.", 77, 768)}  # fmt: skip
NEXT_GPT = {
    "llama_proj.weight": (4096, 1024), "llama_model.base_model.model.model.embed_tokens.weight": (32042, 4096),
    "llama_model.base_model.model.lm_head.weight": (32042, 4096), **mapper("gen_text_hidden_fcs.0.", 77, 768),
    **mapper("gen_text_hidden_fcs_video.0.", 77, 1024), **mapper("gen_text_hidden_fcs_audio.0.", 1, 512),
    "visual_encoder.modality_preprocessors.vision.rgbt_stem.proj.1.weight": (1280, 3, 2, 14, 14),
    "visual_encoder.modality_preprocessors.vision.pos_embedding_helper.pos_embed": (1, 257, 1280),
    "visual_encoder.modality_heads.vision.2.weight": (1024, 1280),
    **{f"visual_encoder.modality_trunks.vision.blocks.{i}.mlp.fc1.weight": (5120, 1280) for i in range(32)},
    "visual_encoder.modality_preprocessors.audio.rgbt_stem.proj.weight": (768, 1, 16, 16),
    **{f"visual_encoder.modality_trunks.audio.blocks.{i}.mlp.fc1.weight": (3072, 768) for i in range(12)},
}  # fmt: skip
MINIGPT5 = {
    "t2i_decoder_prompt": (1, 77, 1024), **transformer("llm_to_t2i_mapping.", 1024, 4096), "llama_proj.weight": (4096, 768),
    "model.llama_model.model.embed_tokens.weight": (32009, 4096), "model.llama_model.lm_head.weight": (32009, 4096),
    "query_tokens": (1, 32, 768), "visual_encoder.patch_embed.proj.weight": (1408, 3, 14, 14), "visual_encoder.pos_embed": (1, 257, 1408),
    **{f"visual_encoder.blocks.{i}.mlp.fc1.weight": (6144, 1408) for i in range(39)},
    **{f"Qformer.bert.encoder.layer.{i}.intermediate_query.dense.weight": (3072, 768) for i in range(12)},
}  # fmt: skip
WORDS = {"fromage": 50265, "gill": 50265, "next-gpt": 32000, "minigpt-5": 32000}


def without_sources(values: Any) -> Any:
    """A config without where parts come from, and what tokenizers are looked for."""
    if isinstance(values, dict):
        return {k: without_sources(v) for k, v in values.items() if k != "weights"}
    return [without_sources(v) for v in values] if isinstance(values, list | tuple) else values


@pytest.mark.parametrize(("name", "shapes"), [
    ("fromage", FROMAGE), ("gill", GILL), ("next-gpt", NEXT_GPT), ("minigpt-5", MINIGPT5)])  # fmt: skip
def test_the_published_sizes_are_the_recipes(name: str, shapes: dict[str, tuple[int, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shapes of `FrozenArgs` and `GILLArgs` with the published arguments, and those of decision_model.pth.tar itself."""
    recipe = RECIPES.find(name)().model
    for module in ("fromage", "words"):
        monkeypatch.setattr(f"sensorium.interop.originals.{module}.rows_with", lambda folder, added: WORDS[name] + len(added))
    for part, config in (("llm", recipe.backbone.to_dict()["arch"] | {"vocab_size": WORDS[name]}),
                         ("clip", {"model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                                   "num_attention_heads": 16, "image_size": 224, "patch_size": 14})):  # fmt: skip
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps(config))
    beside = Beside(tmp_path / "llm", tmp_path / "clip")
    layout: Original = ORIGINALS.find(name.replace("-gpt", "_gpt").replace("-5", "5"))()
    found = layout.gather(Found(tmp_path / "x", {}, {k: torch.empty(v, device="meta") for k, v in shapes.items()}), Beside(beside.llm))
    assert without_sources(layout.model(found, beside).to_dict()) == without_sources(recipe.to_dict() | {"adapter": None})
