"""Processes that divide an encoder gather its blocks together, whatever pictures each of them has."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from sensorium.encoders import ENCODERS
from sensorium.model.dividing import dividable_blocks


@pytest.mark.parametrize("name", ENCODERS)
def test_blocks_that_are_divided_are_called_once_however_many_pictures_there_are(name: str) -> None:
    config = ENCODERS.find(name).tiny()
    encoder, size = config.build().eval(), config.preprocess().size_px
    blocks = dividable_blocks(encoder)
    called: Counter[int] = Counter()
    for block in blocks:
        block.register_forward_hook(lambda block, *_: called.update([id(block)]))
    for times, pictures in enumerate((1, 6), 1):
        with torch.no_grad():
            encoder(torch.zeros(pictures, 3, size, size, dtype=torch.uint8))
        assert called == {id(block): times for block in blocks}
