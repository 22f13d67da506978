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
MASK = "[MASK]"


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
        self.words = words
        tokenizer = processor.tokenizer
        self._reader = tokenizer.reader
        self.known = len(self._reader or tokenizer)
        if self.known > words:
            raise self._too_few("")

    def _too_few(self, beside: str) -> ConfigError:
        return ConfigError(
            f"a tokenizer of {self.known} words{beside} for {self.words} rows of embeddings",
            where="objective",
            fix="raise words, or bring the tokenizer that the part was trained with",
        )

    def _id(self, mark: str, behind: int) -> int:
        """Id of a mark; one that the vocabulary lacks would be added behind it.

        Raises:
            ConfigError: there is no row for it.
        """
        found = self._reader.rust.token_to_id(mark) if self._reader else None
        index = self.known + behind if found is None else int(found)
        if index >= self.words:
            raise self._too_few(f", and {mark},")
        return index

    @property
    def begin_id(self) -> int:
        """Begins a text that is to be written."""
        return self._id(BEGIN, 0)

    @property
    def mask_id(self) -> int:
        """Stands for a hidden word."""
        return self._id(MASK, 1)

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
