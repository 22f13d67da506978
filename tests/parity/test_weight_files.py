"""Towers and language models in files of other layouts, as sources of weights: the same function, found once converted."""

from __future__ import annotations

import gzip
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from original_layouts import TEXT, lavis, renamed
from safetensors.torch import load, load_file, save_file
from test_eva2 import CONFIGS
from test_original_keys import Evil
from test_originals import blip2_oracle
from torch import Tensor

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.backbones.mpt_qk_norm import MptQkNormConfig
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.core.weights import FileSource, FolderSource
from sensorium.encoders.blip2_vit import Blip2VitConfig
from sensorium.encoders.clip import ClipConfig
from sensorium.encoders.qwen_vit import QwenVitConfig
from sensorium.interop.locate import locate
from sensorium.interop.mosaic_gpt import KEYS
from sensorium.text.byte_tokenizer import byte_tokenizer

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENSORIUM_CACHE", str(tmp_path / "cache"))


def at(file: Path, format: Any) -> Path:
    folder = locate((FileSource(path=str(file), format=format),))
    assert folder is not None
    return folder


def close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


# OpenCLIP and OpenAI ----------------------------------------------------------------------------


def open_clip() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What open_clip itself saved (make_open_clip.py), and what it computed."""
    golden = load(gzip.decompress((GOLDEN / "open_clip.safetensors.gz").read_bytes()))
    weights = {k.removeprefix("weights."): v for k, v in golden.items() if k.startswith("weights.")}
    return weights, golden


CLIP: dict[str, Any] = {"width": 16, "layers": 3, "heads": 2, "mlp_width": 24, "image_size_px": 12,
                        "patch_size_px": 4, "activation": "gelu"}  # fmt: skip
# OpenAI's files hold these beside the tensors; models with a text side of their own put `text.` in front.
OPENAI = {"input_resolution": torch.tensor(12), "context_length": torch.tensor(7), "vocab_size": torch.tensor(20)}


@torch.no_grad()
@pytest.mark.parametrize("layout", ["open_clip", "openai", "text_apart", "visual_alone"])
def test_clip(layout: str, tmp_path: Path) -> None:
    weights, golden = open_clip()
    if layout == "openai":
        weights |= OPENAI
    if layout == "text_apart":
        weights = {k if k.startswith(("visual.", "logit")) else f"text.{k}": v for k, v in weights.items()}
    if layout == "visual_alone":
        weights = {k: v for k, v in weights.items() if k.startswith("visual.")}
    torch.save(weights, tmp_path / "clip.pt")
    folder = at(tmp_path / "clip.pt", "open_clip")
    tower = ClipConfig(**CLIP, feature="cls_patch").build(folder).eval()
    close(tower.features(golden["pixels"]).values_ND, golden["tokens"].flatten(0, 1))
    pooled = ClipConfig(**CLIP, feature="pooled").build(folder).eval().features(golden["pixels"]).values_ND
    proj = load_file(folder / "model.safetensors")["visual_projection.weight"].float()
    close(pooled @ proj.T, golden["image"])


@torch.no_grad()
def test_the_text_side_of_clip(tmp_path: Path) -> None:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    weights, golden = open_clip()
    save_file(weights, tmp_path / "clip.safetensors")
    found = load_file(at(tmp_path / "clip.safetensors", "open_clip") / "model.safetensors")
    # With 2 as its end transformers takes the highest id, as the original does.
    config = CLIPTextConfig(vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                            max_position_embeddings=7, projection_dim=8, hidden_act="gelu", eos_token_id=2)  # fmt: skip
    theirs = CLIPTextModelWithProjection(config).eval()
    theirs.load_state_dict({k: v.float() for k, v in found.items() if k.startswith("text_")})
    close(theirs(golden["ids"]).text_embeds, golden["text"])


@torch.no_grad()
def test_qwen_vl_begins_with_open_clips_tower(tmp_path: Path) -> None:
    """Without CLS; what enters its first block is what enters OpenCLIP's, patch by patch."""
    weights, golden = open_clip()
    torch.save(weights, tmp_path / "bigg.bin")
    shape = {k: v for k, v in CLIP.items() if k != "activation"} | {"norm_eps": 1e-5, "position_side": 3}
    folder = at(tmp_path / "bigg.bin", "open_clip")
    mine = QwenVitConfig(**shape, select_layer=0).build(folder).eval().features(golden["pixels"])
    whole = ClipConfig(**CLIP, select_layer=0).build(folder).eval().features(golden["pixels"])
    close(mine.values_ND, whole.values_ND)


# EVA --------------------------------------------------------------------------------------------


@torch.no_grad()
def test_lavis_eva_vit_g(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tower before BLIP-2 trained its last norm; the file has one block more than LAVIS runs."""
    theirs = blip2_oracle(TEXT)
    inner = getattr(theirs, "model", theirs).vision_model
    inner.post_layernorm.weight.fill_(1)
    inner.post_layernorm.bias.fill_(0)
    eye = {k.removeprefix("visual_encoder."): v for k, v in lavis(theirs, "llm_proj").items() if k.startswith("visual")}
    eye |= {k.replace("blocks.2.", "blocks.39."): v for k, v in eye.items()} | {"norm.weight": torch.ones(32)}
    torch.save(eye, tmp_path / "eva_vit_g.pth")
    config = Blip2VitConfig(width=32, layers=3, heads=16, mlp_width=48, image_size_px=28)
    pixels = torch.randn(2, 3, 28, 28)
    tower = config.build(at(tmp_path / "eva_vit_g.pth", "eva_vit_g")).eval()
    close(tower.features(pixels).values_ND, inner(pixels).last_hidden_state.flatten(0, 1))


# github.com/baaivision/EVA, EVA-CLIP/rei/eva_clip/eva_vit_model.py, against timm's names.
EVA_NAMES = (
    (r"attn\.([qv])_proj\.bias", r"attn.\1_bias"), (r"attn\.norm\.", "attn.inner_attn_ln."), (r"mlp\.fc1_g\.", "mlp.w1."), (r"mlp\.fc1_x\.", "mlp.w2."),
    (r"mlp\.norm\.", "mlp.ffn_ln."), (r"(blocks\.\d+\.mlp)\.fc2\.", r"\1.w3."), ("^", "visual."),
)  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("layout", ["timm", "eva"])
@pytest.mark.parametrize("name", CONFIGS)
def test_eva2_without_its_last_block(name: str, layout: str, tmp_path: Path) -> None:
    golden = load(gzip.decompress((GOLDEN / "eva2.safetensors.gz").read_bytes()))
    prefix = f"{name}.weights."
    weights = {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
    # What timm computed has no block to lose.
    weights |= {k.replace("blocks.1.", "blocks.2."): v * 0 for k, v in weights.items() if "blocks.1." in k}
    if layout == "eva":
        names = EVA_NAMES if name == "l" else EVA_NAMES[-1:]
        weights = renamed(weights, names) | {"text.ln_final.weight": torch.ones(4), "logit_scale": torch.ones([])}
        weights["visual.rope.freqs_cos"] = torch.ones(4)
    torch.save({"module": weights}, tmp_path / "eva.pt")
    tower = CONFIGS[name].build(at(tmp_path / "eva.pt", "eva_clip")).eval()
    close(tower.features(golden[f"{name}.pixels"]).values_ND, golden[f"{name}.tokens"].flatten(0, 1))


# Language models --------------------------------------------------------------------------------


QWEN2 = {"model_type": "qwen2", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-6,
         "tie_word_embeddings": False}  # fmt: skip
# huggingface.co/Qwen/Qwen-7B, modeling_qwen.py.
QWEN_NAMES = (
    (r"^model\.layers\.", "transformer.h."), (r"^model\.embed_tokens\.", "transformer.wte."),
    (r"^model\.norm\.", "transformer.ln_f."), (r"input_layernorm", "ln_1"), (r"post_attention_layernorm", "ln_2"),
    (r"self_attn\.o_proj", "attn.c_proj"), (r"mlp\.up_proj", "mlp.w1"), (r"mlp\.gate_proj", "mlp.w2"),
    (r"mlp\.down_proj", "mlp.c_proj"),
)  # fmt: skip


def qwen_folder(folder: Path, **changes: Any) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    theirs = Qwen2ForCausalLM(Qwen2Config(**{k: v for k, v in QWEN2.items() if k != "model_type"})).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    state = dict(theirs.state_dict())
    for i in range(2):
        for kind in ("weight", "bias"):
            parts = [state.pop(f"model.layers.{i}.self_attn.{p}_proj.{kind}") for p in "qkv"]
            state[f"transformer.h.{i}.attn.c_attn.{kind}"] = torch.cat(parts)
    folder.mkdir()
    tensors = renamed(state, QWEN_NAMES) | {"transformer.h.0.attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    config = {"model_type": "qwen", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2,
              "num_attention_heads": 4, "layer_norm_epsilon": 1e-6, "no_bias": True, "rotary_pct": 1.0}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config | changes))
    byte_tokenizer().save(folder)
    return theirs


def logits(lm: Any, ids: Tensor) -> Tensor:
    return lm.logits(lm(lm.embed(ids), positions_BT=torch.arange(ids.shape[1]).expand(ids.shape)))


@torch.no_grad()
def test_qwen_7b_alone(tmp_path: Path) -> None:
    theirs = qwen_folder(tmp_path / "qwen")
    source = FolderSource(path=str(tmp_path / "qwen"), format="qwen")
    folder = locate((source,))
    assert folder is not None
    assert (folder / "tokenizer.json").exists()
    ours, ids = CausalLMConfig(arch=QWEN2).build(folder).eval(), torch.randint(0, 300, (2, 9))
    close(logits(ours, ids), theirs(ids).logits)
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert locate((source,)) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made


def mosaic_folder(folder: Path, attention: str, **changes: Any) -> dict[str, Tensor]:
    """Tensors by our names; the folder has them by its makers'."""
    lm = MptQkNormConfig(arch=MPT).build().lm
    ours = {k: torch.randn_like(v) * 0.2 for k, v in lm.state_dict().items() if k != "lm_head.weight"}
    names = ((r"\.norm_1\.", ".ln_1."), (r"\.norm_2\.", ".ln_2."), (r"\.ffn\.up_proj", ".mlp.mlp_up"),
             (r"\.ffn\.down_proj", ".mlp.mlp_down"), (r"\.attn\.", f".{attention}."))  # fmt: skip
    folder.mkdir()
    torch.save(renamed(ours, names), folder / "pytorch_model.bin")
    config = {"model_type": "mosaic_gpt", "alibi": True, "attn_qk_ln": True, "no_bias": True, "mlp_ratio": 4}
    (folder / "config.json").write_text(json.dumps(config | {k: v for k, v in MPT.items() if k != "model_type"} | changes))
    byte_tokenizer().save(folder)
    return ours


MPT = {"model_type": "mpt", "vocab_size": 300, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}


@torch.no_grad()
@pytest.mark.parametrize("attention", ["attn", "causal_attn"])
def test_mpt_1b(attention: str, tmp_path: Path) -> None:
    """Written out once more: rows of 300 words, of which the model keeps 290 and none is lost."""
    ours = mosaic_folder(tmp_path / "mpt", attention)
    folder = locate((FolderSource(path=str(tmp_path / "mpt"), format="mosaic_gpt"),))
    whole, ids = MptQkNormConfig(arch=MPT).build(folder).eval(), torch.randint(0, 290, (1, 9))
    for name, value in ours.items():
        assert torch.equal(whole.lm.state_dict()[name], value), name
    close(logits(whole, ids), mosaic_gpt(ours, ids))
    cut = MptQkNormConfig(arch=MPT | {"vocab_size": 290}, added_tokens=("<image>",)).build(folder).eval()
    close(logits(cut, ids), logits(whole, ids)[..., :290])
    assert set(KEYS.to_theirs(ours)) == {KEYS.their_name(k) for k in ours}


def mosaic_gpt(state: dict[str, Tensor], ids: Tensor) -> Tensor:
    """MosaicGPT, one sample: norm, attention with biases on scores and normed queries and keys, norm, GELU."""
    from torch.nn import functional as F

    x, heads = state["transformer.wte.weight"][ids[0]], 4
    steps = torch.arange(len(x))
    slopes = torch.tensor([2.0 ** -(8 * (h + 1) / heads) for h in range(heads)])
    bias = -(steps[:, None] - steps[None]).abs() * slopes[:, None, None]
    bias = bias.masked_fill(steps[None] > steps[:, None], -math.inf)
    norm = lambda name, v: F.layer_norm(v, v.shape[-1:], state[f"{name}.weight"])  # noqa: E731
    for i in range(2):
        block = f"transformer.blocks.{i}."
        q, k, v = (norm(f"{block}norm_1", x) @ state[f"{block}attn.Wqkv.weight"].T).chunk(3, -1)
        q, k = norm(f"{block}attn.q_ln", q), norm(f"{block}attn.k_ln", k)
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(0, 1) for part in (q, k, v))
        weights = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]) + bias).softmax(-1)
        x = x + (weights @ v).transpose(0, 1).flatten(1) @ state[f"{block}attn.out_proj.weight"].T
        inner = F.gelu(norm(f"{block}norm_2", x) @ state[f"{block}ffn.up_proj.weight"].T)
        x = x + inner @ state[f"{block}ffn.down_proj.weight"].T
    return (norm("transformer.norm_f", x) @ state["transformer.wte.weight"].T)[None]


# Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"model_type": "llama"}, "type 'llama'"), ({"rotary_pct": 0.5}, "rotary_pct: 0.5"), ({"no_bias": False}, "no_bias: False")],
)  # fmt: skip
def test_other_qwens_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    qwen_folder(tmp_path / "qwen", **changes)
    with pytest.raises(WeightsError, match=said):
        locate((FolderSource(path=str(tmp_path / "qwen"), format="qwen"),))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"model_type": "mpt"}, "type 'mpt'"), ({"alibi": False}, "alibi=False"), ({"attn_qk_ln": None}, "attn_qk_ln=None"),
     ({"logit_scale": 2.0}, "logit_scale=2.0")],
)  # fmt: skip
def test_other_mosaic_gpts_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    mosaic_folder(tmp_path / "mpt", "attn", **changes)
    with pytest.raises(WeightsError, match=said):
        locate((FolderSource(path=str(tmp_path / "mpt"), format="mosaic_gpt"),))


@pytest.mark.parametrize("format", ["open_clip", "eva_vit_g", "eva_clip", "efficientnet_lite"])
def test_files_of_other_things_and_with_code_are_refused(format: Any, tmp_path: Path) -> None:
    torch.save({"blocks.0.x": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError):
        at(tmp_path / "other.pt", format)
    mark = tmp_path / "ran"
    for name, save in (("new.pth", torch.save), ("raw.bin", lambda v, f: f.write_bytes(pickle.dumps(v)))):
        save({"visual.conv1.weight": torch.zeros(1), "cls_token": Evil(mark)}, tmp_path / name)
        with pytest.raises(WeightsError, match="needs pickled code"):
            at(tmp_path / name, format)
        assert not mark.exists()
    assert not list((tmp_path / "cache").rglob("*"))


def test_a_folder_with_code_is_refused(tmp_path: Path) -> None:
    mosaic_folder(tmp_path / "mpt", "attn")
    torch.save({"transformer.wte.weight": Evil(tmp_path / "ran")}, tmp_path / "mpt" / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="needs pickled code"):
        locate((FolderSource(path=str(tmp_path / "mpt"), format="mosaic_gpt"),))
    assert not (tmp_path / "ran").exists()


def test_config_errors_keep_their_kind(tmp_path: Path) -> None:
    from sensorium.interop.mosaic_gpt import mpt_arch

    with pytest.raises(ConfigError, match="without d_model"):
        mpt_arch({"model_type": "mosaic_gpt"}, "here")
