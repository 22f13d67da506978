"""Text <-> token ids, over a `tokenizer.json`.

User text can never become a control token: special tokens are encoded as plain text
unless they are asked for by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as RustTokenizer

from sensorium.core.atomic import write_json, write_text
from sensorium.core.errors import ConfigError, WeightsError
from sensorium.text.rank_file import QWEN, read_qwen
from sensorium.text.reader import Reader, read_rust

REMEMBERED, REMEMBERED_LENGTH = 16384, 4096
"""Texts whose ids are kept for a while, and characters that such a text has at most."""


class Tokenizer:
    """A tokenizer with the special ids that a chat needs."""

    def __init__(
        self, rust: RustTokenizer, *, bos_id: int | None, eos_id: int, pad_id: int | None
    ) -> None:
        self.rust = rust
        self.bos_id = bos_id
        self.eos_id = eos_id
        self.pad_id = eos_id if pad_id is None else pad_id
        self.reader: Reader | None = None
        """Of a part that reads text by itself and was trained with another vocabulary."""
        rust.encode_special_tokens = True
        rust.no_padding()
        rust.no_truncation()
        # Copied once: the Rust side rebuilds this table at every call.
        table = rust.get_added_tokens_decoder()
        self._specials: dict[str, int] = {token.content: index for index, token in table.items() if token.special}
        self.added: set[int] = set(table)
        """Ids of control tokens, and of words that were added to the vocabulary as a whole."""
        # A sample's texts are tokenised when its length is planned, and again when its row is made.
        self._ids = lru_cache(maxsize=REMEMBERED)(self._encoded)

    def __len__(self) -> int:
        return self.rust.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; control tokens inside it stay plain text."""
        return list(self._ids(text) if len(text) <= REMEMBERED_LENGTH else self._encoded(text))

    def _encoded(self, text: str) -> tuple[int, ...]:
        return tuple(self.rust.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int], *, keep_special: bool = False) -> str:
        """Text of ids; control tokens are dropped unless asked for."""
        return self.rust.decode(list(ids), skip_special_tokens=not keep_special)

    def special_id(self, token: str) -> int:
        """Id of a control token.

        Raises:
            ConfigError: the vocabulary has no such token.
        """
        found = self._specials.get(token, self.rust.token_to_id(token))
        if found is None:
            raise ConfigError(
                f"the tokenizer has no token {token!r}",
                fix="choose another chat template for this language model",
            )
        return found

    def has(self, token: str) -> bool:
        """Whether the vocabulary holds `token` as one id."""
        return self.rust.token_to_id(token) is not None

    def add(self, tokens: Iterable[str]) -> None:
        """Append control tokens to the vocabulary, those that it does not have, in their order."""
        missing = [AddedToken(t, special=True, normalized=False) for t in tokens if not self.has(t)]
        self.rust.add_special_tokens(missing)
        self._ids.cache_clear()
        self._specials |= {token.content: self.special_id(token.content) for token in missing}
        self.added |= {self.special_id(token.content) for token in missing}

    def specials(self) -> Mapping[str, int]:
        """The control tokens and their ids."""
        return self._specials

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`."""
        write_text(folder / "tokenizer.json", self.rust.to_str(pretty=False))
        write_json(folder / "tokenizer_config.json", self.named())
        if self.reader:
            self.reader.save(folder)

    def named(self) -> dict[str, str | None]:
        """What `tokenizer_config.json` calls the tokens that begin and end a text and fill it up."""
        ids = {"bos_token": self.bos_id, "eos_token": self.eos_id, "pad_token": self.pad_id}
        return {key: self.rust.id_to_token(i) for key, i in ids.items() if i is not None}

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read a folder in the Hugging Face layout (`tokenizer.json`), or with Qwen's file of ranks.

        Raises:
            WeightsError: there is no `tokenizer.json`, or no end-of-text token is named.
        """
        file = folder / "tokenizer.json"
        if not file.exists() and (folder / QWEN).exists():
            rust = read_qwen(folder / QWEN)
            end = rust.token_to_id("<|endoftext|>")
            if end is None:
                raise WeightsError("no <|endoftext|> among its tokens", where=str(folder / QWEN))
            return cls(rust, bos_id=None, eos_id=end, pad_id=rust.token_to_id("<imgpad>"))
        if not file.exists():
            raise WeightsError(
                "no tokenizer.json",
                where=str(folder),
                fix="save the tokenizer in its fast form (tokenizer.save_pretrained)",
            )
        rust = read_rust(file)
        names = _special_names(folder)
        ids = {key: rust.token_to_id(name) for key, name in names.items()}
        eos = ids.get("eos_token")
        if eos is None:
            raise WeightsError("no eos_token is named in tokenizer_config.json", where=str(folder))
        tokenizer = cls(rust, bos_id=ids.get("bos_token"), eos_id=eos, pad_id=ids.get("pad_token"))
        tokenizer.reader = Reader.find(folder)
        return tokenizer


def _special_names(folder: Path) -> dict[str, str]:
    names: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / file
        if not path.exists():
            continue
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for key in ("bos_token", "eos_token", "pad_token", "cls_token", "sep_token"):
            value = values.get(key)
            if isinstance(value, dict):
                value = value.get("content")
            if isinstance(value, str):
                names[key] = value
    # BERT's names for the begin and the end of a text.
    for key, theirs in (("bos_token", "cls_token"), ("eos_token", "sep_token")):
        found = names.pop(theirs, None)
        if found is not None:
            names.setdefault(key, found)
    return names
