"""A tokenizer as the fields of a GGUF file: byte-level BPE, or SentencePiece's BPE.

Source of the fields and of the names of splitters: ggml-org/llama.cpp, `conversion/base.py` and
`src/llama-vocab.cpp`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sensorium.core.errors import ConfigError
from sensorium.interop.gguf import CONTROL_TOKEN, GPT2_SPLIT
from sensorium.text.tokenizer import Tokenizer

NORMAL, UNKNOWN, UNUSED, BYTE = 1, 2, 5, 6
LLAMA3_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+")  # fmt: skip
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
SPLITTERS = {GPT2_SPLIT: "gpt-2", LLAMA3_SPLIT: "llama-bpe", QWEN2_SPLIT: "qwen2"}
NO_MERGE = -1e6
"""Score of a token that no merge makes; it is never chosen over one that a merge makes."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a file says of its tokens."""

    model: str
    """`gpt2`: byte-level BPE; `llama`: SentencePiece."""
    pre: str
    """How text is split before it is merged."""
    tokens: list[str]
    types: list[int]
    merges: list[str]
    scores: list[float]


def vocabulary(tokenizer: Tokenizer, size: int) -> Vocabulary:
    """The fields of a tokenizer.

    Args:
        size: rows of the language model's embedding; rows without a token get an unused one.

    Raises:
        ConfigError: llama.cpp has no tokenizer of this kind.
    """
    values: dict[str, Any] = json.loads(tokenizer.rust.to_str())
    model = values["model"]
    if model.get("type") != "BPE" or not isinstance(model.get("vocab"), dict):
        raise refusal(f"a tokenizer of kind {model.get('type')!r}", "BPE")
    beyond = max([*model["vocab"].values(), *(a["id"] for a in values["added_tokens"])]) + 1
    if beyond > size:
        raise refusal(f"a tokenizer of {beyond} tokens", f"at most {size}, the rows of the embedding")
    pieces = bool(model.get("byte_fallback"))
    tokens, types = [f"[PAD{i}]" for i in range(size)], [UNUSED] * size
    for token, i in model["vocab"].items():
        tokens[i], types[i] = token, NORMAL
        if pieces and len(token) == 6 and token.startswith("<0x"):
            types[i] = BYTE
    for added in values["added_tokens"]:
        tokens[added["id"]], types[added["id"]] = added["content"], CONTROL_TOKEN if added["special"] else NORMAL
    if pieces and model.get("unk_token") in model["vocab"]:
        types[model["vocab"][model["unk_token"]]] = UNKNOWN
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    if not merges:
        raise refusal("its tokenizer merges nothing", "merges, which llama.cpp wants of every BPE")
    # SentencePiece merges what makes the token of the highest score: the earliest merge.
    ranks = {merge.replace(" ", ""): -float(i) for i, merge in reversed(list(enumerate(merges)))}
    return Vocabulary(
        model="llama" if pieces else "gpt2",
        pre="default" if pieces else _splitter(values.get("pre_tokenizer")),
        tokens=tokens,
        types=types,
        merges=[] if pieces else merges,
        scores=[ranks.get(token, NO_MERGE) for token in tokens] if pieces else [],
    )


def _splitter(config: dict[str, Any] | None) -> str:
    """llama.cpp's name of a way to split text.

    Raises:
        ConfigError: it is none of those known here.
    """
    steps = (config or {}).get("pretokenizers", [config] if config else [])
    digits = [s for s in steps if s["type"] == "Digits"]
    splits = [s["pattern"].get("Regex") for s in steps if s["type"] == "Split"]
    splits += [GPT2_SPLIT for s in steps if s["type"] == "ByteLevel" and s.get("use_regex", True)]
    name = SPLITTERS.get(splits[0]) if len(splits) == 1 else None
    if digits and name == "gpt-2" and all(s["individual_digits"] for s in digits):
        return "smollm"
    if name is None or digits or any(s.get("add_prefix_space") for s in steps):
        raise refusal(f"a tokenizer that splits text by {config}", ", ".join((*SPLITTERS.values(), "smollm")))
    return name


def refusal(found: str, expected: str) -> ConfigError:
    """The error for what llama.cpp, or what is written for it here, does not have."""
    return ConfigError(f"this model cannot be written as GGUF: {found}", expected=expected)
