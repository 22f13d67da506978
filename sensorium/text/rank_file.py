"""Tokenizers as files of ranks (`qwen.tiktoken`): one line a token, its bytes in base64 and its rank.

Such a tokenizer joins, again and again, the two neighbours whose joint has the lowest rank. Here that becomes a
`tokenizer.json`: each token of several bytes is the merge of the two tokens that joining by lower ranks
alone leaves of it. Source of the format: github.com/openai/tiktoken; of Qwen's special tokens and how it splits
text: tokenization_qwen.py beside its weights.
"""

from __future__ import annotations

import base64
import binascii
import itertools
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as RustTokenizer

from sensorium.core.errors import WeightsError

QWEN = "qwen.tiktoken"
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_MARKS = ("ref", "box", "quad")
QWEN_SPECIALS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)),
    *(f"<{end}{mark}>" for mark in QWEN_MARKS for end in ("", "/")), "<img>", "</img>", "<imgpad>",
)  # fmt: skip


def read_qwen(file: Path) -> RustTokenizer:
    """Qwen's tokenizer, its special tokens behind the others.

    Raises:
        WeightsError: a line is not a token and its rank.
    """
    ranks = read_ranks(file)
    letters = _letters()
    names = {token: "".join(letters[b] for b in token) for token in ranks}
    merges = [(names[one], names[two]) for token in ranks if len(token) > 1 for one, two in [_halves(token, ranks)]]
    vocab = {names[token]: rank for token, rank in ranks.items()}
    rust = RustTokenizer(models.BPE(vocab=vocab, merges=merges))
    rust.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated")
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    rust.pre_tokenizer = pre_tokenizers.Sequence([split, plain])
    rust.decoder = decoders.ByteLevel()
    rust.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in QWEN_SPECIALS])
    return rust


def read_ranks(file: Path) -> dict[bytes, int]:
    """Bytes -> rank, in order of rank.

    Raises:
        WeightsError: a line is something else.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise WeightsError("not a token and its rank", where=f"{file}:{number}") from None
    return dict(sorted(ranks.items(), key=lambda pair: pair[1]))


def _halves(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """What joining by ranks below the token's own leaves of it.

    Raises:
        WeightsError: not two pieces, so that the token could never come about.
    """
    pieces = [token[i : i + 1] for i in range(len(token))]
    last = ranks[token]
    while len(pieces) > 2:
        joints = [ranks.get(one + two, last) for one, two in itertools.pairwise(pieces)]
        best = min(joints)
        if best == last:
            break
        place = joints.index(best)
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
    if len(pieces) != 2:
        raise WeightsError(f"token {token!r} is not the merge of two others", fix="the file is damaged")
    return pieces[0], pieces[1]


def _letters() -> list[str]:
    """The letter that byte-level tokenizers write for each byte: itself where it can be printed, else
    the next free one from 256 on."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    table = {b: chr(b) for b in shown} | {b: chr(256 + i) for i, b in enumerate(hidden)}
    return [table[b] for b in range(256)]
