"""Words that a system adds to a language model's, as the rows of its tables say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from sensorium.core.errors import WeightsError
from sensorium.interop.originals.base import Beside, Found, llm_folder, need
from sensorium.text.tokenizer import Tokenizer


def rows_with(folder: Path, added: tuple[str, ...]) -> int:
    """How many words a language model's tokenizer has with these, as `resize_token_embeddings` leaves them.

    Raises:
        WeightsError: it is not in the folder.
    """
    tokenizer = Tokenizer.load(folder)
    tokenizer.add(added)
    return len(tokenizer)


def words_of(found: Found, beside: Beside, tables: tuple[str, ...], choices: Sequence[tuple[str, ...]]) -> tuple[int, tuple[str, ...]]:
    """Rows of whole tables that the checkpoint holds, and which words are the last of them.

    Raises:
        WeightsError: there is no table, they have different numbers of rows, or none that any of the choices explains.
    """
    fix = "name an earlier stage's checkpoint, which has it, with --with"
    held: list[Tensor] = [need(found.tensors, name, found.path, fix) for name in tables]
    folder = llm_folder(beside, found.path)
    known = {rows_with(folder, added): added for added in choices}
    rows = {len(table) for table in held}
    if len(rows) > 1 or not rows <= set(known):
        raise WeightsError(f"{' and '.join(tables)} have {' and '.join(map(str, sorted(rows)))} rows",
                           expected=f"{' or '.join(map(str, known))}: the words of the language model's tokenizer and those added to them",
                           where=str(found.path), fix="name the language model that it was trained over with --llm")  # fmt: skip
    [count] = rows
    return count, known[count]
