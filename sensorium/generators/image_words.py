"""Which word of an LLM's vocabulary stands for which code of a picture, where codes have words of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sensorium.core.errors import ConfigError

CHAMELEON = re.compile(r"IMGIMG([A-J]+)Z")
"""Letters A to J are the digits 0 to 9 (github.com/facebookresearch/chameleon, chameleon/inference/vocab.py)."""
EMU3 = re.compile(r"<\|visual token (\d{6})\|>")


def chameleon_words(vocabulary: Mapping[str, int]) -> tuple[int, ...]:
    """Vocabulary id of each code, in the codes' order.

    Raises:
        ConfigError: no codes are named, or some are missing between 0 and the last.
    """
    digits = str.maketrans("ABCDEFGHIJ", "0123456789")
    return _in_order({int(m[1].translate(digits)): id for word, id in vocabulary.items() if (m := CHAMELEON.fullmatch(word))})


def emu3_words(vocabulary: Mapping[str, int]) -> tuple[int, ...]:
    """As `chameleon_words`, of Emu3's vocabulary."""
    return _in_order({int(m[1]): id for word, id in vocabulary.items() if (m := EMU3.fullmatch(word))})


def _in_order(found: Mapping[int, int]) -> tuple[int, ...]:
    missing = sorted(set(range(max(found, default=0) + 1)) - set(found))
    if missing:
        raise ConfigError(f"{len(missing)} codes have no word in the vocabulary, the first is {missing[0]}",
                          expected="a word for each code", where="vocabulary", fix="check that it is this model's own")  # fmt: skip
    return tuple(found[code] for code in range(len(found)))
