"""Word error rate, by the golden vectors of the metric's specification."""

from __future__ import annotations

import pytest

from sensorium.evaluation.metrics.wer import word_error_rate, word_errors


@pytest.mark.parametrize(
    ("said", "heard", "rate"),
    [
        ("the cat sat on the mat", "the cat sit on mat", 1 / 3),
        ("hello world", "hello", 0.5),
        ("hello", "hello big world", 2.0),
        ("a b c d", "b c d e", 0.5),
        ("the cat", "", 1.0),
        ("hello world", "Hello, world!", 1.0),
        ("a cat", "a cat", 0.0),
    ],
)
def test_golden_vectors(said: str, heard: str, rate: float) -> None:
    assert word_error_rate([said], [heard]) == pytest.approx(rate)


def test_a_corpus_is_not_the_mean_of_its_texts() -> None:
    assert word_error_rate(["the cat sat on the mat", "hello world"], ["the cat sit on mat", "hello"]) == pytest.approx(0.375)
    assert word_errors("", "a b") == 2
    with pytest.raises(ValueError, match="no words"):
        word_error_rate([""], ["a"])
    with pytest.raises(ValueError, match="zip"):
        word_error_rate(["a"], [])
