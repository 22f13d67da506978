"""Tiny tokenizers of the two kinds that GGUF holds."""

from __future__ import annotations

from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as RustTokenizer

from sensorium.text.tokenizer import Tokenizer

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = [("h", "e"), ("Ġ", "t"), ("Ġt", "he"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("t", "h")]


def byte_level(pre: str = "gpt-2") -> Tokenizer:
    """Bytes, control tokens and a few merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*SPECIALS, *alphabet, *("".join(m) for m in MERGES)]
    rust = RustTokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=MERGES))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    rust.pre_tokenizer = level if pre == "gpt-2" else pre_tokenizers.Sequence([digits, level])
    rust.decoder = decoders.ByteLevel()
    rust.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS])
    return Tokenizer(rust, bos_id=None, eos_id=0, pad_id=0)


def sentence_piece() -> Tokenizer:
    """LLaMA's kind: spaces are `▁`, one in front of a text, and bytes stand in for what is unknown."""
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "hello")]
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz."]
    words = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *("".join(m) for m in merges), *letters]
    vocab = {w: i for i, w in enumerate(words)}
    rust = RustTokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    rust.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    rust.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    rust.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    return Tokenizer(rust, bos_id=1, eos_id=2, pad_id=2)
