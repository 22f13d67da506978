"""Files of ranks against the rule that they stand for, applied by hand. (Qwen's own file of 151,643 tokens gave the
ids of tiktoken on twelve texts in eight scripts, 6,862 tokens, when this was written.)"""

from __future__ import annotations

import base64
import itertools
from pathlib import Path

import pytest

from sensorium.core.errors import WeightsError
from sensorium.text.tokenizer import Tokenizer

# In order of rank, behind the 256 bytes.
JOINED = ["th", "he", "the", " t", " the", "in", "ing", "thing", "ä", " 图"]


def ranks() -> dict[bytes, int]:
    tokens = [bytes([b]) for b in range(256)] + [text.encode() for text in JOINED]
    # A character of three bytes wants a token of two of them first.
    tokens.insert(-1, " 图".encode()[:2])
    tokens.insert(-1, " 图".encode()[:3])
    return {token: rank for rank, token in enumerate(tokens)}


def by_hand(word: str, table: dict[bytes, int]) -> list[int]:
    """Join the lowest rank until nothing can be joined."""
    pieces = [bytes([b]) for b in word.encode()]
    while True:
        joints = {i: table[a + b] for i, (a, b) in enumerate(itertools.pairwise(pieces)) if a + b in table}
        if not joints:
            return [table[piece] for piece in pieces]
        i = min(joints, key=lambda place: (joints[place], place))
        pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in ranks().items()]
    (tmp_path / "qwen.tiktoken").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_ids_are_those_of_the_rule(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    for words in (["the", " thing"], [" the", " thäng"], ["x", " 图"], ["it", "'s"], ["ing", "\n\n"], ["4", "2"]):
        expected = [i for word in words for i in by_hand(word, ranks())]
        text = "".join(words)
        assert tokenizer.encode(text) == expected, text
        assert tokenizer.decode(expected) == text


def test_special_tokens_stand_behind_the_others(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    first = len(ranks())
    assert tokenizer.eos_id == first
    # As far behind as in Qwen-VL: 151857 of 151643.
    assert tokenizer.special_id("<img>") - first == 151857 - 151643
    assert [tokenizer.special_id(t) - first for t in ("<ref>", "</ref>", "<box>")] == [208, 209, 210]
    assert len(tokenizer.encode("<img>")) > 1


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "qwen.tiktoken").write_text("IQ== 0\n!! 1\n")
    with pytest.raises(WeightsError, match=r"qwen\.tiktoken:2"):
        Tokenizer.load(tmp_path)
    (tmp_path / "qwen.tiktoken").write_text("IQ== 0\nISEh 1\n")
    with pytest.raises(WeightsError, match="not the merge"):
        Tokenizer.load(tmp_path)
