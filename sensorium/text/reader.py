"""The tokenizer of a part that reads text beside the LLM: a Q-Former's, of BERT's kind.

It lies in a folder of its own in a model's folder, as in transformers' InstructBLIP.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer as RustTokenizer

from sensorium.core.atomic import write_text
from sensorium.core.errors import WeightsError

FOLDER = "qformer_tokenizer"


class Reader:
    """Text -> ids, with the begin and end that the tokenizer puts around a text."""

    def __init__(self, rust: RustTokenizer) -> None:
        self.rust = rust
        rust.encode_special_tokens = True
        rust.no_padding()
        rust.no_truncation()

    def __len__(self) -> int:
        return self.rust.get_vocab_size(with_added_tokens=True)

    def read(self, text: str) -> list[int]:
        """Ids of a text; what looks like a control token inside it stays plain text."""
        return list(self.rust.encode(text, add_special_tokens=True).ids)

    def save(self, model_folder: Path) -> None:
        """Write its folder inside a model's."""
        (model_folder / FOLDER).mkdir(exist_ok=True)
        write_text(model_folder / FOLDER / "tokenizer.json", self.rust.to_str(pretty=False))

    @classmethod
    def find(cls, model_folder: Path) -> Reader | None:
        """The one in a model's folder, if there is one."""
        folder = model_folder / FOLDER
        return cls.load(folder) if (folder / "tokenizer.json").exists() else None

    @classmethod
    def load(cls, folder: Path) -> Reader:
        """The one in a folder of its own.

        Raises:
            WeightsError: there is no `tokenizer.json`.
        """
        file = folder / "tokenizer.json"
        if not file.exists():
            raise WeightsError("no tokenizer.json for a part that reads text", where=str(folder),
                               fix="save the tokenizer in its fast form (tokenizer.save_pretrained)")  # fmt: skip
        return cls(read_rust(file))


def read_rust(file: Path) -> RustTokenizer:
    """A `tokenizer.json`.

    Raises:
        WeightsError: it is damaged, or of a kind that is not known.
    """
    try:
        return RustTokenizer.from_file(str(file))
    except Exception as error:  # The Rust side raises no narrower one.
        raise WeightsError(f"not a tokenizer: {error}", where=str(file)) from None
