"""LISA, Emu2, SEED-LLaMA, Emu and MGIE as their authors publish them: every tensor in its place, and back bit for bit.

Names are spelt out here from the repositories (or are those of the authors' own classes, as in golden/sam.safetensors.gz), so that
a slip in a key map of ours cannot hide.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bpe import byte_level
from original_layouts import TEXT, VISION_16, write_folder
from safetensors.torch import load
from torch import Tensor

from sensorium.core.batch import Features, Grid
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.generators.seed import SeedConfig
from sensorium.interop.original import import_original, is_original
from sensorium.interop.original_export import export_original
from sensorium.interop.originals import ORIGINALS
from sensorium.interop.originals.base import Beside, Found
from sensorium.interop.originals.seed_llama import SeedLlama, seed_config
from sensorium.interop.sam_file import sam_config
from sensorium.interop.saved import load_model
from sensorium.interop.tower_files import EVA_CLIP
from sensorium.model.multimodal import MultimodalModel
from sensorium.nn.pretrained import read_file
from sensorium.recipes.emu_parts import emu2_model, emu_model
from sensorium.recipes.lisa import lisa as lisa_recipe
from sensorium.text.byte_tokenizer import byte_tokenizer

WORDS = len(byte_tokenizer())
WIDTH = TEXT["hidden_size"]
SAM = {k.removeprefix("weights."): v for k, v in load(gzip.decompress((Path(__file__).parent / "golden" / "sam.safetensors.gz").read_bytes())).items()
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


# Emu ---------------------------------------------------------------------------------------------


def llama_folder(folder: Path) -> Path:
    """The shape and the tokenizer of the language model that a checkpoint holds: models/llama_config."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TEXT | {"vocab_size": WORDS}))
    byte_tokenizer().save(folder)
    return folder


def eva(before: str, *, side: int, width: int = 32, layers: int = 2, up: int = 48) -> dict[str, tuple[int, ...]]:
    """eva_vit_model.py and eva_vit.py."""
    shapes: dict[str, tuple[int, ...]] = {
        f"{before}cls_token": (1, 1, width), f"{before}pos_embed": (1, 1 + side * side, width),
        f"{before}patch_embed.proj.weight": (width, 3, 14, 14), f"{before}patch_embed.proj.bias": (width,),
    }  # fmt: skip
    for i in range(layers):
        block = f"{before}blocks.{i}."
        shapes |= {f"{block}{name}.{kind}": (width,) for name in ("norm1", "norm2") for kind in ("weight", "bias")}
        shapes |= {f"{block}attn.q_bias": (width,), f"{block}attn.v_bias": (width,)}
        shapes |= linear(f"{block}attn.qkv", 3 * width, width, bias=False) | linear(f"{block}attn.proj", width, width)
        shapes |= linear(f"{block}mlp.fc1", up, width) | linear(f"{block}mlp.fc2", width, up)
    return shapes


def t5_stack() -> Any:
    """transformers' own class, whose names Emu's copy of it keeps."""
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Stack

    config = T5Config(d_model=32, d_kv=6, d_ff=40, num_layers=2, num_heads=4, relative_attention_num_buckets=8, vocab_size=5,
                      is_decoder=True, use_cache=False)  # fmt: skip
    stack = T5Stack(config).eval()
    with torch.no_grad():
        for weight in stack.parameters():
            weight.normal_(0, 0.3)
    return stack


def emu(stack: Any, tokens: int, lm: str = "decoder.lm.") -> dict[str, Tensor]:
    shapes = eva("visual.", side=2) | {"visual.norm.weight": (32,), "visual.norm.bias": (32,)} | linear("visual.head", 8, 32)
    shapes |= {"ln_visual.weight": (32,), "ln_visual.bias": (32,), "cformer.causal_tokens": (1, 4, 32)} | linear("cformer.projection", WIDTH, 32)
    head = linear(f"{lm}stu_regress_head", WIDTH, WIDTH, bias=False)
    own = {f"cformer.cformer.{k}": v.clone() for k, v in stack.state_dict().items()}
    own.setdefault("cformer.cformer.embed_tokens.weight", torch.randn(5, 32))
    return own | {lm + k: v for k, v in llama(WORDS + tokens).items()} | drawn(shapes | head)


@torch.no_grad()
def test_emu(tmp_path: Path, record: Callable[..., None]) -> None:
    stack = t5_stack()
    tensors = emu(stack, tokens=4)
    torch.save({"module": tensors}, tmp_path / "Emu-pretrain.pt")
    beside = Beside(llm=llama_folder(tmp_path / "llm"))
    model, kept = there_and_back(tmp_path / "Emu-pretrain.pt", beside, tmp_path, {"Emu-pretrain": tensors})
    config, published = model.config, emu_model()
    assert (kept["layout"], config.template, config.placeholder_token) == ("emu", "emu_document", "<image>")
    assert config.backbone.added_tokens == published.backbone.added_tokens[:4]
    shape = config.hands["image"].generator.condition
    assert (shape.length, shape.width) == (4, WIDTH)
    state = model.state_dict()
    assert torch.equal(state["hands.image.out.weight"], tensors["decoder.lm.stu_regress_head.weight"])
    assert torch.equal(state["encoders.image.tower.post_layernorm.bias"], tensors["ln_visual.bias"])
    seen = torch.randn(1, 7, 32)
    inside = stack(inputs_embeds=tensors["cformer.causal_tokens"], encoder_hidden_states=seen).last_hidden_state
    wanted = inside @ tensors["cformer.projection.weight"].T + tensors["cformer.projection.bias"]
    projectors: Any = model.projectors
    found = projectors["image"](Features(seen[0], (Grid(1, 7),)))
    record("emu", "weights", ours=found.values_ND, theirs=wanted[0])


def test_emu_instruct_has_an_adapter_inside(tmp_path: Path) -> None:
    """By the names of peft, with alpha 16."""
    lm = "decoder.lm.base_model.model."
    adapter = {f"{lm}model.layers.{i}.self_attn.{name}_proj.lora_{x}.default.weight": torch.randn(size)
               for i in range(2) for name in "qo" for x, size in (("A", (4, WIDTH)), ("B", (WIDTH, 4)))}  # fmt: skip
    tensors = emu(t5_stack(), tokens=6, lm=lm) | adapter
    torch.save(tensors, tmp_path / "Emu-instruct.pt")
    beside = Beside(llm=llama_folder(tmp_path / "llm"))
    model, _ = there_and_back(tmp_path / "Emu-instruct.pt", beside, tmp_path, {"Emu-instruct": tensors})
    assert model.config.template == "emu"
    assert model.config.backbone.added_tokens == emu_model().backbone.added_tokens
    lora: Any = model.config.adapter
    assert (lora.rank, lora.alpha, lora.targets) == (4, 16.0, ("o_proj", "q_proj"))
    name = "model.layers.1.self_attn.q_proj."
    a, b = (tensors[f"{lm}{name}lora_{x}.default.weight"] for x in "AB")
    merged = tensors[f"{lm}{name}weight"] + 16 / 4 * b @ a
    torch.testing.assert_close(model.state_dict()[f"backbone.lm.{name}weight"], merged)


def test_an_emu_over_another_llama_is_refused(tmp_path: Path) -> None:
    torch.save(emu(t5_stack(), tokens=5), tmp_path / "emu.pt")
    with pytest.raises(WeightsError, match=rf"{WORDS + 5} rows .* over a language model of {WORDS} words; expected {WORDS + 4} or {WORDS + 6}"):
        import_original(tmp_path / "emu.pt", tmp_path / "ours", Beside(llm=llama_folder(tmp_path / "llm")))
    with pytest.raises(WeightsError, match="name its folder"):
        import_original(tmp_path / "emu.pt", tmp_path / "ours", Beside())
    torch.save(emu(t5_stack(), tokens=4), tmp_path / "emu.pt")
    with pytest.raises(WeightsError, match=r"llm: no model_index\.json of a pipeline"):
        import_original(tmp_path / "emu.pt", tmp_path / "ours", Beside(llm=tmp_path / "llm", more=(tmp_path / "llm",)))


# Emu2 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("chats", "before"), [(False, "model."), (True, "")])
def test_emu2(chats: bool, before: str, tmp_path: Path, record: Callable[..., None]) -> None:
    """Of transformers' folder, with `model.` in front of tower and decoder, and of the repository's classes."""
    tokens = emu2_model().backbone.added_tokens + (("[USER]", "[ASSISTANT]") if chats else ())
    maps = {"project_up.weight": (WIDTH, 32), "project_down.weight": (32, WIDTH)}
    tensors = drawn(eva(f"{before}visual.", side=16) | maps) | {f"{before}decoder.lm.{k}": v for k, v in llama(WORDS + len(tokens)).items()}
    path = tmp_path / ("emu2" if before else "emu2.pt")
    if before:
        write_folder(path, TEXT | {"model_type": "emu2"}, tensors, shards=2)
    else:
        torch.save(tensors, path)
    decoder = tmp_path / "decoder"
    decoder.mkdir()
    (decoder / "model_index.json").write_text("{}")
    beside = Beside(llm=llama_folder(tmp_path / "llm"), more=(decoder,))
    model, kept = there_and_back(path, beside, tmp_path, {"model" if before else "emu2": tensors})
    config = model.config
    assert (kept["layout"], config.template, config.backbone.added_tokens) == ("emu2", "emu2" if chats else "emu2_document", tokens)
    assert config.boxes == "emu2"
    lane: Any = config.lane("image")
    assert (lane.encoder.heads, lane.encoder.image_size_px, lane.projector.side) == (16, 224, 16 if chats else 8)
    made: Any = config.hands["image"].generator
    assert (made.length, made.width, made.pooled, made.weights[0].path) == (lane.projector.side**2, 32, "mean", str(decoder.resolve()))
    state, tower = model.state_dict(), "encoders.image.tower."
    assert torch.equal(state["projectors.image.layers.0.weight"], tensors["project_up.weight"])
    assert torch.equal(state["hands.image.out.weight"], tensors["project_down.weight"])
    # The map of towers alone, which is compared with timm.
    seen = EVA_CLIP.to_ours({k.removeprefix(f"{before}visual."): v for k, v in tensors.items() if "visual." in k})
    assert {k.removeprefix(tower) for k in state if k.startswith(tower)} == set(seen)
    assert all(torch.equal(state[tower + k], v) for k, v in seen.items())
    record("emu2", "weights")


# SEED-LLaMA --------------------------------------------------------------------------------------

CODES, INNER = 6, 24


def seed_quantizer() -> dict[str, Tensor]:
    """models/seed_qformer/qformer_quantizer.py, as SEED-2's file has it."""
    shapes = eva("visual_encoder.", side=2) | {"ln_vision.weight": (32,), "ln_vision.bias": (32,), "query_tokens": (1, 4, INNER)}
    norms = {"Qformer.bert.embeddings.LayerNorm": INNER}
    for i in range(2):
        layer = f"Qformer.bert.encoder.layer.{i}."
        for name, d_key in (("attention", INNER), *([("crossattention", 32)] if i == 0 else [])):
            for part, size in (("query", INNER), ("key", d_key), ("value", d_key)):
                shapes |= linear(f"{layer}{name}.self.{part}", INNER, size)
            shapes |= linear(f"{layer}{name}.output.dense", INNER, INNER)
            norms[f"{layer}{name}.output.LayerNorm"] = INNER
        shapes |= linear(f"{layer}intermediate_query.dense", 40, INNER) | linear(f"{layer}output_query.dense", INNER, 40)
        norms[f"{layer}output_query.LayerNorm"] = INNER
    shapes |= linear("encode_task_layer.0", INNER, INNER) | linear("encode_task_layer.2", 8, INNER) | {"quantize.embedding.weight": (CODES, 8)}
    shapes |= linear("decode_task_layer.0", 8, 8) | linear("decode_task_layer.2", INNER, 8)
    for places, blocks in (("pos_embed", "blocks"), ("pos_embed_image", "blocks_image")):
        block = f"{blocks}.0."
        shapes |= {places: (1, 4, INNER)} | linear(f"{block}attn.qkv", 3 * INNER, INNER) | linear(f"{block}attn.proj", INNER, INNER)
        shapes |= linear(f"{block}mlp.fc1", 4 * INNER, INNER) | linear(f"{block}mlp.fc2", INNER, 4 * INNER)
        norms |= {f"{block}norm1": INNER, f"{block}norm2": INNER}
    for name, rows, columns in (("0", 256, INNER), ("2", 128, 256), ("4", 32, 128)):
        shapes |= linear(f"image_down.{name}", rows, columns, bias=False)
    shapes |= linear("distill_image_proj", 16, 4 * 32)
    return drawn(shapes | {f"{name}.{kind}": (size,) for name, size in norms.items() for kind in ("weight", "bias")})


def seed_llama(folder: Path, first: int) -> tuple[dict[str, Tensor], dict[str, int]]:
    """A folder of a LLaMA, `seed_quantizer.pt` beside it, and the numbers of codes and marks."""
    codes = [f"<img_{i:05d}>" for i in range(CODES)]
    said = {token: first + i for i, token in enumerate((*codes, "</img>", "<img>"))}
    tensors = {k: v.half() for k, v in llama(first + len(said)).items()}
    write_folder(folder / "sft", TEXT | {"vocab_size": first + len(said)}, tensors, shards=2)
    byte_level().save(folder / "sft")
    torch.save(seed_quantizer(), folder / "seed_quantizer.pt")
    return tensors, said


def test_seed_llama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))
    first = len(byte_level())
    tensors, said = seed_llama(tmp_path, first)
    beside = Beside(more=(tmp_path / "seed_quantizer.pt",))
    with pytest.raises(WeightsError, match="no numbers of <img_00000>, <img>, </img>"):
        import_original(tmp_path / "sft", tmp_path / "ours", beside)
    (tmp_path / "sft" / "added_tokens.json").write_text(json.dumps(said))
    model, kept = there_and_back(tmp_path / "sft", beside, tmp_path, {"model": tensors})
    config = model.config
    told: Any = config.picture_words
    assert (kept["layout"], config.template, told.words, told.begin, told.end) == ("seed_llama", "seed_llama", ((first, CODES),), ("<img>",), ("</img>",))
    assert (told.tokenizer.size_px, told.tokenizer.queries, told.tokenizer.gather, told.tokenizer.blocks) == (28, 4, "narrow", 1)
    # Of 40 layers it is the 14B.
    larger = Found(tmp_path / "sft", TEXT | {"vocab_size": first + len(said), "num_hidden_layers": 40}, {}, words=said)
    assert SeedLlama().model(larger, beside).template == "seed_llama_14b"
    # The folder is whole: the file that lay beside is not asked for again.
    (tmp_path / "seed_quantizer.pt").unlink()
    state = load_model(tmp_path / "ours")[0].state_dict()
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert "picture_tokenizer.quantise.codebook_KD" in state
    with pytest.raises(ConfigError, match="no known layout"):
        import_original(tmp_path / "sft", tmp_path / "plain", Beside())


# MGIE --------------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="diffusers is not installed")
def test_mgie(clip: Path, tmp_path: Path) -> None:
    from test_mgie import EditMapper

    from sensorium.generators.instruct_pix2pix import InstructPix2PixConfig

    # LLaVA-7B-v1, whose words mllm.pt replaces.
    config = {k: v for k, v in LISA_CONFIG.items() if k not in ("train_mask_decoder", "out_dim")} | {"vocab_size": WORDS + 3}
    llava = llama(WORDS + 3) | drawn(linear("model.mm_projector", WIDTH, 32))
    write_folder(tmp_path / "llava", config, llava, shards=2)
    pipe: Any = InstructPix2PixConfig.tiny().build()
    pipe.save(tmp_path / "pix2pix")
    words = {k: v for k, v in llama(WORDS + 11).items() if "embed_tokens" in k or "lm_head" in k}
    head = {f"edit_head.{k}": v.clone() for k, v in EditMapper(WIDTH, 77, 32).state_dict().items()}
    mllm = {k: v.half() for k, v in (words | head).items()} | {"emb": words["model.embed_tokens.weight"][-8:].half()[None]}
    unet = {k: torch.randn(v.shape).half() for k, v in pipe.pipe.unet.state_dict().items()}
    (tmp_path / "mgie_7b").mkdir()
    torch.save(mllm, tmp_path / "mgie_7b" / "mllm.pt")
    torch.save(unet, tmp_path / "mgie_7b" / "unet.pt")
    beside = Beside(llm=llama_folder(tmp_path / "llm"), tower=clip, more=(tmp_path / "llava", tmp_path / "pix2pix"))
    model, kept = there_and_back(tmp_path / "mgie_7b", beside, tmp_path, {"mllm": mllm, "unet": unet})
    assert (kept["layout"], model.config.template) == ("mgie", "shikra")
    assert model.config.backbone.added_tokens == ("<im_patch>", "<im_start>", "<im_end>", *(f"[IMG{i}]" for i in range(8)))
    mapper: Any = model.config.hands["image"].projector
    assert (mapper.width, mapper.layers, mapper.mlp_width, mapper.before, mapper.guided) == (16, 1, 32, True, True)
    state = model.state_dict()
    assert torch.equal(state["backbone.lm.model.layers.1.mlp.up_proj.weight"], llava["model.layers.1.mlp.up_proj.weight"])
    assert torch.equal(state["backbone.lm.lm_head.weight"], mllm["lm_head.weight"].float())
    made: Any = model.generators["image"]
    assert all(torch.equal(v, unet[k].float()) for k, v in made.unet.state_dict().items())
    assert torch.equal(next(made.pipe.vae.parameters()), next(pipe.pipe.vae.parameters()))
    with pytest.raises(WeightsError, match=r"put unet\.pt beside"):
        import_original(tmp_path / "mgie_7b" / "mllm.pt", tmp_path / "half", beside)
    torch.save(mllm | {"emb": torch.ones(1, 8, WIDTH)}, tmp_path / "mgie_7b" / "mllm.pt")
    with pytest.raises(WeightsError, match=r"'emb' .* is something else than the last 8 rows"):
        import_original(tmp_path / "mgie_7b", tmp_path / "other", beside)


# At the published sizes ----------------------------------------------------------------------------


def of_shapes(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def test_sam_of_lisa_has_the_recipes_sizes() -> None:
    """build_sam.py: ViT-H, whose layers 7, 15, 23 and 31 see the whole picture."""
    shapes: dict[str, tuple[int, ...]] = {
        "image_encoder.patch_embed.proj.weight": (1280, 3, 16, 16), "image_encoder.pos_embed": (1, 64, 64, 1280),
        "image_encoder.neck.0.weight": (256, 1280, 1, 1), "mask_decoder.transformer.layers.0.mlp.lin1.weight": (2048, 256),
        "mask_decoder.transformer.layers.1.mlp.lin1.weight": (2048, 256),
    }  # fmt: skip
    shapes |= {f"image_encoder.blocks.{i}.attn.rel_pos_h": (127 if i % 8 == 7 else 27, 80) for i in range(32)}
    told: Any = lisa_recipe().model.hands["mask"].generator
    assert sam_config(of_shapes(shapes), "", Path("lisa")) == told.model_copy(update={"weights": ()})


def test_seeds_tokenizer_has_the_recipes_sizes() -> None:
    former, out = "Qformer.bert.encoder.layer.", {"query_tokens": (1, 32, 768), "distill_image_proj.weight": (1024, 1024)}
    shapes = eva("visual_encoder.", side=16, width=1408, layers=39, up=6144) | out | {
        "quantize.embedding.weight": (8192, 32), f"{former}0.intermediate_query.dense.weight": (3072, 768),
        f"{former}11.intermediate_query.dense.weight": (3072, 768), "blocks_image.3.norm1.weight": (768,), "image_down.0.weight": (256, 768)}  # fmt: skip
    assert seed_config(of_shapes(shapes), Path("seed_quantizer.pt")) == SeedConfig()


@pytest.mark.parametrize("which", ["emu", "emu2", "emu2-chat"])
def test_emus_have_the_recipes_sizes(which: str, tmp_path: Path) -> None:
    wanted = emu_model() if which == "emu" else emu2_model(chats=which == "emu2-chat")
    shapes: dict[str, tuple[int, ...]] = {"decoder.lm.model.embed_tokens.weight": (wanted.backbone.vocab_size, wanted.backbone.d_model)}
    if which == "emu":
        block = "cformer.cformer.block."
        shapes |= eva("visual.", side=16, width=1408, layers=40, up=6144) | {
            "cformer.causal_tokens": (1, 32, 768), f"{block}0.layer.0.SelfAttention.relative_attention_bias.weight": (32, 12),
            f"{block}0.layer.0.SelfAttention.q.weight": (768, 768), f"{block}0.layer.2.DenseReluDense.wi.weight": (3072, 768),
            f"{block}11.layer.2.DenseReluDense.wi.weight": (3072, 768)}  # fmt: skip
    else:
        shapes |= eva("visual.", side=32, width=1792, layers=64, up=15360)
    arch: dict[str, Any] = dict(getattr(wanted.backbone, "arch"))  # noqa: B009
    (tmp_path / "config.json").write_text(json.dumps(arch | {"vocab_size": 32000}))
    layout, beside = ORIGINALS.find(which.removesuffix("-chat"))(), Beside(llm=tmp_path)
    found = layout.model(layout.gather(Found(tmp_path / "emu.pt", {}, of_shapes(shapes)), beside), beside)
    assert (found.lanes, found.template, found.placeholder_token) == (wanted.lanes, wanted.template, wanted.placeholder_token)
    assert found.boxes == wanted.boxes
    if which != "emu":
        assert found.video == wanted.video
    assert (found.backbone.added_tokens, getattr(found.backbone, "arch")) == (wanted.backbone.added_tokens, arch)  # noqa: B009
    hand, told = found.hands["image"], wanted.hands["image"]
    assert (hand.signals, hand.projector) == (told.signals, told.projector)
    assert hand.generator == told.generator.model_copy(update={"weights": ()})
