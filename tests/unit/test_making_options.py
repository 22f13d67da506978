"""What `ask --save` may ask of how media are made: it reaches what makes them, and what changes nothing is said."""

from __future__ import annotations

import pytest

from sensorium.cli.making_options import MakingOptions, read_size
from sensorium.core.errors import ConfigError
from sensorium.core.hands import Drawing, Making
from sensorium.generators import GENERATORS, PICTURE_TOKENIZERS
from sensorium.interop.saved import read_model_config
from sensorium.interop.shipped import SHIPPED
from sensorium.model.config import ModelConfig
from sensorium.recipes import TINY_FORMS

EVERYTHING = MakingOptions(5, 1, 2.0, "64x48", "grey")


def lines(options: MakingOptions, config: ModelConfig) -> list[str]:
    return list(options.idle(config))


def test_a_size_is_two_sides_or_one() -> None:
    assert (read_size("512x384"), read_size("64"), read_size(" 8X16 ")) == ((384, 512), (64, 64), (16, 8))
    for wrong in ("", "x", "64x", "0", "64x0", "-64", "64.5", "9000", "1e3", "64x64x3", "٣٢"):
        with pytest.raises(ConfigError, match=r"--size: '.*'; expected pixels, WIDTHxHEIGHT"):
            read_size(wrong)
        with pytest.raises(ConfigError, match="--size"):
            MakingOptions(size=wrong).check()
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"--guidance: (nan|inf); expected a number"):
            MakingOptions(guidance=wrong).check()
    EVERYTHING.check()


def test_what_is_asked_for_is_in_the_making_and_nothing_else() -> None:
    config = read_model_config(SHIPPED["nano-draws"])
    assert MakingOptions().making(config, Making(draw=True)) == Making(draw=True)
    assert EVERYTHING.making(config, Making()) == Making(steps=5, seed=1, guidance=2.0, size=(48, 64), negative="grey")
    words = TINY_FORMS.find("emu3")().model
    led = MakingOptions(guidance=2.0, negative="grey").making(words, Making()).drawing
    own = words.picture_words.drawing  # pyright: ignore[reportOptionalMemberAccess]
    assert led == own.model_copy(update={"guidance": 2.0, "negative": "grey"}) != own


def test_what_changes_nothing_is_said_in_a_line_each() -> None:
    assert lines(EVERYTHING, read_model_config(SHIPPED["nano"])) == [
        f"--{name} changes nothing: this model makes no media" for name in ("steps", "seed", "guidance", "size", "negative")]  # fmt: skip
    assert lines(EVERYTHING, read_model_config(SHIPPED["nano-draws"])) == ["--steps changes nothing: nothing here heeds it (image: drawer)"]
    for name, maker in (("nano-finds", "image: retrieval_index"), ("nano-points", "mask: cutter")):
        found = lines(EVERYTHING, read_model_config(SHIPPED[name]))
        assert [line.partition(": ")[2] for line in found] == [f"nothing here heeds it ({maker})"] * 5
        assert lines(MakingOptions(), read_model_config(SHIPPED[name])) == []
    draws = read_model_config(SHIPPED["nano-draws"])
    assert lines(MakingOptions(guidance=9.0), draws) == ["--guidance 9 is taken as 2, the strongest of generator drawer"]
    assert lines(MakingOptions(guidance=1.0, negative="grey"), draws) == ["--negative changes nothing: with guidance 1 nothing is led away from"]


def test_what_is_drawn_as_tokens_is_led_in_its_own_way() -> None:
    words = TINY_FORMS.find("emu3")().model
    assert words.picture_words is not None
    assert lines(MakingOptions(seed=1, size="64", guidance=2.0, negative="x"), words) == []
    assert lines(MakingOptions(steps=3), words) == ["--steps changes nothing: nothing here heeds it (image: emu3_vq)"]
    still = words.model_copy(update={"picture_words": words.picture_words.model_copy(update={"drawing": Drawing(away="pads")})})
    assert "--negative changes nothing" in lines(MakingOptions(negative="x"), still)[0]
    assert PICTURE_TOKENIZERS.find("seed").tiny().heeds == {"steps", "guidance"}


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_says_what_it_heeds(name: str) -> None:
    assert GENERATORS.find(name).tiny().heeds <= {"steps", "guidance", "size", "negative", "seed"}
