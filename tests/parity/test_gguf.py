"""GGUF files become the very weights that transformers' own GGUF loader makes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from tokenizers import pre_tokenizers

from sensorium.backbones.causal_lm import CausalLMConfig
from sensorium.core.errors import WeightsError
from sensorium.interop.gguf import convert_gguf, to_hf_name
from sensorium.text.tokenizer import Tokenizer

WIDTH, MLP, LAYERS, HEADS, KEY_HEADS = 64, 96, 2, 4, 2
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCAB = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "Ġt", "Ġthe"]
MERGES = ["h e", "Ġ t", "Ġt he"]


def write_gguf(
    path: Path, kind: GGMLQuantizationType, tie: bool, *, key_heads: int = KEY_HEADS,
    change: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """A tiny model; `change` gives fields other values, or leaves out those that are None."""
    rng = np.random.default_rng(5)
    writer = GGUFWriter(path, "llama")
    writer.add_vocab_size(len(VOCAB))
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(MLP)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(50_000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(VOCAB)
    writer.add_token_types([3] * len(SPECIALS) + [1] * (len(VOCAB) - len(SPECIALS)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)

    def add(name: str, *shape: int) -> None:
        values = (rng.standard_normal(shape) * 0.1).astype(np.float32)
        if len(shape) == 1:
            writer.add_tensor(name, 1 + values)
        else:
            writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)

    keys = WIDTH // HEADS * key_heads
    add("token_embd.weight", len(VOCAB), WIDTH)
    add("output_norm.weight", WIDTH)
    if not tie:
        add("output.weight", len(VOCAB), WIDTH)
    for i in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            add(f"blk.{i}.{name}.weight", WIDTH)
        for name, rows, cols in (
            ("attn_q", WIDTH, WIDTH), ("attn_k", keys, WIDTH), ("attn_v", keys, WIDTH),
            ("attn_output", WIDTH, WIDTH), ("ffn_gate", MLP, WIDTH), ("ffn_up", MLP, WIDTH),
            ("ffn_down", WIDTH, MLP),
        ):  # fmt: skip
            add(f"blk.{i}.{name}.weight", rows, cols)
    for name, value in (change or {}).items():
        field = writer.kv_data[0].pop(name)
        if value is not None:
            writer.kv_data[0][name] = replace(field, value=value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_1"])
@pytest.mark.parametrize("tie", [True, False])
@torch.no_grad()
def test_same_function_as_transformers(kind: str, tie: bool, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    write_gguf(tmp_path / "m.gguf", GGMLQuantizationType[kind], tie)
    convert_gguf(tmp_path / "m.gguf", tmp_path / "hf")
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", dtype=torch.float32
    ).eval()
    arch = json.loads((tmp_path / "hf" / "config.json").read_text())
    ours = CausalLMConfig(arch=arch).build(tmp_path / "hf")
    ids = torch.randint(0, len(VOCAB), (2, 17))
    positions = torch.arange(17).expand(2, -1)
    hidden = ours(ours.embed(ids), positions_BT=positions)
    torch.testing.assert_close(ours.logits(hidden), theirs(ids).logits, atol=1e-5, rtol=1e-4)


def test_tokenizer_of_the_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", GGMLQuantizationType.F32, True)
    convert_gguf(tmp_path / "m.gguf", tmp_path / "hf")
    tokenizer = Tokenizer.load(tmp_path / "hf")
    ids = tokenizer.encode("see the 42 hé<|im_end|>")
    assert VOCAB.index("Ġthe") in ids
    assert tokenizer.decode(ids, keep_special=True) == "see the 42 hé<|im_end|>"
    assert 2 not in ids
    assert tokenizer.eos_id == 2
    assert tokenizer.special_id("<|im_start|>") == 1


def test_conversion_shows_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gguf(tmp_path / "m.gguf", GGMLQuantizationType.F32, True)
    convert_gguf(tmp_path / "m.gguf", tmp_path / "hf")
    tensors = 2 + 9 * LAYERS
    assert f"unpacking m.gguf: {tensors}/{tensors}" in capsys.readouterr().err


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUFnot really")
    with pytest.raises(WeightsError, match=r"x\.gguf"):
        convert_gguf(tmp_path / "x.gguf", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()
    with pytest.raises(WeightsError, match="mystery"):
        to_hf_name("blk.0.mystery.weight")


def converted(folder: Path, key_heads: int = KEY_HEADS, **change: Any) -> tuple[dict[str, Any], Path]:
    """The config of a file with changed fields, and the converted folder."""
    folder.mkdir()
    fields = {name.replace("__", "."): value for name, value in change.items()}
    write_gguf(folder / "m.gguf", GGMLQuantizationType.F32, True, key_heads=key_heads, change=fields)
    convert_gguf(folder / "m.gguf", folder / "hf")
    return json.loads((folder / "hf" / "config.json").read_text()), folder / "hf"


@pytest.mark.parametrize(
    ("field", "default"),
    [("llama__vocab_size", len(VOCAB)), ("llama__attention__head_count_kv", HEADS),
     ("llama__rope__freq_base", 10_000.0)],
)  # fmt: skip
def test_fields_left_out_mean_their_defaults(field: str, default: float, tmp_path: Path) -> None:
    said, said_folder = converted(tmp_path / "said", HEADS, **{field: default})
    left_out, folder = converted(tmp_path / "left_out", HEADS, **{field: None})
    assert left_out == said
    one, two = (CausalLMConfig(arch=said).build(f).state_dict() for f in (said_folder, folder))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_file_may_have_no_beginning_no_padding_and_no_types(tmp_path: Path) -> None:
    config, folder = converted(
        tmp_path / "x", tokenizer__ggml__bos_token_id=None, tokenizer__ggml__token_type=None,
        tokenizer__ggml__padding_token_id=None,
    )  # fmt: skip
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (None, 2, None)
    tokenizer = Tokenizer.load(folder)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (None, 2, 2)
    assert dict(tokenizer.specials()) == {"<|im_end|>": 2}
    CausalLMConfig(arch=config).build(folder)


@pytest.mark.parametrize(
    "field",
    ["llama.context_length", "llama.embedding_length", "llama.block_count",
     "llama.feed_forward_length", "llama.attention.head_count",
     "llama.attention.layer_norm_rms_epsilon", "tokenizer.ggml.tokens", "tokenizer.ggml.merges",
     "tokenizer.ggml.eos_token_id"],
)  # fmt: skip
def test_missing_fields_without_a_default_are_named(field: str, tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", GGMLQuantizationType.F32, True, change={field: None})
    with pytest.raises(WeightsError, match=rf"m\.gguf: the GGUF metadata lacks '{field}'"):
        convert_gguf(tmp_path / "m.gguf", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [("tokenizer.ggml.token_type", [1, 1], r"m\.gguf: 2 token types; expected 262"),
     ("tokenizer.ggml.eos_token_id", 999, r"m\.gguf: special token 999; expected at most 261"),
     ("tokenizer.ggml.pre", None, r"m\.gguf: GGUF tokenizer 'gpt2' with splitter None")],
)  # fmt: skip
def test_tokenizers_that_cannot_be_are_named(
    field: str, value: Any, found: str, tmp_path: Path
) -> None:
    write_gguf(tmp_path / "m.gguf", GGMLQuantizationType.F32, True, change={field: value})
    with pytest.raises(WeightsError, match=found):
        convert_gguf(tmp_path / "m.gguf", tmp_path / "hf")
