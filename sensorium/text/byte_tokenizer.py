"""A tokenizer of the 256 bytes and the tokens of chat templates, for tiny models from scratch."""

from __future__ import annotations

from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as RustTokenizer

from sensorium.text.tokenizer import Tokenizer

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LATER = ("<|vision_start|>", "<|vision_end|>", "<img>", "</img>")
"""Behind the bytes, so that these keep the ids that saved models know."""


def byte_tokenizer() -> Tokenizer:
    """263 ids: three control tokens, every byte, marks around pictures of two kinds."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate((*SPECIALS, *alphabet))}
    rust = RustTokenizer(models.BPE(vocab=vocab, merges=[]))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    rust.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (*SPECIALS, *LATER)])
    return Tokenizer(rust, bos_id=None, eos_id=0, pad_id=0)
