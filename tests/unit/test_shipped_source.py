"""A source of weights may be a folder that ships with Sensorium: it is found wherever that is installed."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from sensorium.core.errors import WeightsError
from sensorium.core.weights import ShippedSource
from sensorium.data.drawn import SIDE_PX
from sensorium.generators.tokenizer_files import open_tokenizer
from sensorium.interop.locate import at_hand, locate
from sensorium.recipes.nano_writes import TRAINED, nano_writes_model


def test_the_tokenizer_of_nano_writes_is_the_shipped_one() -> None:
    folder = locate((TRAINED,))
    assert folder is not None
    assert at_hand(TRAINED)
    told = nano_writes_model().picture_words
    assert told is not None
    assert str(folder) not in told.to_yaml()
    shipped = open_tokenizer(folder)
    built = told.tokenizer.build(folder)
    pixels_BCHW = torch.randint(0, 256, (2, 3, SIDE_PX, SIDE_PX), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(built.encode(pixels_BCHW), shipped.encode(pixels_BCHW), rtol=0, atol=0)


def test_one_that_is_not_there_is_named() -> None:
    lost = ShippedSource(path="nano-draws/lost")
    assert not at_hand(lost)
    with pytest.raises(WeightsError, match="nano-draws/lost"):
        locate((lost,))


@pytest.mark.parametrize("path", ["../secrets", "/etc", "nano/../..", ""])
def test_none_leads_out_of_the_installation(path: str) -> None:
    with pytest.raises(ValidationError):
        ShippedSource(path=path)
