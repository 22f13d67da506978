"""Captions of a batch as token ids for a part that reads text beside the LLM.

Shape legend: M captions, S tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sensorium.core.batch import Batch
from sensorium.core.errors import ConfigError
from sensorium.processing.processor import Processor
from sensorium.training.objectives.vocabulary import learned_texts

BEGIN = "[DEC]"
"""Begins a text that is to be written (BLIP, arXiv:2201.12086)."""


class CaptionReader:
    """Reads by the reader that came with the model (BERT's), else by the LLM's own tokenizer."""

    def __init__(self, processor: Processor, words: int, longest: int) -> None:
        """Look at the vocabulary.

        Args:
            words: rows of embeddings there are.
            longest: tokens that are kept of a caption.

        Raises:
            ConfigError: the tokenizer has more words than there are rows.
        """
        self.processor = processor
        self.longest = longest
        tokenizer = processor.tokenizer
        self._reader = tokenizer.reader
        known = len(self._reader or tokenizer)
        found = self._reader.rust.token_to_id(BEGIN) if self._reader else None
        # Added to a vocabulary it would be the next token.
        self.begin_id = known if found is None else int(found)
        if max(known, self.begin_id + 1) > words:
            raise ConfigError(
                f"a tokenizer of {known} words, and one that begins a text, for {words} rows",
                where="objective.words",
                fix="raise words, or bring the tokenizer that the part was trained with",
            )

    def read(self, batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
        """Ids, padded on the right, and which of them are real."""
        rows = [self._ids(text) for text in learned_texts(batch, self.processor)]
        length = max((len(row) for row in rows), default=0)
        ids_MS = torch.zeros(len(rows), length, dtype=torch.long)
        for m, row in enumerate(rows):
            ids_MS[m, : len(row)] = torch.tensor(row, dtype=torch.long)
        lengths_M = torch.tensor([len(row) for row in rows])
        real_MS = torch.arange(length) < lengths_M[:, None]
        return ids_MS.to(device), real_MS.to(device)

    def _ids(self, text: str) -> list[int]:
        tokenizer = self.processor.tokenizer
        if self._reader is None:
            # A begin to be replaced, and an end to be written.
            ids = [self.begin_id, *tokenizer.encode(text), tokenizer.eos_id]
        else:
            ids = self._reader.read(text)
        # The end of a text that is cut stays its end.
        return ids if len(ids) <= self.longest else [*ids[: self.longest - 1], ids[-1]]

    def begun(self, ids_MS: Tensor) -> Tensor:
        """The same texts, to be written: their first token is `[DEC]`."""
        begun_MS = ids_MS.clone()
        begun_MS[:, 0] = self.begin_id
        return begun_MS
